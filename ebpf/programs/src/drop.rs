//! Packets that are dropped or refused: counted, and told of if somebody listens.
//!
//! Must not know: why a packet is dropped.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use pagurus_ebpf_abi::{DropEvent, NODE_EVENTS};

use crate::{
    clock,
    maps::{DROPS, EVENTS, config},
    packet::{Packet, Verdict},
    work::Work,
};

/// Most events of one CPU in one second.
const EVENTS_PER_SECOND: u32 = 100;

/// Counts a packet, as it came, for one of the reasons `DROP_*`.
#[inline(always)]
pub(crate) fn note<P: Packet>(packet: &P, work: &mut Work, reason: u32) {
    if let Some(value) = DROPS.get_ptr_mut(reason) {
        // SAFETY: the pointer is into this CPU's copy of an array that lives as long as the program.
        unsafe { *value += 1 };
    }
    if config().is_none_or(|config| config.flags & NODE_EVENTS == 0) {
        return;
    }
    let second = clock::seconds();
    if work.events_second != second {
        work.events_second = second;
        work.events = 0;
    }
    work.events = work.events.wrapping_add(1);
    if work.events > EVENTS_PER_SECOND {
        return;
    }
    if let Some(mut event) = EVENTS.reserve(0) {
        event.write(DropEvent {
            // SAFETY: plain helper.
            time: unsafe { bpf_ktime_get_ns() },
            tuple: work.tuple,
            reason,
            ifindex: packet.ifindex(),
            service: work.service.service,
            length: packet.length(),
        });
        event.submit(0);
    }
}

/// Drops a packet.
#[inline(always)]
pub(crate) fn packet<P: Packet>(packet: &P, work: &mut Work, reason: u32) -> Verdict {
    note(packet, work, reason);
    Verdict::Drop
}
