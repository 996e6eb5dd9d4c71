//! XDP: what `from_outside` does, before the packet has an skb.
//!
//! Must not know: how headers lie in a packet.

use crate::packet::{Packet, Verdict};

/// Packets from outside, early.
#[inline(always)]
pub(crate) fn outside<P: Packet>(_packet: &P) -> Verdict {
    Verdict::Pass
}
