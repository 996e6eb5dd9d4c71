//! The Internet checksum in differences (RFC 1624). Words are taken as they lie in memory: the sum does not depend on byte order.
//!
//! Must not know: what is summed.

use pagurus_ebpf_abi::{Address, Port};

/// A sum that is still to be folded.
#[derive(Clone, Copy)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Nothing.
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self(0)
    }

    /// With a word that is there now.
    #[inline(always)]
    pub(crate) const fn plus(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// With a word that was there before.
    #[inline(always)]
    pub(crate) const fn minus(self, word: u32) -> Self {
        Self(self.0 + !word as u64)
    }

    /// With one address instead of another; of v4-mapped addresses only what is in the packet.
    #[inline(always)]
    pub(crate) const fn address(self, old: &Address, new: &Address, is_v6: bool) -> Self {
        let sum = self.minus(old.words[3]).plus(new.words[3]);
        if !is_v6 {
            return sum;
        }
        sum.minus(old.words[0])
            .plus(new.words[0])
            .minus(old.words[1])
            .plus(new.words[1])
            .minus(old.words[2])
            .plus(new.words[2])
    }

    /// With an address that is there now, all of its words.
    #[inline(always)]
    pub(crate) const fn plus_address(self, address: &Address) -> Self {
        let words = &address.words;
        self.plus(words[0]).plus(words[1]).plus(words[2]).plus(words[3])
    }

    /// With one port instead of another. The words are whole ones, whose other half is the same in both.
    #[inline(always)]
    pub(crate) const fn port(self, old: Port, new: Port) -> Self {
        self.minus(old.0 as u32).plus(new.0 as u32)
    }

    /// In 32 bits, as the helpers take it. 0 (and not its other form, all ones) if nothing is different.
    #[inline(always)]
    pub(crate) const fn fold(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = ((sum & 0xffff_ffff) + (sum >> 32)) as u32;
        if sum == u32::MAX { 0 } else { sum }
    }
}

/// Two differences together.
#[inline(always)]
pub(crate) const fn add(a: u32, b: u32) -> u32 {
    Sum::new().plus(a).plus(b).fold()
}

/// A checksum after a difference in what it is over.
#[inline(always)]
pub(crate) const fn replace(checksum: u16, difference: u32) -> u16 {
    let sum = (!checksum) as u32 + (difference & 0xffff) + (difference >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// The checksum of what was summed.
#[inline(always)]
pub(crate) const fn finish(sum: Sum) -> u16 {
    replace(0xffff, sum.fold())
}
