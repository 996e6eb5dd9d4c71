//! When a translated flow is forgotten, and when the table of flows needs more room.
//!
//! Must not know: how entries are read, what time it is.

use std::time::Duration;

use pagurus_ebpf_abi::{
    FLOW_DSR, FLOW_ESTABLISHED, FLOW_FIN, FLOW_REPLY, FLOW_RESET, FlowState, PROTOCOL_SCTP, PROTOCOL_TCP,
};

/// Seconds after which an idle connection is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and SCTP: not yet established.
    pub opening: u32,
    /// TCP and SCTP: established.
    pub established: u32,
    /// TCP and SCTP: one side has ended it.
    pub half_closed: u32,
    /// TCP and SCTP: both sides have, or it was reset.
    pub closed: u32,
    /// Datagrams without an answer.
    pub one_way: u32,
    /// Datagrams with answers.
    pub answered: u32,
}

impl Default for Timeouts {
    /// Those of kube-proxy and the kernel where they have one.
    fn default() -> Self {
        Self { opening: 60, established: 86_400, half_closed: 3600, closed: 10, one_way: 30, answered: 120 }
    }
}

/// Seconds after which a connection is forgotten, from its two entries; the second may be missing.
fn timeout(protocol: u8, one: &FlowState, other: Option<&FlowState>, timeouts: &Timeouts) -> u32 {
    let both = |flag: u32| one.flags & flag != 0 && other.is_some_and(|other| other.flags & flag != 0);
    let either = |flag: u32| one.flags & flag != 0 || other.is_some_and(|other| other.flags & flag != 0);
    // The answers to a flow that was handed on go another way.
    let is_alone = other.is_none() && one.flags & FLOW_DSR != 0 && one.flags & FLOW_REPLY == 0;
    let is_established = both(FLOW_ESTABLISHED) || is_alone && either(FLOW_ESTABLISHED);
    match protocol {
        PROTOCOL_TCP | PROTOCOL_SCTP => {
            if either(FLOW_RESET) || both(FLOW_FIN) {
                timeouts.closed
            } else if either(FLOW_FIN) {
                timeouts.half_closed
            } else if is_established {
                timeouts.established
            } else {
                timeouts.opening
            }
        }
        _ if is_established => timeouts.answered,
        _ => timeouts.one_way,
    }
}

/// Whether an entry was idle so long that its connection may be over: only then the other one matters. Of the two entries of a
/// connection that is over this holds for one at least, so that idle connections cost no look at their other entry. `now` and the
/// entries' times are seconds since the machine was started.
pub fn may_be_over(protocol: u8, state: &FlowState, now: u32, timeouts: &Timeouts) -> bool {
    let has = |flag: u32| state.flags & flag != 0;
    let least = match protocol {
        PROTOCOL_TCP | PROTOCOL_SCTP if has(FLOW_RESET) => timeouts.closed,
        PROTOCOL_TCP | PROTOCOL_SCTP if has(FLOW_FIN) => timeouts.closed.min(timeouts.half_closed),
        PROTOCOL_TCP | PROTOCOL_SCTP if has(FLOW_ESTABLISHED) => timeouts.established,
        PROTOCOL_TCP | PROTOCOL_SCTP => timeouts.opening,
        _ if has(FLOW_ESTABLISHED) => timeouts.answered,
        _ => timeouts.one_way,
    };
    now.saturating_sub(state.last) >= least
}

/// Whether a connection is over: both its entries are kept while a packet in either direction is recent.
pub fn is_over(
    protocol: u8,
    one: &FlowState,
    other: Option<&FlowState>,
    now: u32,
    timeouts: &Timeouts,
) -> bool {
    let last = one.last.max(other.map_or(0, |other| other.last));
    now.saturating_sub(last) >= timeout(protocol, one, other, timeouts)
}

/// How large the table of flows should be for so many entries: twice as large when it is three quarters full.
pub fn wanted_capacity(entries: u64, capacity: u32, limit: u32) -> Option<u32> {
    let is_filling = entries.saturating_mul(4) >= u64::from(capacity) * 3;
    (is_filling && capacity < limit).then(|| capacity.saturating_mul(2).min(limit))
}

