//! The rules for names and labels: DNS-1123 and friends, qualified names, port names, addresses. Each check returns
//! every complaint in kube-apiserver's words; none means the value is good.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// The complaint about a value that does not match a pattern.
pub fn pattern_message(text: &str, pattern: &str, examples: &[&str]) -> String {
    let mut out = text.to_owned();
    if examples.is_empty() {
        out.push_str(" (");
    } else {
        out.push_str(" (e.g. ");
        for (i, example) in examples.iter().enumerate() {
            if i > 0 {
                out.push_str(" or ");
            }
            out.push('\'');
            out.push_str(example);
            out.push_str("', ");
        }
    }
    out.push_str("regex used for validation is '");
    out.push_str(pattern);
    out.push_str("')");
    out
}

/// The complaint about a value of more than `max` bytes.
pub fn too_long_message(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// The same where the API speaks of bytes: qualified names and label values.
fn too_many_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// The complaint about a number outside a range.
pub fn range_message(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn alnum_lower(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    alnum_lower(first) && alnum_lower(last) && bytes.iter().all(|&c| alnum_lower(c) || c == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// A lowercase RFC 1123 label (no dots).
pub fn dns_label(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 63 {
        out.push(too_long_message(63));
    }
    if !is_label(text) {
        out.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            pattern_message(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL_FMT,
                &["my-name", "123-abc"],
            )
        });
    }
    out
}

/// Complaints that count bytes where others count characters: those of the API's declarative rules.
pub fn in_bytes(complaints: Vec<String>) -> Vec<String> {
    let bytes = |text: String| match text.strip_suffix(" characters") {
        Some(start) if start.starts_with("must be no more than ") => format!("{start} bytes"),
        _ => text,
    };
    complaints.into_iter().map(bytes).collect()
}

/// A lowercase RFC 1123 subdomain (labels with dots).
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 253 {
        out.push(too_long_message(253));
    }
    if !is_subdomain(text) {
        out.push(pattern_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN_FMT,
            &["example.com"],
        ));
    }
    out
}

/// An RFC 1123 subdomain in letters of either case.
pub fn dns_subdomain_caseless(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 253 {
        out.push("must be no more than 253 bytes".to_owned());
    }
    if !is_subdomain(&text.to_ascii_lowercase()) {
        out.push(pattern_message(
            "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN_FMT,
            &["Example.com"],
        ));
    }
    out
}

