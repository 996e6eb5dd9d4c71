//! Answers in the name of a destination that does not take the packet: made of the packet itself, sent back where it came from.
//!
//! Must not know: why the packet is refused.

use super::{Packet, Verdict};
use crate::work::Parsed;

/// A TCP reset, or ICMP "port unreachable" for other protocols.
#[inline(always)]
pub(crate) fn refuse<P: Packet>(_packet: &P, _parsed: &Parsed) -> Verdict {
    Verdict::Drop
}

/// ICMP "fragmentation needed", ICMPv6 "packet too big": no packets longer than `mtu` go this way.
#[inline(always)]
pub(crate) fn too_long<P: Packet>(_packet: &P, _parsed: &Parsed, _mtu: u32) -> Verdict {
    Verdict::Drop
}
