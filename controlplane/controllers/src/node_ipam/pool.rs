//! One cluster range cut into equal pieces: which are taken, which comes next. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use thiserror::Error;

/// More pieces than this are never handed out of one range.
const MOST: u32 = 16;

/// Why a range cannot be cut.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum PoolError {
    #[error("a node's prefix length {mask} is shorter than the cluster's {length}, or no prefix length")]
    Mask { mask: u8, length: u8 },
}

/// The pieces of one cluster range.
#[derive(Debug)]
pub(super) struct Pool {
    range: IpNet,
    mask: u8,
    taken: Vec<u64>,
    count: u32,
    /// Where the next search begins: a freed piece is not reused at once.
    cursor: u32,
}

impl Pool {
    /// Cuts `range` into pieces of prefix length `mask`.
    pub(super) fn new(range: IpNet, mask: u8) -> Result<Self, PoolError> {
        let length = range.prefix_len();
        if mask < length || mask > range.max_prefix_len() {
            return Err(PoolError::Mask { mask, length });
        }
        let count = 1_u32 << u32::from(mask - length).min(MOST);
        let words = usize::try_from(count.div_ceil(64)).unwrap_or(0);
        Ok(Self { range: range.trunc(), mask, taken: vec![0; words], count, cursor: 0 })
    }

    /// Forgets what is taken, not the place of search.
    pub(super) fn clear(&mut self) {
        self.taken.fill(0);
    }

    /// Marks the pieces that `range` touches, if any.
    pub(super) fn take(&mut self, range: &IpNet) {
        let touches = self.range.contains(&range.network()) || range.contains(&self.range.network());
        if !touches {
            return;
        }
        let (first, last) = (self.index(range.network()), self.index(range.broadcast()));
        for index in first..=last {
            self.mark(index);
        }
    }

    /// A free piece, marked as taken; `None` if there is none.
    pub(super) fn next(&mut self) -> Option<IpNet> {
        let free = (0..self.count).map(|i| (self.cursor + i) % self.count).find(|i| !self.is_taken(*i))?;
        self.mark(free);
        self.cursor = (free + 1) % self.count;
        self.piece(free)
    }

    fn mark(&mut self, index: u32) {
        if let Some(word) = self.taken.get_mut((index / 64) as usize) {
            *word |= 1 << (index % 64);
        }
    }

    fn is_taken(&self, index: u32) -> bool {
        self.taken.get((index / 64) as usize).is_none_or(|word| word & (1 << (index % 64)) != 0)
    }

    fn shift(&self) -> u32 {
        u32::from(self.range.max_prefix_len() - self.mask)
    }

    /// The piece an address lies in, at the nearest end if it lies outside.
    fn index(&self, address: IpAddr) -> u32 {
        let offset = number(address).saturating_sub(number(self.range.network()));
        let index = offset.checked_shr(self.shift()).unwrap_or(0);
        u32::try_from(index).unwrap_or(u32::MAX).min(self.count - 1)
    }

    fn piece(&self, index: u32) -> Option<IpNet> {
        let start = number(self.range.network()) | u128::from(index).checked_shl(self.shift()).unwrap_or(0);
        let address = match self.range {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(start).ok()?)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(start)),
        };
        IpNet::new(address, self.mask).ok()
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: &str, mask: u8) -> Pool {
        Pool::new(range.parse().unwrap(), mask).unwrap()
    }

    #[test]
    fn pieces_in_order() {
        for (range, mask, expected) in [
            ("10.244.0.0/16", 24, ["10.244.0.0/24", "10.244.1.0/24"]),
            ("10.0.0.0/8", 24, ["10.0.0.0/24", "10.0.1.0/24"]),
            ("fd00:10:244::/48", 64, ["fd00:10:244::/64", "fd00:10:244:1::/64"]),
            ("fd00::/32", 64, ["fd00::/64", "fd00:0:0:1::/64"]),
        ] {
            let mut pool = pool(range, mask);
            assert_eq!(expected.map(|e| Some(e.parse().unwrap())), [pool.next(), pool.next()], "{range}");
        }
    }

    #[test]
    fn exhaustion_and_reuse() {
        let mut pool = pool("10.0.0.0/23", 24);
        pool.take(&"10.0.0.0/24".parse().unwrap());
        assert_eq!(pool.next(), Some("10.0.1.0/24".parse().unwrap()));
        assert_eq!(pool.next(), None);
        pool.clear();
        assert_eq!(pool.next(), Some("10.0.0.0/24".parse().unwrap()));
    }

    #[test]
    fn wider_and_foreign_ranges() {
        let mut pool = pool("10.0.0.0/22", 24);
        pool.take(&"10.0.0.0/23".parse().unwrap());
        pool.take(&"192.168.0.0/24".parse().unwrap());
        pool.take(&"fd00::/64".parse().unwrap());
        assert_eq!(pool.next(), Some("10.0.2.0/24".parse().unwrap()));
        pool.take(&"10.0.0.0/8".parse().unwrap());
        assert_eq!(pool.next(), None);
    }

    #[test]
    fn bad_masks() {
        for (range, mask) in [("10.0.0.0/24", 23), ("10.0.0.0/24", 33), ("fd00::/64", 48)] {
            assert!(Pool::new(range.parse().unwrap(), mask).is_err());
        }
    }
}