/// A lowercase RFC 1123 subdomain in which underscores may stand too (DNS search paths).
pub fn dns_subdomain_with_underscore(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 253 {
        out.push(too_long_message(253));
    }
    let good = text.split('.').all(|part| {
        let bytes = part.strip_prefix('_').unwrap_or(part).as_bytes();
        match (bytes.first(), bytes.last()) {
            (Some(&first), Some(&last)) => {
                alnum_lower(first)
                    && alnum_lower(last)
                    && bytes.iter().all(|&c| alnum_lower(c) || matches!(c, b'-' | b'_'))
            }
            _ => false,
        }
    });
    if !good {
        out.push(pattern_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    out
}

/// A DNS-1035 label: like RFC 1123, but beginning with a letter.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 63 {
        out.push(too_long_message(63));
    }
    if !(is_label(text) && text.as_bytes()[0].is_ascii_lowercase()) {
        out.push(pattern_message(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    out
}

/// A subdomain whose first label is `*`.
pub fn wildcard_dns_subdomain(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 253 {
        out.push(too_long_message(253));
    }
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        out.push(pattern_message(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{SUBDOMAIN_FMT}"),
            &["*.example.com"],
        ));
    }
    out
}

/// A name with an optional DNS subdomain prefix: label keys, annotation keys, finalizers, resource names.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".to_owned());
            } else {
                out.extend(dns_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        _ => {
            out.push(format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                pattern_message(QUALIFIED_TEXT, QUALIFIED_FMT, &["MyName", "my.name", "123-abc"])
            ));
            return out;
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        out.push(format!("name part {}", too_many_bytes(63)));
    }
    if !is_qualified_part(name) {
        let text = pattern_message(QUALIFIED_TEXT, QUALIFIED_FMT, &["MyName", "my.name", "123-abc"]);
        out.push(format!("name part {text}"));
    }
    out
}

/// A label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 63 {
        out.push(too_many_bytes(63));
    }
    if !text.is_empty() && !is_qualified_part(text) {
        out.push(pattern_message(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            &format!("({QUALIFIED_FMT})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    out
}

/// A name of a path segment, as RBAC objects have it.
pub fn path_segment_name(text: &str, prefix: bool) -> Vec<String> {
    if !prefix && (text == "." || text == "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|part| text.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// A `generateName` prefix as the name checks should see it: what follows a trailing dash is still to come.
pub fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            format!("{}a", &rest[..rest.char_indices().last().map_or(0, |(i, _)| i)])
        }
        _ => prefix.to_owned(),
    }
}

/// A C identifier.
pub fn c_identifier(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let good = bytes.first().is_some_and(|&c| c.is_ascii_alphabetic() || c == b'_')
        && bytes.iter().all(|&c| c.is_ascii_alphanumeric() || c == b'_');
    if good {
        return Vec::new();
    }
    vec![pattern_message(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// An environment variable's name: printable ASCII without `=`.
pub fn environment_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.is_empty() {
        out.push("environment variable name must be non-empty".to_owned());
    }
    if text.bytes().any(|c| !(b' '..=b'~').contains(&c) || c == b'=') {
        out.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    out
}

/// A key of a ConfigMap or Secret: also a file's name.
pub fn config_key(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 253 {
        out.push(too_long_message(253));
    }
    let good = !text.is_empty()
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    if !good {
        out.push(pattern_message(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." | ".." => out.push(format!("must not be '{text}'")),
        _ if text.starts_with("..") => out.push("must not start with '..'".to_owned()),
        _ => {}
    }
    out
}

/// A port's number.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![range_message(1, 65535)] }
}

/// A port's name (an IANA service name).
pub fn port_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 15 {
        out.push(too_long_message(15));
    }
    if text.is_empty() || !text.bytes().all(|c| alnum_lower(c) || c == b'-') {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|c| c.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        out.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        out.push("must not begin or end with a hyphen".to_owned());
    }
    out
}

/// An HTTP header's name.
pub fn http_header_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    vec![pattern_message(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A name of at least two segments separated by dots.
pub fn fully_qualified_name(text: &str) -> Vec<String> {
    let complaints = dns_subdomain(text);
    if complaints.is_empty() && text.split('.').count() < 3 {
        return vec!["should be a domain with at least three segments separated by dots".to_owned()];
    }
    complaints
}

/// An address: without leading zeros, and not an IPv4 address in IPv6 form (KEP-4858).
pub fn ip(text: &str) -> Vec<String> {
    if parse_ip(text).is_none() {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()];
    }
    match text.parse::<IpAddr>() {
        Err(_) => vec!["must not have leading 0s".to_owned()],
        Ok(address) if is_mapped(address) => vec!["must not be an IPv4-mapped IPv6 address".to_owned()],
        Ok(_) => Vec::new(),
    }
}

/// An address in the one way in which it is written (RFC 5952).
pub fn canonical_ip(text: &str) -> Vec<String> {
    let complaints = ip(text);
    let form = text.parse::<IpAddr>().map(|address| address.to_string()).unwrap_or_default();
    if !complaints.is_empty() || form == text {
        return complaints;
    }
    vec![format!("must be in canonical form (\"{form}\")")]
}

/// A network in CIDR notation, with the same strictness as [`ip`] and no bits behind the prefix.
pub fn cidr(text: &str) -> Vec<String> {
    let Some((address, length)) = parse_cidr(text) else {
        return vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    };
    let (ip, digits) = text.split_once('/').unwrap_or_default();
    let complaint = if ip.parse::<IpAddr>().is_err() || (digits.len() > 1 && digits.starts_with('0')) {
        "must not have leading 0s in IP or prefix length"
    } else if is_mapped(address) {
        "must not have an IPv4-mapped IPv6 address"
    } else if network(address, length) != address {
        "must not have bits set beyond the prefix length"
    } else {
        return Vec::new();
    };
    vec![complaint.to_owned()]
}

/// A network in the one way in which it is written.
pub fn canonical_cidr(text: &str) -> Vec<String> {
    let complaints = cidr(text);
    let form = parse_cidr(text).map(|(address, length)| format!("{address}/{length}")).unwrap_or_default();
    if !complaints.is_empty() || form == text {
        return complaints;
    }
    vec![format!("must be in canonical form (\"{form}\")")]
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// The first address of the network that an address lies in.
fn network(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// Reads an address as liberally as the API always has: leading zeros in IPv4 are decimal.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some(IpAddr::V6(address));
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 8 || !part.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse::<u32>().ok().and_then(|n| u8::try_from(n).ok())?;
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Reads a network: address and prefix length.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address = parse_ip(address)?;
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    (length <= max).then_some((address, length))
}

/// Splits a domain-prefixed path, `domain/path`; complaints otherwise.
pub fn domain_prefixed_path(text: &str) -> Result<(&str, &str), &'static str> {
    match text.split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => Ok((domain, path)),
        _ => Err("must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

/// The labels of an object.
pub fn labels_of(object: &Value) -> Option<&serde_json::Map<String, Value>> {
    object.pointer("/metadata/labels")?.as_object()
}

/// One annotation of an object.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str()
}

#[cfg(test)]
mod tests;