/// How long to rest after a slice that took this long: the whole takes less than a hundredth of a core, unless the table is so full
/// that room must be found; and a thousandth as long as there is more room than anybody needs.
pub fn rest(took: Duration, entries: u64, capacity: u32) -> Duration {
    let has = |eighths: u64| entries.saturating_mul(8) >= u64::from(capacity) * eighths;
    took.saturating_mul(match () {
        () if has(7) => 4,
        () if has(1) => 150,
        () => 1000,
    })
}

#[cfg(test)]
mod tests {
    use pagurus_ebpf_abi::{Address, PROTOCOL_ICMP, PROTOCOL_UDP, Port};

    use super::*;

    fn state(flags: u32, last: u32) -> FlowState {
        FlowState {
            source: Address::ANY_V4,
            destination: Address::ANY_V4,
            source_port: Port::new(1),
            destination_port: Port::new(2),
            last,
            flags,
            backend: 1,
            service: 1,
            since: 0,
        }
    }

    /// The second at which a connection is over whose entries were last used at 100 and 90.
    fn check(protocol: u8, one: u32, other: Option<u32>, expected: u32) {
        let timeouts = Timeouts::default();
        let (one, other) = (state(one, 100), other.map(|flags| state(flags, 90)));
        for (one, other) in [(Some(one), other), (other, Some(one))] {
            let Some(one) = one else { continue };
            let over = |now| is_over(protocol, &one, other.as_ref(), now, &timeouts);
            let last = one.last.max(other.map_or(0, |other| other.last));
            assert!(!over(last + expected - 1) && over(last + expected), "{protocol} {:x}", one.flags);
        }
        let looked_at = |state: &FlowState| may_be_over(protocol, state, 100 + expected, &timeouts);
        // What has lost its other entry is found later.
        let is_pair = other.is_some() || one.flags & FLOW_DSR != 0;
        assert!(!is_pair || looked_at(&one) || other.as_ref().is_some_and(looked_at), "nobody would look");
    }

    #[test]
    fn connections_are_forgotten_by_protocol_and_state() {
        let (est, fin, reset) = (FLOW_ESTABLISHED, FLOW_FIN, FLOW_RESET);
        let reply = FLOW_REPLY;
        for protocol in [PROTOCOL_TCP, PROTOCOL_SCTP] {
            check(protocol, 0, Some(reply), 60);
            check(protocol, est, Some(reply), 60);
            check(protocol, est, Some(reply | est), 86_400);
            check(protocol, est | fin, Some(reply | est), 3600);
            check(protocol, est | fin, Some(reply | est | fin), 10);
            check(protocol, est, Some(reply | est | reset), 10);
            check(protocol, FLOW_DSR | est, None, 86_400);
            // Half of a pair is left: nothing is known of the other side.
            check(protocol, est, None, 60);
        }
        for protocol in [PROTOCOL_UDP, PROTOCOL_ICMP] {
            check(protocol, est, Some(reply), 30);
            check(protocol, est, Some(reply | est), 120);
            check(protocol, FLOW_DSR | est, None, 120);
        }
    }

    #[test]
    fn clocks_that_differ_a_little_end_nothing() {
        let recent = state(FLOW_ESTABLISHED, 101);
        assert!(!is_over(PROTOCOL_UDP, &recent, None, 100, &Timeouts::default()));
    }

    #[test]
    fn rests() {
        let rest = |entries| rest(Duration::from_millis(1), entries, 8000).as_millis();
        assert_eq!([0, 999, 1000, 6999, 7000, 8000].map(rest), [1000, 1000, 150, 150, 4, 4]);
    }

    #[test]
    fn room() {
        assert_eq!(wanted_capacity(700, 1000, 4000), None);
        assert_eq!(wanted_capacity(750, 1000, 4000), Some(2000));
        assert_eq!(wanted_capacity(2900, 3000, 4000), Some(4000));
        assert_eq!(wanted_capacity(4000, 4000, 4000), None);
    }
}
