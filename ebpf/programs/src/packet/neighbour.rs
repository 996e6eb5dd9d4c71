//! Answers to ARP requests and neighbour solicitations for the addresses in `ANNOUNCED`.
//!
//! Must not know: whose addresses those are.

use super::{Packet, Verdict};

/// Looks at an ARP packet or a neighbour solicitation; answers it if it asks for one of ours.
#[inline(always)]
pub(crate) fn answer<P: Packet>(_packet: &P) -> Verdict {
    Verdict::Pass
}
