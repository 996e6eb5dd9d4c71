//! The table of translated flows.
//!
//! Must not know: how a flow is translated, when an entry is forgotten (user space does that).
//!
//! An entry of a table that is being copied into a larger one (place 1) is used as it is; what is new goes into place 0 alone.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use pagurus_ebpf_abi::{
    COUNTER_TABLE_FULL, FLOW_ESTABLISHED, FLOW_FIN, FLOW_RESET, FlowState, FlowTuple, PROTOCOL_SCTP,
    PROTOCOL_TCP,
};

use crate::{
    clock,
    maps::{CONNTRACK, count},
    work::{Parsed, TCP_FIN, TCP_RST, TCP_SYN},
};

/// SCTP chunks.
pub(crate) const SCTP_INIT: u8 = 1;
const SCTP_INIT_ACK: u8 = 2;
const SCTP_ABORT: u8 = 6;
const SCTP_SHUTDOWN: u8 = 7;
const SCTP_SHUTDOWN_COMPLETE: u8 = 14;

/// `EEXIST`.
const EXISTS: i32 = -17;

/// Why an entry was not written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is one already.
    Exists,
    /// The table is full.
    Full,
}

/// What becomes of a flow.
#[inline(always)]
pub(crate) fn find(key: &FlowTuple) -> Option<&'static mut FlowState> {
    let place = match CONNTRACK.get_value_ptr_mut(0, key) {
        Some(place) => place,
        None => CONNTRACK.get_value_ptr_mut(1, key)?,
    };
    // SAFETY: the kernel keeps the memory while the program runs. Another program may write the same words at the same time: they
    // are flags and times, of which any is good.
    Some(unsafe { &mut *place })
}

/// As [`find`], in the table that is being copied alone.
#[inline(always)]
pub(crate) fn find_uncopied(key: &FlowTuple) -> Option<&'static FlowState> {
    // SAFETY: as above.
    CONNTRACK.get_value_ptr_mut(1, key).map(|place| unsafe { &*place })
}

/// What a packet says of the state of its flow.
#[inline(always)]
fn observed(parsed: &Parsed) -> u32 {
    match parsed.tuple.protocol {
        PROTOCOL_TCP => {
            let mut flags = if parsed.kind & TCP_SYN == 0 { FLOW_ESTABLISHED } else { 0 };
            if parsed.kind & TCP_FIN != 0 {
                flags |= FLOW_FIN;
            }
            if parsed.kind & TCP_RST != 0 {
                flags |= FLOW_RESET;
            }
            flags
        }
        PROTOCOL_SCTP => match parsed.kind {
            SCTP_INIT | SCTP_INIT_ACK => 0,
            SCTP_ABORT => FLOW_RESET,
            SCTP_SHUTDOWN | SCTP_SHUTDOWN_COMPLETE => FLOW_FIN | FLOW_ESTABLISHED,
            _ => FLOW_ESTABLISHED,
        },
        _ => FLOW_ESTABLISHED,
    }
}

/// Notes in an entry that a packet came. Writes only what is different, so that CPUs share the line as long as they can.
#[inline(always)]
pub(crate) fn touch(state: &mut FlowState, parsed: &Parsed) {
    let flags = state.flags | observed(parsed);
    if flags != state.flags {
        state.flags = flags;
    }
    let now = clock::seconds();
    if state.last != now {
        state.last = now;
    }
}

/// Whether either side has ended the connection.
#[inline(always)]
pub(crate) fn is_closed(state: &FlowState) -> bool {
    state.flags & (FLOW_FIN | FLOW_RESET) != 0
}

/// Counts something that found no place.
#[inline(always)]
pub(crate) fn missed() {
    count(COUNTER_TABLE_FULL);
}

/// Writes an entry that is not there yet.
#[inline(always)]
pub(crate) fn add(key: &FlowTuple, state: &FlowState) -> Result<(), Refused> {
    let Some(table) = CONNTRACK.get(0) else { return Err(Refused::Full) };
    match table.insert(key, state, u64::from(BPF_NOEXIST)) {
        Ok(()) => Ok(()),
        Err(EXISTS) => Err(Refused::Exists),
        Err(_) => {
            missed();
            Err(Refused::Full)
        }
    }
}

/// Writes an entry over whatever is there.
#[inline(always)]
pub(crate) fn put(key: &FlowTuple, state: &FlowState) -> Result<(), Refused> {
    let Some(table) = CONNTRACK.get(0) else { return Err(Refused::Full) };
    table.insert(key, state, u64::from(BPF_ANY)).map_err(|_| {
        missed();
        Refused::Full
    })
}

/// Forgets an entry.
#[inline(always)]
pub(crate) fn remove(key: &FlowTuple) {
    // Failing means that it has gone already, or was never in that place.
    if let Some(table) = CONNTRACK.get(0) {
        let _gone = table.remove(key);
    }
    if let Some(table) = CONNTRACK.get(1) {
        let _gone = table.remove(key);
    }
}
