//! XDP: packets from outside are sent on to other nodes before they have an skb, connections that begin and end included.
//!
//! Which packet becomes what is decided by the same stages as in `from_outside`. Sent are only packets to backends of other nodes, and
//! those of their answers, out of the device they came from. Everything else is left, as it is, to `from_outside`: packets to pods of this
//! node need an skb, and so does what has to wait for a neighbour's hardware address.

mod frame;
mod warm;

use aya_ebpf::bindings::bpf_fib_lookup;
use pagurus_ebpf_abi::{
    DROP_REWRITE, FLOW_DSR, FLOW_ESTABLISHED, FLOW_FIN, FLOW_MASQUERADE, FLOW_RESET, FLOW_SNAT, FlowState,
    Hop, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP,
};

use crate::{
    deliver, drop,
    maps::config,
    packet::{
        Packet, Verdict, Xdp,
        headers::{ETHERTYPE_V4, ETHERTYPE_V6, V4, V6},
        parse, rewrite,
    },
    path::{self, Step},
    stages::{Decided as _, Early as _},
    work::{
        PARSED_FRAGMENT_FIRST, PARSED_FRAGMENT_LATER, PARSED_PORTS, TCP_FIN, TCP_RST, TCP_SYN, Work, work,
    },
};

use frame::{Frame, Macs};
use warm::{Flows, Known};

/// Packets from outside, early.
#[inline(always)]
pub(crate) fn outside(packet: &Xdp) -> Verdict {
    let found = match frame::ethertype(packet) {
        ETHERTYPE_V4 => short_way::<V4>(packet),
        ETHERTYPE_V6 => packet.short_way_v6(),
        _ => return Verdict::Pass,
    };
    match found {
        Some(verdict) => verdict,
        None => long_way(packet),
    }
}

/// By what is remembered of a flow of IPv6; [`NOT_KNOWN`] if nothing is.
#[inline(always)]
pub(crate) fn short_way_v6(packet: &Xdp) -> i32 {
    short_way::<V6>(packet).map_or(NOT_KNOWN, Xdp::code)
}

/// No verdict.
pub(crate) const NOT_KNOWN: i32 = -1;

/// By what is remembered of the flow.
#[inline(always)]
fn short_way<I: Flows>(packet: &Xdp) -> Option<Verdict> {
    let frame = Frame::<I>::read(packet)?;
    if frame.is_turn {
        // What this begins or ends is another connection than the one that was seen a moment ago.
        I::forget(&frame);
        return None;
    }
    let Known::Sent(addresses, ports, hop) = I::recall(&frame)? else { return Some(Verdict::Pass) };
    if frame.ip.length() > hop.mtu || hop.ifindex != packet.ifindex() || !is_own(frame.macs, &hop.macs) {
        return Some(Verdict::Pass);
    }
    frame.become_flow(addresses, ports, &hop.macs);
    Some(packet.answer())
}

/// Whether a packet is addressed to the device that sends packets on with these hardware addresses, and not overheard.
#[inline(always)]
fn is_own(macs: &Macs, sent: &Macs) -> bool {
    macs[0] == sent[3] && macs[1] == sent[4] && macs[2] == sent[5]
}

/// By the table of connections or that of Services, and the kernel's routes.
#[inline(always)]
fn long_way(packet: &Xdp) -> Verdict {
    let Some(work) = work() else { return Verdict::Pass };
    if !is_plain(packet, work) {
        return Verdict::Pass;
    }
    work.service.service = 0;
    // Before anything is looked up: what is taken back from here on shows in what is noted.
    work.now = warm::now();
    match packet.step() {
        Step::LEAVE => packet.leave(),
        Step::TRANSLATE | Step::HAND_ON => packet.send(),
        step => packet.reject(step),
    }
}

