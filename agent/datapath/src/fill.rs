//! How many entries a hash map has, without reading them: the kernel tells the memory a map takes, which it counts by the entries
//! there are.
//!
//! Must not know: what the entries are.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use aya::Pod;

use crate::sys::{self, MapShape};

/// What the parts of a hash map take, in bytes as this kernel counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    head: u64,
    bucket: u64,
    entry: u64,
}

impl Scale {
    /// Measures with small maps of the same shape. None: this kernel counts in another way (before Linux 6.4).
    pub(crate) fn measure<K: Pod, V: Pod>(key: &K, value: &V) -> io::Result<Option<Self>> {
        let shape = MapShape::hash::<K, V>();
        let make = |capacity: u32| sys::create_map(&shape, capacity, "pgr_scale");
        let map = make(1)?;
        let empty = [bytes(map.as_fd())?, bytes(make(2)?.as_fd())?, bytes(make(1024)?.as_fd())?];
        sys::update(map.as_fd(), key, value, 0)?;
        let ([Some(one), Some(two), Some(many)], Some(filled)) = (empty, bytes(map.as_fd())?) else {
            return Ok(None);
        };
        Ok(Self::of(one, two, many, filled))
    }

    /// From the bytes of empty maps with 1, 2 and 1024 buckets, and of the first with one entry.
    fn of(one: u64, two: u64, many: u64, filled: u64) -> Option<Self> {
        let bucket = two.checked_sub(one)?;
        let this = Self { head: one.checked_sub(bucket)?, bucket, entry: filled.checked_sub(one)? };
        (this.entry > 0 && this.head + this.bucket * 1024 == many).then_some(this)
    }

    /// How many entries a map of this capacity has.
    pub(crate) fn entries(&self, map: BorrowedFd<'_>, capacity: u32) -> io::Result<Option<u64>> {
        Ok(bytes(map)?.map(|bytes| self.count(bytes, capacity)))
    }

    fn count(&self, bytes: u64, capacity: u32) -> u64 {
        let buckets = u64::from(capacity).next_power_of_two();
        bytes.saturating_sub(self.head + self.bucket * buckets).div_ceil(self.entry)
    }
}

/// The memory of a map as the kernel counts it, if it does.
pub(crate) fn bytes(map: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let info = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", map.as_raw_fd()))?;
    Ok(info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_from_bytes() {
        let scale = Scale::of(416, 432, 400 + 16 * 1024, 416 + 200).expect("a kernel that counts entries");
        let check = |capacity: u32, bytes: u64, expected: u64| {
            assert_eq!(scale.count(bytes, capacity), expected);
        };
        check(1000, 400 + 16 * 1024, 0);
        check(1024, 400 + 16 * 1024 + 200, 1);
        check(4_000_000, 400 + 16 * 4_194_304 + 200 * 3_999_999, 3_999_999);
        // Never as if it were empty when it is not known to be.
        check(1024, 400 + 16 * 1024 + 1, 1);
        check(1024, 0, 0);
    }

    #[test]
    fn kernels_that_count_otherwise() {
        // By capacity alone.
        assert_eq!(Scale::of(4096, 4096, 200_704, 4096), None);
        assert_eq!(Scale::of(200, 400, 204_800, 200), None);
        // Not in proportion to the buckets.
        assert_eq!(Scale::of(416, 432, 400 + 17 * 1024, 616), None);
    }
}
