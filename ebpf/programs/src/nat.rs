//! Making the two entries of a new flow, and finding a source port for it where its own cannot be.
//!
//! Must not know: why a source is replaced.

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple},
    helpers::{bpf_get_prandom_u32, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use pagurus_ebpf_abi::{
    Address, DROP_CONNTRACK_FULL, DROP_NO_NAT_PORT, FLOW_REPLY, FlowState, NodeConfig, PROTOCOL_ICMP,
    PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, Port, place,
};

use crate::{
    clock,
    conntrack::{self, Refused},
    maps::config,
    packet::Packet,
    stages::{self, Decided},
    table,
    work::{PARSED_V6, Work, work},
};

/// [`track`] has made the entries. No `DROP_*`.
pub(crate) const TRACKED: u32 = u32::MAX;

/// How many ports are tried.
const TRIES: u32 = 20;

/// A socket's two ends, of IPv4.
#[repr(C)]
struct V4Ends {
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
}

/// A socket's two ends, of IPv6.
#[repr(C)]
struct V6Ends {
    source: [u32; 4],
    destination: [u32; 4],
    source_port: u16,
    destination_port: u16,
}

/// Whether a socket of this node takes packets of the flow `work.other_key`.
#[inline(always)]
pub(crate) fn is_taken<P: Packet>(packet: &P) -> bool {
    let Some(work) = work() else { return true };
    let key = &work.other_key;
    if work.parsed.is(PARSED_V6) {
        let ends = V6Ends {
            source: key.source.words,
            destination: key.destination.words,
            source_port: key.source_port.0,
            destination_port: key.destination_port.0,
        };
        return has_socket(packet, key.protocol, &ends);
    }
    let ends = V4Ends {
        source: key.source.v4_word(),
        destination: key.destination.v4_word(),
        source_port: key.source_port.0,
        destination_port: key.destination_port.0,
    };
    has_socket(packet, key.protocol, &ends)
}

#[inline(always)]
fn has_socket<P: Packet, T>(packet: &P, protocol: u8, ends: &T) -> bool {
    let tuple = core::ptr::from_ref(ends).cast::<bpf_sock_tuple>().cast_mut();
    let (size, netns) = (size_of::<T>() as u32, BPF_F_CURRENT_NETNS as i64 as u64);
    // SAFETY: the helpers read as many bytes of the tuple as they are told; what they return is released below.
    let socket = unsafe {
        match protocol {
            PROTOCOL_TCP => bpf_skc_lookup_tcp(packet.context(), tuple, size, netns, 0),
            PROTOCOL_UDP => bpf_sk_lookup_udp(packet.context(), tuple, size, netns, 0),
            _ => return false,
        }
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the socket was handed to us by the helpers above.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}

/// What the other direction becomes: the client sees whom it asked.
#[inline(always)]
fn fill_other(work: &mut Work) {
    let tuple = &work.tuple;
    work.other = FlowState {
        source: tuple.destination,
        destination: tuple.source,
        source_port: tuple.destination_port,
        destination_port: tuple.source_port,
        last: work.state.last,
        flags: work.state.flags | FLOW_REPLY,
        backend: work.state.backend,
        service: work.state.service,
        since: work.state.since,
    };
    work.other_key = work.state.other(tuple.protocol);
}

/// What became of a wish for a source port, as a number, because functions that the verifier checks on their own return numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reserved(pub(crate) u32);

impl Reserved {
    /// The flow has it.
    pub(crate) const DONE: Self = Self(0);
    /// Another flow has it.
    pub(crate) const TAKEN: Self = Self(1);
    /// The table is full.
    pub(crate) const FULL: Self = Self(2);
}

/// Whether an entry may be written over by a new one: it leads to the same client and from the same frontend, or it is what is left of
/// a connection that has ended, and in nobody's way.
#[inline(always)]
fn gives_way(entry: &FlowState, new: &FlowState) -> bool {
    conntrack::is_closed(entry)
        || (entry.destination == new.destination
            && entry.destination_port.0 == new.destination_port.0
            && entry.source == new.source
            && entry.source_port.0 == new.source_port.0)
}

/// Writes the entry of the other direction with the source port as it stands in `work.state`.
#[inline(always)]
pub(crate) fn reserve() -> Reserved {
    let Some(work) = work() else { return Reserved::FULL };
    fill_other(work);
    // Flows that are still to be copied into the larger table hold their ports too.
    if conntrack::find_uncopied(&work.other_key).is_some_and(|entry| !gives_way(entry, &work.other)) {
        return Reserved::TAKEN;
    }
    let result = match conntrack::add(&work.other_key, &work.other) {
        Err(Refused::Exists)
            if conntrack::find(&work.other_key).is_some_and(|entry| gives_way(entry, &work.other)) =>
        {
            conntrack::put(&work.other_key, &work.other)
        }
        result => result,
    };
    match result {
        Ok(()) => Reserved::DONE,
        Err(Refused::Exists) => Reserved::TAKEN,
        Err(Refused::Full) => Reserved::FULL,
    }
}

/// Says in `work.state` that the flow begins now.
#[inline(always)]
pub(crate) fn stamp(work: &mut Work) {
    let now = clock::seconds();
    work.state.last = now;
    work.state.since = now;
}

/// Makes both entries of the flow `work.tuple`, of which `work.state` says what it becomes, all but the source port: that is found
/// here. A flow with its own source keeps its port if no other flow to the same backend has it. `anew`: an entry of this flow is
/// there and is no longer good.
///
/// If another CPU has made the entry in the meantime, `work.state` is that entry's. Returns [`TRACKED`], or why the packet is to be
/// dropped.
#[inline(always)]
pub(crate) fn track<P: Decided>(packet: &P, anew: bool) -> u32 {
    let (Some(work), Some(config)) = (work(), config()) else { return DROP_CONNTRACK_FULL };
    stamp(work);
    if let Err(reason) = find_port(packet, work, config) {
        return reason;
    }
    let result = if anew {
        conntrack::put(&work.tuple, &work.state)
    } else {
        conntrack::add(&work.tuple, &work.state)
    };
    match result {
        Ok(()) => TRACKED,
        Err(Refused::Full) => {
            conntrack::remove(&work.other_key);
            DROP_CONNTRACK_FULL
        }
        Err(Refused::Exists) => {
            let Some(entry) = conntrack::find(&work.tuple) else { return DROP_CONNTRACK_FULL };
            if entry.other(work.tuple.protocol) != work.other_key {
                conntrack::remove(&work.other_key);
            }
            work.state = *entry;
            TRACKED
        }
    }
}

#[inline(always)]
fn find_port<P: Decided>(packet: &P, work: &mut Work, config: &NodeConfig) -> Result<(), u32> {
    let is_own = work.state.source == work.tuple.source;
    if is_own {
        work.state.source_port = work.tuple.source_port;
        match stages::reserve() {
            Reserved::DONE => return Ok(()),
            Reserved::TAKEN => {}
            _ => return Err(DROP_CONNTRACK_FULL),
        }
    }
    let (first, last) = (u32::from(config.nat_port_first), u32::from(config.nat_port_last));
    if first == 0 || last < first {
        return Err(DROP_NO_NAT_PORT);
    }
    let span = last - first + 1;
    let is_icmp = matches!(work.tuple.protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6);
    // SAFETY: plain helper.
    let start = unsafe { bpf_get_prandom_u32() };
    let zero = table::unknown_zero();
    for step in 0..TRIES {
        // An odd stride reaches other parts of the range than neighbours, which are taken together.
        let number = first + place(start.wrapping_add((step ^ zero).wrapping_mul(0x9e37_79b1)), span);
        let port = Port::new(number as u16);
        work.state.source_port = port;
        if is_icmp {
            work.state.destination_port = port;
        }
        match stages::reserve() {
            Reserved::DONE if !is_own && packet.is_taken() => conntrack::remove(&work.other_key),
            Reserved::DONE => return Ok(()),
            Reserved::TAKEN => {}
            _ => return Err(DROP_CONNTRACK_FULL),
        }
    }
    Err(DROP_NO_NAT_PORT)
}

/// Gives the flow this node's address as its source. False: the node has none of this family.
#[inline(always)]
pub(crate) fn replace_source(work: &mut Work, config: &NodeConfig, flags: u32) -> bool {
    let (source, none) = if work.parsed.is(PARSED_V6) {
        (&config.node_v6, Address::ANY_V6)
    } else {
        (&config.node_v4, Address::ANY_V4)
    };
    work.state.source = *source;
    work.state.flags |= flags;
    work.state.source != none
}
