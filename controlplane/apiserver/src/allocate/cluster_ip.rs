//! The addresses of Services, of one or two families.
//!
//! An address that a Service names itself may be anywhere in the range; one that the server picks is looked for in the
//! upper part first, so that the two seldom meet. It must not know Services.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use parking_lot::Mutex;
use rand::Rng;

/// Why an address could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpError {
    /// No range of that family is configured.
    #[error("no {} service range is configured", if *v6 { "IPv6" } else { "IPv4" })]
    Family {
        /// The family asked for.
        v6: bool,
    },
    /// Another Service has it.
    #[error("provided IP is already allocated")]
    Taken,
    /// It is outside of the range.
    #[error("the provided IP ({ip}) is not in the valid range")]
    Outside {
        /// The address.
        ip: IpAddr,
    },
    /// Nothing is free.
    #[error("range is full")]
    Full,
}

/// The ranges and what is taken of them.
#[derive(Debug)]
pub struct ClusterIps {
    ranges: Vec<Mutex<Pool>>,
}

#[derive(Debug)]
struct Pool {
    net: IpNet,
    /// Number of addresses that may be handed out: offsets 1..=size from the network's address.
    size: u128,
    taken: HashSet<u128>,
}

impl ClusterIps {
    /// Allocators for one range, or one per family. The first range's family is the default one.
    pub fn new(ranges: &[IpNet]) -> Self {
        Self { ranges: ranges.iter().map(|net| Mutex::new(Pool::new(*net))).collect() }
    }

    /// The ranges, the default family's first.
    pub fn ranges(&self) -> Vec<IpNet> {
        self.ranges.iter().map(|p| p.lock().net).collect()
    }

    /// The first address of the default range: the one of the Service `kubernetes`.
    pub fn first(&self) -> Option<IpAddr> {
        self.ranges.first().map(|p| p.lock().address(1))
    }

    /// Takes that very address.
    pub fn take(&self, ip: IpAddr) -> Result<(), IpError> {
        let pool = self.pool(ip.is_ipv6()).ok_or(IpError::Family { v6: ip.is_ipv6() })?;
        let mut pool = pool.lock();
        let offset = pool.offset(ip).ok_or(IpError::Outside { ip })?;
        if pool.taken.insert(offset) { Ok(()) } else { Err(IpError::Taken) }
    }

    /// Takes any free address of the family.
    pub fn any(&self, v6: bool) -> Result<IpAddr, IpError> {
        let pool = self.pool(v6).ok_or(IpError::Family { v6 })?;
        let mut pool = pool.lock();
        let offset = pool.pick().ok_or(IpError::Full)?;
        pool.taken.insert(offset);
        Ok(pool.address(offset))
    }

    /// Gives an address back; one outside of the ranges or not taken is none of our concern.
    pub fn free(&self, ip: IpAddr) {
        if let Some(pool) = self.pool(ip.is_ipv6()) {
            let mut pool = pool.lock();
            if let Some(offset) = pool.offset(ip) {
                pool.taken.remove(&offset);
            }
        }
    }

    fn pool(&self, v6: bool) -> Option<&Mutex<Pool>> {
        self.ranges.iter().find(|p| matches!(p.lock().net, IpNet::V6(_)) == v6)
    }
}

impl Pool {
    fn new(net: IpNet) -> Self {
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        // The network's own address is never handed out, nor is IPv4's broadcast address. A huge IPv6 range
        // is used up to 2^64 addresses.
        let all = if bits >= 64 { u128::from(u64::MAX) } else { 1_u128 << bits };
        let size = match net {
            IpNet::V4(_) => all.saturating_sub(2),
            IpNet::V6(_) => all.saturating_sub(1),
        };
        Self { net: net.trunc(), size, taken: HashSet::new() }
    }

    fn offset(&self, ip: IpAddr) -> Option<u128> {
        let offset = match (self.net, ip) {
            (IpNet::V4(net), IpAddr::V4(ip)) => {
                u128::from(u32::from(ip).checked_sub(u32::from(net.network()))?)
            }
            (IpNet::V6(net), IpAddr::V6(ip)) => u128::from(ip).checked_sub(u128::from(net.network()))?,
            _ => return None,
        };
        (1..=self.size).contains(&offset).then_some(offset)
    }

    fn address(&self, offset: u128) -> IpAddr {
        match self.net {
            // An offset into an IPv4 net fits in 32 bits.
            IpNet::V4(net) => Ipv4Addr::from(u32::from(net.network()).wrapping_add(offset as u32)).into(),
            IpNet::V6(net) => Ipv6Addr::from(u128::from(net.network()).wrapping_add(offset)).into(),
        }
    }

    /// A free offset: random in the upper part, then in the lower, then whatever is left.
    fn pick(&self) -> Option<u128> {
        let lower = reserved_for_static(self.size);
        let mut rng = rand::rng();
        for (from, to) in [(lower + 1, self.size), (1, lower)] {
            if from > to {
                continue;
            }
            for _ in 0..16 {
                let offset = rng.random_range(from..=to);
                if !self.taken.contains(&offset) {
                    return Some(offset);
                }
            }
            if let Some(offset) = (from..=to).find(|o| !self.taken.contains(o)) {
                return Some(offset);
            }
        }
        None
    }
}

/// How many addresses at the start of a range are left for Services that name their address: min(max(16, size/16), 256),
/// none in tiny ranges.
fn reserved_for_static(size: u128) -> u128 {
    if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(size) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn ips(nets: &[&str]) -> ClusterIps {
        ClusterIps::new(&nets.iter().map(|n| n.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn every_address_is_handed_out_once() {
        for (net, count) in [("10.0.0.0/28", 14), ("fd00::/124", 15), ("10.0.0.0/30", 2)] {
            let ips = ips(&[net]);
            let v6 = net.contains(':');
            let got: HashSet<_> = (0..count).map(|_| ips.any(v6).unwrap()).collect();
            assert_eq!(got.len(), count, "{net}");
            assert_eq!(ips.any(v6), Err(IpError::Full), "{net}");
            let one = *got.iter().next().unwrap();
            ips.free(one);
            assert_eq!(ips.any(v6), Ok(one), "{net}");
        }
    }

    #[test]
    fn asks_for_one() {
        let ips = ips(&["10.96.0.0/16", "fd00:1::/108"]);
        assert_eq!(ips.first(), Some("10.96.0.1".parse().unwrap()));
        let check = |ip: &str, expected| assert_eq!(ips.take(ip.parse().unwrap()), expected, "{ip}");
        check("10.96.0.10", Ok(()));
        check("10.96.0.10", Err(IpError::Taken));
        check("10.97.0.10", Err(IpError::Outside { ip: "10.97.0.10".parse().unwrap() }));
        check("10.96.0.0", Err(IpError::Outside { ip: "10.96.0.0".parse().unwrap() }));
        check("10.96.255.255", Err(IpError::Outside { ip: "10.96.255.255".parse().unwrap() }));
        check("fd00:1::5", Ok(()));
        check("fd00:2::5", Err(IpError::Outside { ip: "fd00:2::5".parse().unwrap() }));
        assert!(ips.any(false).unwrap() > "10.96.1.0".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn one_family_only() {
        let ips = ips(&["10.96.0.0/16"]);
        assert_eq!(ips.any(true), Err(IpError::Family { v6: true }));
    }
}
