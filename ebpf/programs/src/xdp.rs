//! XDP: connections that `from_outside` has begun go on before their packets have an skb.
//!
//! Must not know: how connections are begun: the first packet of each, and whatever is not plain, is left to `from_outside`.
//!
//! Sent are only packets to other nodes, and to clients whose connection goes through this node to another: out of the device they
//! came from. Packets to pods of this node need an skb.

mod frame;
mod warm;

use aya_ebpf::bindings::bpf_fib_lookup;
use pagurus_ebpf_abi::{
    BACKEND_DRAINING, FLOW_DSR, FLOW_REPLY, FLOW_SNAT, FlowState, Hop, PROTOCOL_TCP, PROTOCOL_UDP, WarmFlow,
};

use crate::{
    conntrack, deliver,
    packet::{Packet, Verdict, Xdp, parse, rewrite},
    table,
    work::{
        PARSED_FRAGMENT_FIRST, PARSED_FRAGMENT_LATER, PARSED_PORTS, PARSED_V6, TCP_FIN, TCP_RST, TCP_SYN,
        Work, work,
    },
};

use frame::Frame;

/// Packets from outside, early.
#[inline(always)]
pub(crate) fn outside(packet: &Xdp) -> Verdict {
    if let Some(frame) = Frame::read(packet) {
        if frame.is_turn {
            // What this begins or ends is another connection than the one that was seen a moment ago.
            warm::remove(&frame.flow);
            return Verdict::Pass;
        }
        if let Some((flow, hop)) = warm::get(&frame.flow) {
            if frame.length() > hop.mtu || hop.ifindex != packet.ifindex() {
                return Verdict::Pass;
            }
            frame.become_flow(flow, hop);
            return packet.answer();
        }
    }
    long_way(packet)
}

/// By the table of connections and the kernel's routes.
#[inline(always)]
fn long_way(packet: &Xdp) -> Verdict {
    let Some(work) = work() else { return Verdict::Pass };
    if !is_plain(packet, work) {
        return Verdict::Pass;
    }
    let Some(entry) = conntrack::find(&work.tuple) else { return Verdict::Pass };
    work.state = *entry;
    if !is_sent_on(&work.state) {
        return Verdict::Pass;
    }
    let FlowState { source, destination, .. } = work.state;
    // What is handed on as it is goes by the way to its backend, but keeps its own addresses.
    let is_handed_on = work.state.flags & FLOW_DSR != 0;
    if !deliver::find_hop(packet, work, &source, &destination) || !is_back(packet, work) {
        return Verdict::Pass;
    }
    conntrack::touch(entry, &work.parsed);
    if is_handed_on {
        work.state.destination = work.tuple.destination;
        work.state.destination_port = work.tuple.destination_port;
    }
    let hop = next_hop(&work.fib);
    if !rewrite::apply(packet, &mut work.parsed, &work.state)
        || !rewrite::hop(packet, &mut work.parsed)
        || !packet.write(0, &hop.macs, false)
    {
        return Verdict::Drop;
    }
    remember(work, &hop);
    packet.answer()
}

/// Whether a packet is one that may be sent on here: whole, of a transport with ports, in the middle of a connection.
#[inline(always)]
fn is_plain(packet: &Xdp, work: &mut Work) -> bool {
    if parse::packet(packet, &mut work.parsed) != parse::Kind::Ip || !packet.is_ours() {
        return false;
    }
    let parsed = &work.parsed;
    work.tuple = parsed.tuple;
    if !parsed.is(PARSED_PORTS)
        || parsed.flags & (PARSED_FRAGMENT_FIRST | PARSED_FRAGMENT_LATER) != 0
        || parsed.ttl <= 1
    {
        return false;
    }
    match parsed.tuple.protocol {
        PROTOCOL_TCP => parsed.kind & (TCP_SYN | TCP_FIN | TCP_RST) == 0,
        PROTOCOL_UDP => true,
        _ => false,
    }
}

/// Whether packets of a flow leave this node again: to a backend of another node that is still there, or from one.
#[inline(always)]
fn is_sent_on(state: &FlowState) -> bool {
    if state.flags & (FLOW_SNAT | FLOW_DSR) == 0 {
        return false;
    }
    if state.flags & FLOW_REPLY != 0 {
        return true;
    }
    table::backend(state.backend).is_some_and(|backend| {
        backend.address == state.destination
            && backend.port.0 == state.destination_port.0
            && backend.flags & BACKEND_DRAINING == 0
    })
}

/// Whether the way in `work.fib` leads out of the device that the packet came from, and is wide enough for it.
#[inline(always)]
fn is_back(packet: &Xdp, work: &Work) -> bool {
    work.fib.ifindex == packet.ifindex() && work.parsed.end.wrapping_sub(work.parsed.l3) <= mtu(&work.fib)
}

#[inline(always)]
fn mtu(fib: &bpf_fib_lookup) -> u32 {
    // SAFETY: a plain word, written by the kernel.
    u32::from(unsafe { fib.__bindgen_anon_1.mtu_result })
}

/// The kernel's answer as a next hop.
#[inline(always)]
fn next_hop(fib: &bpf_fib_lookup) -> Hop {
    let half = |bytes: &[u8; 6], at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let (to, from) = (&fib.dmac, &fib.smac);
    Hop {
        macs: [half(to, 0), half(to, 2), half(to, 4), half(from, 0), half(from, 2), half(from, 4)],
        stamp: 0,
        ifindex: fib.ifindex,
        mtu: mtu(fib),
        reserved: [0; 2],
    }
}

/// Lets the next packets of this flow go the short way.
#[inline(always)]
fn remember(work: &Work, hop: &Hop) {
    if work.parsed.is(PARSED_V6) {
        return;
    }
    let ports = |source: u16, destination: u16| u32::from(source) | u32::from(destination) << 16;
    let (old, new) = (&work.tuple, &work.state);
    let flow = WarmFlow {
        source: old.source.v4_word(),
        destination: old.destination.v4_word(),
        ports: ports(old.source_port.0, old.destination_port.0),
        new_source: new.source.v4_word(),
        new_destination: new.destination.v4_word(),
        new_ports: ports(new.source_port.0, new.destination_port.0),
        stamp: 0,
        hop: 0,
        protocol: old.protocol,
        reserved: 0,
    };
    warm::put(&flow, hop);
}
