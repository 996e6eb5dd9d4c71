//! The ways of packets: what each packet program does.
//!
//! Must not know: how headers lie in a packet, how the kernel takes a packet on.

use pagurus_ebpf_abi::{
    Address, DROP_FRAGMENT, DROP_MALFORMED, DROP_REWRITE, FLOW_DSR, FLOW_MASQUERADE, FLOW_OUTSIDE,
    FLOW_REPLY, FlowState, NODE_DELIVER, NODE_FORWARD, NodeConfig, PROTOCOL_TCP,
};

use crate::{
    conntrack,
    deliver::{self, Route},
    drop, flow,
    maps::config,
    packet::{Hook, Packet, Verdict, fragment, icmp, mss, parse, reject, rewrite},
    service,
    stages::Stages,
    work::{
        PARSED_FRAGMENT_FIRST, PARSED_FRAGMENT_LATER, PARSED_ICMP_ERROR, PARSED_PORTS, PARSED_V6, TCP_RST,
        TCP_SYN, Work, work,
    },
};

/// What is to be done with a packet, as a number, because functions that the verifier checks on their own return numbers.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step(pub(crate) u32);

impl Step {
    /// It is none of ours.
    pub(crate) const LEAVE: Self = Self(0);
    /// It becomes what `work.state` says.
    pub(crate) const TRANSLATE: Self = Self(1);
    /// It goes to the node of the backend in `work.state` as it is.
    pub(crate) const HAND_ON: Self = Self(2);
    const REFUSE: u32 = 1 << 8;
    const DROP: u32 = 1 << 9;

    /// Nobody answers there, for this reason.
    #[inline(always)]
    pub(crate) const fn refuse(reason: u32) -> Self {
        Self(Self::REFUSE | reason)
    }

    /// It is dropped, for this reason.
    #[inline(always)]
    pub(crate) const fn drop(reason: u32) -> Self {
        Self(Self::DROP | reason)
    }

    /// Whether somebody is to be told that nobody answers there.
    #[inline(always)]
    pub(crate) const fn is_refusal(self) -> bool {
        self.0 & Self::REFUSE != 0
    }

    /// Why the packet goes nowhere.
    #[inline(always)]
    pub(crate) const fn reason(self) -> u32 {
        self.0 & 0xff
    }
}

/// What every packet program does.
#[inline(always)]
pub(crate) fn run<P: Stages>(packet: &P) -> Verdict {
    let hook = packet.hook();
    if packet.was_decided() {
        return Verdict::Pass;
    }
    let Some(work) = work() else { return Verdict::Pass };
    let kind = parse::packet(packet, &mut work.parsed);
    match kind {
        parse::Kind::Neighbour if hook == Hook::FromOutside => return packet.neighbour(),
        parse::Kind::Neighbour | parse::Kind::Other => return Verdict::Pass,
        _ if !packet.is_ours() => return Verdict::Pass,
        parse::Kind::Malformed | parse::Kind::Ip => {}
    }
    let is_alone = work.parsed.is(PARSED_FRAGMENT_LATER) && !fragment::ports(&mut work.parsed);
    work.tuple = work.parsed.tuple;
    work.service.service = 0;
    if kind == parse::Kind::Malformed {
        return drop::packet(packet, work, DROP_MALFORMED);
    }
    if is_alone && flow::needs_ports(work, hook) {
        return drop::packet(packet, work, DROP_FRAGMENT);
    }
    if work.parsed.is(PARSED_ICMP_ERROR) {
        return packet.error();
    }
    let step = if work.parsed.is(PARSED_PORTS) { packet.step() } else { Step::LEAVE };
    match step {
        Step::LEAVE if matches!(hook, Hook::ToPod | Hook::ToOutside) => Verdict::Pass,
        Step::LEAVE => packet.leave(),
        Step::TRANSLATE => packet.translate(),
        Step::HAND_ON => packet.hand_on(),
        _ => {
            note(packet, work, step);
            if step.is_refusal() { packet.refuse() } else { Verdict::Drop }
        }
    }
}

/// Counts a packet that goes nowhere.
#[inline(always)]
pub(crate) fn note<P: Packet>(packet: &P, work: &mut Work, step: Step) {
    service::count_rejected(work, step.reason());
    drop::note(packet, work, step.reason());
}

/// Answers that nobody is there; a reset is not answered.
#[inline(always)]
pub(crate) fn refuse<P: Packet>(packet: &P) -> Verdict {
    let Some(work) = work() else { return Verdict::Drop };
    if work.tuple.protocol == PROTOCOL_TCP && work.parsed.kind & TCP_RST != 0 {
        return Verdict::Drop;
    }
    reject::refuse(packet, &work.parsed)
}

/// Tells the sender that the packet's time to live was used up on this node.
#[inline(always)]
pub(crate) fn expired<P: Packet>(packet: &P) -> Verdict {
    let (Some(work), Some(config)) = (work(), config()) else { return Verdict::Drop };
    let (node, none) = if work.parsed.is(PARSED_V6) {
        (config.node_v6, Address::ANY_V6)
    } else {
        (config.node_v4, Address::ANY_V4)
    };
    if node == none { Verdict::Drop } else { reject::expired(packet, &mut work.parsed, node) }
}

