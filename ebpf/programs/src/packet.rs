//! A packet, as the two families of packet programs see it: one code path for tc and XDP.
//!
//! Must not know: Services, flows.
//!
//! Headers are read in place. Whoever writes goes through [`Packet::write`], which takes care that the bytes are ours to write;
//! what was read before is read again after it, because the packet may have moved.

use core::arch::asm;

pub(crate) mod checksum;
pub(crate) mod fragment;
pub(crate) mod headers;
pub(crate) mod icmp;
pub(crate) mod mss;
pub(crate) mod neighbour;
pub(crate) mod parse;
pub(crate) mod reject;
pub(crate) mod rewrite;
pub(crate) mod sctp;
mod skb;
mod xdp;

pub(crate) use skb::Skb;
pub(crate) use xdp::Xdp;

/// Bytes of packets whose headers are not all of fixed length that are made readable: Ethernet, an IPv6 header with some extensions,
/// the transport's.
pub(crate) const HEADERS: u32 = 128;
/// Largest offset that may be asked for.
const REACH: u32 = 2047;

/// An offset that the verifier sees the bound of: the compiler knows other ways to make sure of one, which the verifier does not
/// follow.
#[inline(always)]
fn bounded(offset: u32) -> Option<usize> {
    if offset > REACH {
        return None;
    }
    let mut bounded = u64::from(offset);
    // SAFETY: arithmetic on a register.
    unsafe { asm!("{0} &= 2047", inout(reg) bounded, options(pure, nomem, nostack)) };
    Some(bounded as usize)
}

/// What becomes of a packet; every program has exactly one.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// It goes on as it is: to other programs, then to the kernel.
    Pass,
    /// It is dropped.
    Drop,
    /// It was decided by this return value: a redirect helper's, or a stage's.
    Code(i32),
}

/// Where a packet program is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Packets that pods send.
    FromPod,
    /// Packets to pods that come through the kernel's forwarding or from the node itself.
    ToPod,
    /// Packets from outside.
    FromOutside,
    /// Packets to the outside.
    ToOutside,
}

impl Hook {
    /// As a number, for functions that the verifier checks on their own.
    #[inline(always)]
    pub(crate) const fn number(self) -> u32 {
        self as u32
    }

    /// From a number.
    #[inline(always)]
    pub(crate) const fn of(number: u32) -> Self {
        match number {
            0 => Self::FromPod,
            1 => Self::ToPod,
            2 => Self::FromOutside,
            _ => Self::ToOutside,
        }
    }
}

/// A packet and its context.
pub(crate) trait Packet {
    /// Whether the program runs before the packet has an skb.
    const XDP: bool;

    /// Where the program is.
    fn hook(&self) -> Hook;
    /// The context as helpers take it.
    fn context(&self) -> *mut core::ffi::c_void;
    /// Where the readable bytes begin in memory.
    fn start(&self) -> usize;
    /// Where they end.
    fn end(&self) -> usize;
    /// Length of the whole packet from its Ethernet header on.
    fn length(&self) -> u32;
    /// Length of the packets on the wire if this is many in one (GSO: length of their payload); 0 if it is one.
    fn segment(&self) -> u32;
    /// Whether it is addressed to this node's device (and not to everybody, or overheard).
    fn is_ours(&self) -> bool;
    /// The device the packet is at.
    fn ifindex(&self) -> u32;
    /// Whether a program decided on it where it came in to this node. Asked once, when the packet comes to a program.
    fn was_decided(&self) -> bool;
    /// Says so to the programs on its way out.
    fn set_decided(&self);
    /// Makes that many bytes readable, or as many as there are.
    fn pull(&self, length: u32);
    /// Replaces bytes; false if that cannot be. `summed`: a checksum that the device made over the packet follows (needed where no
    /// other change of the packet makes up for this one).
    fn write<T: Copy>(&self, offset: u32, value: &T, summed: bool) -> bool;
    /// Updates a transport's checksum: `addresses` is the difference in the pseudo-header, `rest` that in what the checksum is over
    /// itself. `optional`: 0 means that there is none (UDP).
    fn replace_checksum(&self, offset: u32, addresses: u32, rest: u32, optional: bool) -> bool;
    /// Makes the packet that long, at its end.
    fn set_length(&self, length: u32) -> bool;
    /// Makes an IP packet that long and takes everything from it but its Ethernet header, also what the device was still to do with
    /// it: it is one packet then, whose checksums are whatever is written.
    fn clear(&self, length: u32) -> bool;
    /// Copies bytes of the packet to memory that has this many.
    fn load(&self, offset: u32, to: *mut u8, length: u32) -> bool;
    /// Copies bytes from memory that has this many into the packet.
    fn store(&self, offset: u32, from: *const u8, length: u32) -> bool;
    /// Sends it out of another device.
    fn redirect(&self, ifindex: u32) -> Verdict;
    /// Sends it back where it came from.
    fn answer(&self) -> Verdict;
    /// The program's return value.
    fn code(verdict: Verdict) -> i32;

    /// Whether the packet is on its way out of the device (tc egress).
    #[inline(always)]
    fn is_egress(&self) -> bool {
        matches!(self.hook(), Hook::ToPod | Hook::ToOutside)
    }

    /// The bytes at an offset, if they are there and readable. `T` is made of integers whose alignment the offset has, counted from
    /// the IP header on (the kernel aligns that header where the processor needs it).
    #[inline(always)]
    fn read<T: Copy>(&self, offset: u32) -> Option<T> {
        let at = self.start() + bounded(offset)?;
        if at + size_of::<T>() > self.end() {
            return None;
        }
        // SAFETY: the bytes were just checked to be within the packet; every bit pattern is a value of an integer.
        Some(unsafe { *(at as *const T) })
    }
}
