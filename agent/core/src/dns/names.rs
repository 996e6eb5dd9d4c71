//! Names and addresses made of each other.
//!
//! Must not know: what is served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// `10-0-0-1`: an address as a label.
pub(super) fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

/// The address that a label like `10-0-0-1` or `fd00--1` stands for.
pub(super) fn undashed(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    if text.contains(['.', ':']) {
        return None;
    }
    let v4 = text.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| text.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for, by its labels.
pub(super) fn reversed(labels: &[&[u8]]) -> Option<IpAddr> {
    match labels {
        [rest @ .., b"in-addr", b"arpa"] => {
            let [d, c, b, a]: [&[u8]; 4] = rest.try_into().ok()?;
            let octet = |label: &[u8]| {
                let text = std::str::from_utf8(label).ok()?;
                let is_plain =
                    text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
                is_plain.then(|| text.parse::<u8>().ok())?
            };
            Some(Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?).into())
        }
        [rest @ .., b"ip6", b"arpa"] => {
            let nibbles: [&[u8]; 32] = rest.try_into().ok()?;
            let mut number = 0u128;
            for nibble in nibbles.iter().rev() {
                let [digit] = nibble else { return None };
                number = number << 4 | u128::from(char::from(*digit).to_digit(16)?);
            }
            Some(Ipv6Addr::from(number).into())
        }
        _ => None,
    }
}

/// `label.parent`.
pub(super) fn below(parent: &Name, labels: &[&[u8]]) -> Option<Name> {
    let mut name = Name::from_labels(labels.iter().copied()).ok()?.append_name(parent).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_are_addresses() {
        for ip in ["10.0.0.1", "fd00::1", "::", "1:2:3:4:5:6:7:8"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(undashed(dashed(ip).as_bytes()), Some(ip));
        }
        for label in ["", "a", "1-2-3", "1-2-3-256", "1.2.3.4", "::1", "1-2-3-4-5"] {
            assert_eq!(undashed(label.as_bytes()), None, "{label}");
        }
    }

    #[test]
    fn names_that_are_addresses() {
        let check = |name: &str, expected: Option<&str>| {
            let labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
            assert_eq!(reversed(&labels), expected.map(|ip| ip.parse().unwrap()), "{name}");
        };
        check("1.0.96.10.in-addr.arpa", Some("10.96.0.1"));
        check("01.0.96.10.in-addr.arpa", None);
        check("+1.0.96.10.in-addr.arpa", None);
        check("0.96.10.in-addr.arpa", None);
        check("1.0.0.96.10.in-addr.arpa", None);
        check("in-addr.arpa", None);
        let one = format!("1.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        check(&one, Some("fd00::1"));
        check("ip6.arpa", None);
    }
}