/// An ICMP error: about one of our flows, or not.
#[inline(always)]
pub(crate) fn error<P: Stages>(packet: &P) -> Verdict {
    let (Some(work), Some(config)) = (work(), config()) else { return Verdict::Pass };
    match icmp::translate(packet, work) {
        icmp::Translation::None => leave(packet),
        icmp::Translation::HandOn => hand_on(packet),
        icmp::Translation::Failed => drop::packet(packet, work, DROP_REWRITE),
        icmp::Translation::Done if packet.is_egress() => Verdict::Pass,
        icmp::Translation::Done => {
            let (source, destination) = (work.parsed.tuple.source, work.parsed.tuple.destination);
            let route = deliver::route(packet, work, config, &source, &destination, true);
            match deliver::refusal(packet, work, &route, true) {
                Some(verdict) => verdict,
                None => deliver::send(packet, work, route, true),
            }
        }
    }
}

/// A packet that is as it was: to a pod of this node, or to another node, without the kernel's detours if those are not wanted.
#[inline(always)]
pub(crate) fn leave<P: Stages>(packet: &P) -> Verdict {
    let (Some(work), Some(config)) = (work(), config()) else { return Verdict::Pass };
    let hook = packet.hook();
    let wanted = match hook {
        Hook::FromPod => NODE_DELIVER | NODE_FORWARD,
        Hook::FromOutside => NODE_DELIVER,
        Hook::ToPod | Hook::ToOutside => 0,
    };
    if config.flags & wanted == 0 {
        return Verdict::Pass;
    }
    let forward = hook == Hook::FromPod && config.flags & NODE_FORWARD != 0;
    let (source, destination) = (work.tuple.source, work.tuple.destination);
    let route = deliver::route(packet, work, config, &source, &destination, forward);
    if let Some(verdict) = deliver::refusal(packet, work, &route, false) {
        return verdict;
    }
    // On its way out it may still be given the node's address.
    let is_decided = !flow::is_masked(config, &destination);
    deliver::send(packet, work, route, is_decided)
}

/// A packet that becomes what `work.state` says.
#[inline(always)]
pub(crate) fn translate<P: Stages>(packet: &P) -> Verdict {
    let (Some(work), Some(config)) = (work(), config()) else { return Verdict::Drop };
    let hook = packet.hook();
    let flags = work.state.flags;
    // On its way out of the device that it stays on: only what the other end sees becomes different.
    let stays = packet.is_egress() && (hook == Hook::ToPod || flags & (FLOW_REPLY | FLOW_MASQUERADE) != 0);
    let route = if stays {
        Route::KERNEL
    } else {
        let (source, destination) = (work.state.source, work.state.destination);
        // The kernel does not forward what has one of its own addresses as its source.
        let forward = packet.is_egress() || config.flags & NODE_FORWARD != 0 || source != work.tuple.source;
        deliver::route(packet, work, config, &source, &destination, forward)
    };
    if let Some(verdict) = deliver::refusal(packet, work, &route, true) {
        return verdict;
    }
    if work.parsed.is(PARSED_FRAGMENT_FIRST) && !fragment::note(&work.parsed) {
        // The fragments behind this one will find no ports.
        conntrack::missed();
    }
    if !clamp(packet, work, config, flags) || !rewrite::apply(packet, &mut work.parsed, &work.state) {
        return drop::packet(packet, work, DROP_REWRITE);
    }
    deliver::send(packet, work, route, true)
}

/// Connections from outside must fit into packets between nodes, whichever node's backend they have.
#[inline(always)]
pub(crate) fn clamp<P: Packet>(packet: &P, work: &Work, config: &NodeConfig, flags: u32) -> bool {
    let is_first = work.tuple.protocol == PROTOCOL_TCP && work.parsed.kind & TCP_SYN != 0;
    if !is_first || flags & FLOW_OUTSIDE == 0 || config.mtu == 0 {
        return true;
    }
    mss::clamp(packet, &work.parsed, config.mtu)
}

/// A packet for the node of its backend (direct server return): that node has the same tables.
#[inline(always)]
pub(crate) fn hand_on<P: Stages>(packet: &P) -> Verdict {
    let Some(work) = work() else { return Verdict::Drop };
    let FlowState { source, destination, .. } = work.state;
    let is_v6 = !destination.is_v4();
    let route = deliver::way(packet, work, &source, &destination, is_v6);
    match deliver::refusal(packet, work, &route, true) {
        Some(verdict) => verdict,
        None => deliver::send(packet, work, route, true),
    }
}

/// [`FlowState::flags`] of flows that are not translated here.
#[inline(always)]
pub(crate) fn is_handed_on(state: &FlowState) -> bool {
    state.flags & (FLOW_DSR | FLOW_REPLY) == FLOW_DSR
}
