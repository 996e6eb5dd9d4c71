//! Choosing a free address of a range.
//!
//! Must not know: who uses an address.

use std::net::IpAddr;

use ipnet::IpNet;

/// The free address that follows `last` in the range, going round; without `last`, the first. The network's own address
/// is never given, nor the broadcast address of an IPv4 range.
pub fn free(range: &IpNet, last: Option<IpAddr>, is_used: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let base = number(range.network());
    let size = size(range);
    let (first, end) = if size <= 2 { (0, size) } else { (1, size - u128::from(range.addr().is_ipv4())) };
    let start = match last {
        Some(last) if range.contains(&last) => number(last) - base + 1,
        _ => first,
    };
    let around = (start.max(first)..end).chain(first..start.min(end));
    around.map(|offset| address(range, base + offset)).find(|ip| !is_used(ip))
}

/// How many addresses the range has, as far as one node can ever use them.
fn size(range: &IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    1u128 << bits.min(64)
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn address(range: &IpNet, number: u128) -> IpAddr {
    match range {
        // The number lies within the range, so it fits.
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: &str, last: Option<&str>, used: &[&str], expected: Option<&str>) {
        let parse = |ip: &str| -> IpAddr { ip.parse().expect("an address") };
        let used: Vec<IpAddr> = used.iter().map(|ip| parse(ip)).collect();
        let found = free(&range.parse().expect("a range"), last.map(parse), |ip| used.contains(ip));
        assert_eq!(found, expected.map(parse), "{range} after {last:?}");
    }

    #[test]
    fn free_addresses() {
        check("10.244.0.0/24", None, &[], Some("10.244.0.1"));
        check("10.244.0.0/24", Some("10.244.0.1"), &[], Some("10.244.0.2"));
        check("10.244.0.0/24", Some("10.244.0.1"), &["10.244.0.2", "10.244.0.3"], Some("10.244.0.4"));
        // Round the end, without the broadcast and the network address.
        check("10.244.0.0/24", Some("10.244.0.254"), &[], Some("10.244.0.1"));
        check("10.244.0.0/24", Some("10.244.0.255"), &["10.244.0.1"], Some("10.244.0.2"));
        check("10.244.0.0/30", Some("10.244.0.1"), &["10.244.0.2"], Some("10.244.0.1"));
        check("10.244.0.0/30", None, &["10.244.0.1", "10.244.0.2"], None);
        // The range has changed since.
        check("10.245.0.0/24", Some("10.244.0.9"), &[], Some("10.245.0.1"));
        check("fd00:1::/64", None, &[], Some("fd00:1::1"));
        check("fd00:1::/64", Some("fd00:1::ffff"), &[], Some("fd00:1::1:0"));
        check("fd00:1::/64", Some("fd00:1::ffff:ffff:ffff:ffff"), &["fd00:1::1"], Some("fd00:1::2"));
        check("10.0.0.7/32", None, &[], Some("10.0.0.7"));
        check("10.0.0.6/31", Some("10.0.0.6"), &["10.0.0.7"], Some("10.0.0.6"));
    }
}
