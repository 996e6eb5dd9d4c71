//! What still works but is on its way out, or works other than it looks: texts for the client's `Warning` headers that several
//! kinds share. Must not know a kind.

use std::net::IpAddr;

use pagurus_controlplane_api::field::Path;
use pagurus_controlplane_api::go::quote;
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::quantity::Quantity;
use serde_json::Value;

use super::fields::Fields;

/// The annotation that came before `storageClassName`.
const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Labels of nodes that should not be selected by any more.
const NODE_LABELS: [(&str, &str); 8] = [
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
];

/// What is to be said of a label of nodes.
pub(crate) fn node_label(key: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(name, _)| *name == key).map(|(_, text)| *text)
}

/// A map of labels that nodes must have.
pub(crate) fn node_labels(out: &mut Vec<String>, path: &Path, labels: &Value) {
    for key in labels.as_object().into_iter().flat_map(|map| map.keys()) {
        if let Some(text) = node_label(key) {
            out.push(format!("{}: {text}", path.key(key)));
        }
    }
}

/// Requirements on labels of nodes, in `matchExpressions`. With `values`, those that no label can have are told.
pub(crate) fn node_expressions(out: &mut Vec<String>, path: &Path, term: &Value, values: bool) {
    for (i, entry) in term.items("matchExpressions").iter().enumerate() {
        let (path, key) = (path.child("matchExpressions").index(i), entry.text("key"));
        if let Some(text) = node_label(key) {
            out.push(format!("{}: {key} is {text}", path.child("key")));
        }
        for (j, value) in entry.texts("values").enumerate().filter(|_| values) {
            for complaint in labels::label_value(value) {
                out.push(format!("{}: {value} is invalid, {complaint}", path.child("values").index(j)));
            }
        }
    }
}

/// An amount of bytes with a fraction.
pub(crate) fn fraction(out: &mut Vec<String>, path: &Path, amount: &Value) {
    if let Ok(quantity) = Quantity::from_json(amount)
        && !quantity.is_integer()
    {
        let value = quote(&quantity.to_string());
        out.push(format!("{path}: fractional byte value {value} is invalid, must be an integer"));
    }
}

/// What a claim asks for.
pub(crate) fn claim(out: &mut Vec<String>, path: &Path, spec: &Value) {
    for kind in ["requests", "limits"] {
        if let Some(amount) = spec.at("resources").at(kind).get("storage") {
            fraction(out, &path.child("resources").child(kind).key("storage"), amount);
        }
    }
}

/// The class of storage, named in an annotation.
pub(crate) fn storage_class(out: &mut Vec<String>, object: &Value) {
    if labels::annotation(object, STORAGE_CLASS).is_some() {
        let path = Path::new("metadata.annotations").key(STORAGE_CLASS);
        out.push(format!("{path}: deprecated since v1.8; use \"storageClassName\" attribute instead"));
    }
}

/// An address that is not written as it should be (KEP-4858).
pub(crate) fn ip(out: &mut Vec<String>, path: &Path, text: &str) {
    let Some(address) = labels::parse_ip(text) else { return };
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if text.parse::<IpAddr>().is_err() || mapped {
        let form = quote(&address.to_canonical().to_string());
        let value = quote(text);
        out.push(format!(
            "{path}: non-standard IP address {value} will be considered invalid in a future Kubernetes release: use {form}"
        ));
    } else if address.is_ipv6() && address.to_string() != text {
        let form = quote(&address.to_string());
        out.push(format!(
            "{path}: IPv6 address {} should be in RFC 5952 canonical format ({form})",
            quote(text)
        ));
    }
}

/// A network that is not written as it should be.
pub(crate) fn cidr(out: &mut Vec<String>, path: &Path, text: &str) {
    let Some((address, length)) = labels::parse_cidr(text) else { return };
    let form = format!("{address}/{length}");
    if labels::cidr(text).is_empty() && address.is_ipv6() && form != text {
        out.push(format!(
            "{path}: IPv6 CIDR value {} should be in RFC 5952 canonical format ({})",
            quote(text),
            quote(&form)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("10.0.0.1", ""),
            ("::1", ""),
            ("x", ""),
            ("FE80::1", "p: IPv6 address \"FE80::1\" should be in RFC 5952 canonical format (\"fe80::1\")"),
            (
                "010.0.0.1",
                "p: non-standard IP address \"010.0.0.1\" will be considered invalid in a future Kubernetes release: use \"10.0.0.1\"",
            ),
            (
                "::ffff:1.2.3.4",
                "p: non-standard IP address \"::ffff:1.2.3.4\" will be considered invalid in a future Kubernetes release: use \"1.2.3.4\"",
            ),
        ] {
            let mut out = Vec::new();
            ip(&mut out, &Path::new("p"), text);
            assert_eq!(out.join(" "), expected);
        }
        let mut out = Vec::new();
        for text in ["10.0.0.0/8", "2001:DB8::/32", "x/1"] {
            cidr(&mut out, &Path::new("p"), text);
        }
        assert_eq!(
            out,
            [
                "p: IPv6 CIDR value \"2001:DB8::/32\" should be in RFC 5952 canonical format (\"2001:db8::/32\")"
            ]
        );
    }
}