/// Whether a packet is one that may be sent on here: whole, and of a transport with ports.
#[inline(always)]
fn is_plain(packet: &Xdp, work: &mut Work) -> bool {
    if parse::packet(packet, &mut work.parsed) != parse::Kind::Ip || !packet.is_ours() {
        return false;
    }
    let parsed = &work.parsed;
    work.tuple = parsed.tuple;
    parsed.is(PARSED_PORTS)
        && parsed.flags & (PARSED_FRAGMENT_FIRST | PARSED_FRAGMENT_LATER) == 0
        && parsed.ttl > 1
        && matches!(parsed.tuple.protocol, PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_SCTP)
}

/// Whether a packet neither begins nor ends a connection, and is of a kind that is remembered.
#[inline(always)]
fn is_middle(work: &Work) -> bool {
    match work.tuple.protocol {
        PROTOCOL_TCP => work.parsed.kind & (TCP_SYN | TCP_FIN | TCP_RST) == 0,
        protocol => protocol == PROTOCOL_UDP,
    }
}

/// Whether packets of the flow that `work.state` describes can be sent on from here, out of the device they came from; the way is then
/// in `work.fib`.
#[inline(always)]
pub(crate) fn finds_way(packet: &Xdp, work: &mut Work) -> bool {
    let FlowState { source, destination, flags, .. } = work.state;
    // Without either the backend is on this node; and what was masqueraded goes back to a pod.
    if flags & (FLOW_SNAT | FLOW_DSR) == 0 || flags & FLOW_MASQUERADE != 0 {
        return false;
    }
    deliver::find_hop(packet, work, &source, &destination) && is_back(packet, work)
}

/// Whether the way in `work.fib` leads out of the device that the packet came to, and is wide enough for it.
#[inline(always)]
fn is_back(packet: &Xdp, work: &Work) -> bool {
    let Some(macs) = packet.read::<Macs>(0) else { return false };
    work.fib.ifindex == packet.ifindex()
        && is_own(&macs, &next_hop(&work.fib).macs)
        && work.parsed.end.wrapping_sub(work.parsed.l3) <= mtu(&work.fib)
}

/// Leaves a packet, and those of its flow that come next.
#[inline(always)]
pub(crate) fn leave() -> Verdict {
    let Some(work) = work() else { return Verdict::Pass };
    if is_middle(work) {
        warm::remember(work, None);
    }
    Verdict::Pass
}

/// Sends a packet on by the way in `work.fib`, as `work.state` says.
#[inline(always)]
pub(crate) fn send(packet: &Xdp) -> Verdict {
    let (Some(work), Some(config)) = (work(), config()) else { return Verdict::Pass };
    let hop = next_hop(&work.fib);
    let flags = work.state.flags;
    if path::is_handed_on(&work.state) {
        // The way is the backend's, the addresses stay.
        work.state.destination = work.tuple.destination;
        work.state.destination_port = work.tuple.destination_port;
    } else if !path::clamp(packet, work, config, flags)
        || !rewrite::apply(packet, &mut work.parsed, &work.state)
    {
        return drop::packet(packet, work, DROP_REWRITE);
    }
    if !rewrite::hop(packet, &mut work.parsed) || !packet.write(0, &hop.macs, false) {
        return drop::packet(packet, work, DROP_REWRITE);
    }
    if is_middle(work) && flags & (FLOW_ESTABLISHED | FLOW_FIN | FLOW_RESET) == FLOW_ESTABLISHED {
        warm::remember(work, Some(&hop));
    }
    packet.answer()
}

/// Drops a packet, or says to its sender that nobody is there; what was overheard is left.
#[inline(always)]
pub(crate) fn reject(packet: &Xdp, step: Step) -> Verdict {
    let Some(work) = work() else { return Verdict::Pass };
    let (source, destination) = (work.tuple.destination, work.tuple.source);
    if !deliver::find_hop(packet, work, &source, &destination) || !is_back(packet, work) {
        return Verdict::Pass;
    }
    path::note(packet, work, step);
    if step.is_refusal() { path::refuse(packet) } else { Verdict::Drop }
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
