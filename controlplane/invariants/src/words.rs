//! The small languages: selectors, quantities, names. What is printed is read as the same.

use pagurus_controlplane_api::selectors::{FieldSelector, LabelSelector};
use pagurus_controlplane_api::{labels, quantity::Quantity};
use serde_json::json;

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Label selectors of a query string, and those in objects.
pub(crate) fn label_selector(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(value) = serde_json::from_str(text) {
        let _ = LabelSelector::from_json(&value).map(|selector| same_label_selector(&selector));
    }
    if let Ok(selector) = LabelSelector::parse(text) {
        same_label_selector(&selector);
    }
}

fn same_label_selector(selector: &LabelSelector) {
    let shown = selector.to_string();
    let Ok(again) = LabelSelector::parse(&shown) else {
        // Selectors of objects can select nothing, which the query string cannot say.
        return assert!(!selector.matches_map(json!({"a": "b"}).as_object()), "{shown:?} does not parse");
    };
    assert_eq!(again.to_string(), shown, "a selector there and back");
    for labels in [json!({}), json!({"a": "b"}), json!({"a": "5", "c": ""})] {
        assert_eq!(
            again.matches_map(labels.as_object()),
            selector.matches_map(labels.as_object()),
            "{shown}"
        );
    }
}

/// Field selectors.
pub(crate) fn field_selector(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(selector) = FieldSelector::parse(text) else { return };
    let shown = selector.to_string();
    let again = FieldSelector::parse(&shown).expect("an own selector parses");
    assert_eq!(again, selector, "a field selector there and back");
}

/// Resource quantities.
pub(crate) fn quantity(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (first, second) = text.split_once(' ').unwrap_or((text, "1"));
    let Ok(a) = first.parse::<Quantity>() else { return };
    let shown = a.to_string();
    let again: Quantity = shown.parse().expect("an own quantity parses");
    assert_eq!(again, a, "{first} there and back");
    assert_eq!(again.to_string(), shown, "{first} is canonical");
    let _ = (a.value(), a.milli_value(), a.as_f64(), a.is_integer(), a.is_milli_exact());
    let Ok(b) = second.parse::<Quantity>() else { return };
    assert_eq!(a.partial_cmp(&b).map(std::cmp::Ordering::reverse), b.partial_cmp(&a), "{first} {second}");
    let _ = ((a + b).to_string(), (a - b).to_string());
}

/// Names of all sorts, addresses, and what is said about wrong ones.
pub(crate) fn names(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let checks: [fn(&str) -> Vec<String>; 14] = [
        labels::dns_label,
        labels::dns_subdomain,
        labels::dns_subdomain_caseless,
        labels::dns_subdomain_with_underscore,
        labels::dns1035_label,
        labels::wildcard_dns_subdomain,
        labels::qualified_name,
        labels::label_value,
        labels::c_identifier,
        labels::environment_name,
        labels::config_key,
        labels::port_name,
        labels::http_header_name,
        labels::fully_qualified_name,
    ];
    for check in checks {
        let found = check(text);
        assert!(found.iter().all(|message| !message.is_empty()), "a fault is told");
        assert!(found.is_empty() || check(&text.repeat(2)).len() < 10, "told once");
    }
    assert!(
        labels::dns_label(text).is_empty() <= labels::dns_subdomain(text).is_empty(),
        "a label is a subdomain"
    );
    let _ = (
        labels::path_segment_name(text, true),
        labels::mask_trailing_dash(text),
        labels::domain_prefixed_path(text),
    );
    // What is refused may still be read: old objects have leading zeros.
    assert!(labels::ip(text).is_empty() <= labels::parse_ip(text).is_some(), "{text:?} is an address");
    assert!(labels::cidr(text).is_empty() <= labels::parse_cidr(text).is_some(), "{text:?} is a network");
    assert!(labels::canonical_ip(text).is_empty() <= labels::ip(text).is_empty(), "{text:?} is canonical");
}

pub(crate) fn label_selector_seeds() -> Vec<Vec<u8>> {
    let object = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["x", "y"]}]});
    let mut all =
        seeds(&["a=b", "a==b,c!=d", "a in (b,c), !d", "e notin (f)", "x.io/y", "a>5,b<7", "a in (,b)", ""]);
    all.push(object.to_string().into_bytes());
    all
}

pub(crate) fn field_selector_seeds() -> Vec<Vec<u8>> {
    seeds(&["metadata.name=a", "spec.nodeName!=x,status.phase==Running", "a=b\\,c\\=d\\\\", ",,a=", "a"])
}

pub(crate) fn quantity_seeds() -> Vec<Vec<u8>> {
    seeds(&[
        "1 2",
        "100m 3",
        "1.5Gi 2Ki",
        "-0.1e3 5E",
        "12E6 1n",
        "9223372036854775807 1u",
        "+.5 .0001",
        "1e-9 9999Ei",
    ])
}

pub(crate) fn names_seeds() -> Vec<Vec<u8>> {
    seeds(&[
        "a-b",
        "a.b.c",
        "*.x.io",
        "A_B",
        "10.0.0.1",
        "::ffff:1.2.3.4",
        "fd00::/64",
        "010.1.1.1",
        "x.io/y",
        "-a",
        "a..b",
    ])
}
