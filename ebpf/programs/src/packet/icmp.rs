//! ICMP errors about translated flows: the packet they quote becomes what its sender sent, and the error goes to that sender.
//!
//! Must not know: how flows come about.

use super::Packet;
use crate::work::Work;

/// What became of an ICMP error.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Translation {
    /// It is about none of our flows: it is as it was.
    None,
    /// It was translated: `work.parsed.tuple` has its new addresses.
    Done,
    /// It was, and could not be written: it is to be dropped.
    Failed,
}

/// Translates an ICMP error (`work.parsed` has [`PARSED_ICMP_ERROR`](crate::work::PARSED_ICMP_ERROR)). The quoted packet went the
/// other way: the flow is found by its tuple turned round.
#[inline(always)]
pub(crate) fn translate<P: Packet>(_packet: &P, _work: &mut Work) -> Translation {
    Translation::None
}
