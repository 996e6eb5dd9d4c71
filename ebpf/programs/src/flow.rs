//! What becomes of a packet by its flow: one that is known, or a new one.
//!
//! Must not know: how packets are rewritten and sent.

use pagurus_ebpf_abi::{
    Address, BACKEND_DRAINING, BACKEND_LOCAL, DROP_BACKEND_GONE, DROP_NO_ENDPOINT, DROP_NO_NAT_PORT,
    DROP_NO_ROUTE, DROP_UNKNOWN_CONNECTION, FLOW_APART, FLOW_DSR, FLOW_MASQUERADE, FLOW_OUTSIDE, FLOW_REPLY,
    FLOW_SNAT, FlowState, FlowTuple, NODE_ADDRESS_LOCAL, NODE_MASQUERADE, NodeConfig, PROTOCOL_SCTP,
    PROTOCOL_TCP, PROTOCOL_UDP, SERVICE_EXTERNAL,
};

use crate::{
    conntrack::{self, SCTP_INIT},
    maps::{ENDPOINTS, config},
    nat,
    packet::{Hook, fragment},
    path::{Step, is_handed_on},
    service::{self, Choice, Side},
    stages::{self, Decided},
    table,
    work::{PARSED_FRAGMENT_FIRST, TCP_ACK, TCP_RST, TCP_SYN, Work, work},
};

/// Decides on a packet whose flow is `work.tuple`.
#[inline(always)]
pub(crate) fn step<P: Decided>(packet: &P) -> Step {
    let (Some(work), Some(config)) = (work(), config()) else { return Step::LEAVE };
    let hook = packet.hook();
    let anew = match conntrack::find(&work.tuple) {
        None => false,
        Some(entry) => match known(packet, work, entry, hook) {
            Known::Good(step) => return step,
            Known::Stale => true,
        },
    };
    begin(packet, work, config, hook, anew)
}

/// What a known flow is worth.
enum Known {
    /// It decides.
    Good(Step),
    /// It is to be chosen anew.
    Stale,
}

#[inline(always)]
fn known<P: Decided>(packet: &P, work: &mut Work, entry: &mut FlowState, hook: Hook) -> Known {
    if entry.flags & FLOW_REPLY == 0 {
        // Forward entries are made, and used, where the flow comes in. Of a flow that was given another port the old one is on its way
        // out too: that is the flow through a Service, translated.
        let is_of_others = is_handed_on(entry) || entry.flags & FLOW_APART != 0;
        if hook == Hook::ToPod || (hook == Hook::ToOutside && is_of_others) {
            return Known::Good(Step::LEAVE);
        }
        match fitness(work, entry) {
            Fitness::Good => {}
            Fitness::Stale => return Known::Stale,
            Fitness::Gone => return Known::Good(Step::refuse(DROP_BACKEND_GONE)),
        }
    } else if matches!(hook, Hook::ToPod | Hook::ToOutside) && is_answered(work) {
        return Known::Good(Step::LEAVE);
    }
    if P::XDP {
        work.state = *entry;
        if !packet.finds_way(work) {
            return Known::Good(Step::LEAVE);
        }
    }
    conntrack::touch(entry, &work.parsed);
    work.state = *entry;
    work.service.service = entry.service;
    Known::Good(if is_handed_on(entry) { Step::HAND_ON } else { Step::TRANSLATE })
}

/// Whether an answer that leaves was translated when it came, though it looks like one that was not: its flow and another one have the
/// same port at the client ([`FLOW_APART`]). What this node itself says came nowhere.
#[inline(always)]
fn is_answered(work: &mut Work) -> bool {
    work.other_key = turned(&work.tuple);
    conntrack::find(&work.other_key).is_some_and(|entry| entry.flags & FLOW_APART != 0)
        && table::node_address(&work.tuple.source) & NODE_ADDRESS_LOCAL == 0
}

/// The other direction of a flow.
#[inline(always)]
fn turned(tuple: &FlowTuple) -> FlowTuple {
    FlowTuple {
        source: tuple.destination,
        destination: tuple.source,
        source_port: tuple.destination_port,
        destination_port: tuple.source_port,
        protocol: tuple.protocol,
        reserved: [0; 3],
    }
}

/// Whether an entry still leads anywhere.
enum Fitness {
    Good,
    Stale,
    Gone,
}

/// Whether this is the first packet of a TCP connection.
#[inline(always)]
fn is_first(work: &Work) -> bool {
    work.tuple.protocol == PROTOCOL_TCP && work.parsed.kind & (TCP_SYN | TCP_ACK) == TCP_SYN
}

#[inline(always)]
fn fitness(work: &mut Work, entry: &mut FlowState) -> Fitness {
    let is_first = is_first(work);
    if is_first {
        work.other_key = entry.other(work.tuple.protocol);
        if conntrack::is_closed(entry)
            || conntrack::find(&work.other_key).is_some_and(|other| conntrack::is_closed(other))
        {
            return Fitness::Stale;
        }
    }
    if entry.backend == 0 {
        return Fitness::Good;
    }
    let backend = table::backend(entry.backend)
        .filter(|backend| backend.address == entry.destination && backend.port.0 == entry.destination_port.0);
    let has_connections = matches!(work.tuple.protocol, PROTOCOL_TCP | PROTOCOL_SCTP);
    match backend {
        Some(backend) if backend.flags & BACKEND_DRAINING == 0 => {
            if has_connections || confirm(work, entry) {
                Fitness::Good
            } else {
                Fitness::Stale
            }
        }
        _ if is_first || !has_connections => Fitness::Stale,
        Some(_) => Fitness::Good,
        None => Fitness::Gone,
    }
}

/// Whether a Service still gives the client of a flow of datagrams the backend that it has: its policies may have become narrower, or the
/// backend has gone from those that are for this client.
#[inline(always)]
fn confirm(work: &mut Work, entry: &mut FlowState) -> bool {
    work.state = *entry;
    if stages::is_unchanged() {
        return true;
    }
    let side = if entry.flags & FLOW_OUTSIDE != 0 { Side::Outside } else { Side::Inside };
    if !stages::find(side) || !stages::keeps(side) {
        return false;
    }
    entry.flags = work.state.flags;
    true
}

/// A flow that is as it is, for the beginning.
#[inline(always)]
fn untranslated(tuple: &FlowTuple) -> FlowState {
    FlowState {
        source: tuple.source,
        destination: tuple.destination,
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        last: 0,
        flags: 0,
        backend: 0,
        service: 0,
        since: 0,
    }
}

/// Begins a flow, if it is one of ours.
#[inline(always)]
fn begin<P: Decided>(packet: &P, work: &mut Work, config: &NodeConfig, hook: Hook, anew: bool) -> Step {
    if is_reset(work) && hook != Hook::FromOutside {
        return Step::LEAVE;
    }
    let side = match hook {
        Hook::ToPod => return Step::LEAVE,
        Hook::FromPod => Side::Inside,
        Hook::FromOutside => Side::Outside,
        Hook::ToOutside => {
            if is_pod(&work.tuple.source) {
                return masquerade(packet, work, config, anew);
            }
            if table::node_address(&work.tuple.source) & NODE_ADDRESS_LOCAL == 0 {
                return Step::LEAVE;
            }
            Side::Inside
        }
    };
    if !stages::find(side) {
        if is_reset(work) {
            return Step::LEAVE;
        }
        if anew {
            return Step::refuse(DROP_BACKEND_GONE);
        }
        // Early, only what is for Services is looked at.
        return if P::XDP { Step::LEAVE } else { straight(packet, work, hook) };
    }
    // A reset of a connection that is not known has nothing to reset, but where the backend's node answers the client itself: that node
    // knows it, and the tables know that node.
    if is_reset(work) && !service::hands_on(work.service.flags) {
        return Step::LEAVE;
    }
    match stages::choose(side) {
        Choice::BACKEND => to_backend(packet, work, config, hook, anew),
        _ if is_reset(work) => Step::LEAVE,
        Choice::REFUSE => Step::refuse(DROP_NO_ENDPOINT),
        Choice(reason) => Step::drop(reason),
    }
}

/// Whether the packet is a TCP reset.
#[inline(always)]
fn is_reset(work: &Work) -> bool {
    work.tuple.protocol == PROTOCOL_TCP && work.parsed.kind & TCP_RST != 0
}

/// A flow that is for no Service. From a port that has one through a Service to the same place, its answers would look like those of
/// that one and be given the Service's address. What is left of one that has ended is forgotten; while it lives, this flow gets another
/// port, as the kernel's own NAT does it.
#[inline(always)]
fn straight<P: Decided>(packet: &P, work: &mut Work, hook: Hook) -> Step {
    if !is_beginning(work) {
        return Step::LEAVE;
    }
    work.other_key = turned(&work.tuple);
    let Some(reply) = conntrack::find(&work.other_key) else { return Step::LEAVE };
    if reply.flags & FLOW_REPLY == 0 {
        return Step::LEAVE;
    }
    work.other = *reply;
    work.rival_key = work.other.other(work.tuple.protocol);
    let is_closed = conntrack::is_closed(&work.other)
        || conntrack::find(&work.rival_key).is_some_and(|forward| conntrack::is_closed(forward));
    if is_closed {
        conntrack::remove(&work.rival_key);
        conntrack::remove(&work.other_key);
        return Step::LEAVE;
    }
    // What leaves here may be that very flow, translated a moment ago.
    if hook == Hook::ToOutside {
        return Step::LEAVE;
    }
    work.state = untranslated(&work.tuple);
    work.state.flags = FLOW_APART;
    match packet.track(false) {
        nat::TRACKED => Step::TRANSLATE,
        reason => Step::drop(reason),
    }
}

/// Whether the packet may be the first of a flow.
#[inline(always)]
fn is_beginning(work: &Work) -> bool {
    match work.tuple.protocol {
        PROTOCOL_TCP => is_first(work),
        PROTOCOL_SCTP => work.parsed.kind == SCTP_INIT,
        PROTOCOL_UDP => true,
        _ => false,
    }
}

/// Whether an address is that of a pod of this node.
#[inline(always)]
fn is_pod(address: &Address) -> bool {
    ENDPOINTS.get_ptr(address).is_some()
}

/// Whether pods reach an address with their own.
#[inline(always)]
fn is_in_networks(config: &NodeConfig, address: &Address) -> bool {
    for (index, network) in config.networks.iter().enumerate() {
        if index as u32 >= config.networks_len {
            break;
        }
        let (mask, network, words) = (&network.mask.words, &network.address.words, &address.words);
        let difference = ((words[0] & mask[0]) ^ network[0])
            | ((words[1] & mask[1]) ^ network[1])
            | ((words[2] & mask[2]) ^ network[2])
            | ((words[3] & mask[3]) ^ network[3]);
        if difference == 0 {
            return true;
        }
    }
    false
}

/// Whether pods reach an address with this node's and not with their own. Nodes know the way to each other's pods.
#[inline(always)]
pub(crate) fn is_masked(config: &NodeConfig, address: &Address) -> bool {
    config.flags & NODE_MASQUERADE != 0 && !is_in_networks(config, address) && !table::is_node(address)
}

/// Whether a fragment without ports, whose first one was not seen, would go astray as it is: to an address that is nobody's but a
/// Service's, or out of the cluster with a pod's address.
#[inline(always)]
pub(crate) fn needs_ports(work: &Work, hook: Hook) -> bool {
    let tuple = &work.tuple;
    match hook {
        Hook::ToPod => false,
        Hook::FromPod | Hook::FromOutside => fragment::is_noted(&tuple.destination),
        Hook::ToOutside => {
            config().is_some_and(|config| is_pod(&tuple.source) && is_masked(config, &tuple.destination))
        }
    }
}

/// A pod's flow to the outside: with this node's address if the destination does not know the pod's.
#[inline(always)]
fn masquerade<P: Decided>(packet: &P, work: &mut Work, config: &NodeConfig, anew: bool) -> Step {
    // What begins no connection answers one that began outside: it stays as it is.
    if !is_masked(config, &work.tuple.destination) || (work.tuple.protocol == PROTOCOL_TCP && !is_first(work))
    {
        return Step::LEAVE;
    }
    work.state = untranslated(&work.tuple);
    if !nat::replace_source(work, config, FLOW_SNAT | FLOW_MASQUERADE) {
        return Step::drop(DROP_NO_NAT_PORT);
    }
    match packet.track(anew) {
        nat::TRACKED => Step::TRANSLATE,
        reason => Step::drop(reason),
    }
}

/// A flow to the backend that was chosen.
#[inline(always)]
fn to_backend<P: Decided>(packet: &P, work: &mut Work, config: &NodeConfig, hook: Hook, anew: bool) -> Step {
    work.state = untranslated(&work.tuple);
    work.state.destination = work.backend.address;
    work.state.destination_port = work.backend.port;
    work.state.backend = work.id;
    work.state.service = work.service.service;
    let is_local = work.backend.flags & BACKEND_LOCAL != 0;
    if work.parsed.is(PARSED_FRAGMENT_FIRST) && work.service.flags & SERVICE_EXTERNAL == 0 {
        note_destination();
    }
    let mut is_ready = true;
    match hook {
        Hook::FromOutside => {
            work.state.flags = FLOW_OUTSIDE;
            if !is_local && service::hands_on(work.service.flags) {
                return to_backends_node(packet, work, anew);
            }
            if is_reset(work) {
                return Step::LEAVE;
            }
            if !is_local {
                is_ready = nat::replace_source(work, config, FLOW_SNAT);
            }
        }
        Hook::FromPod if work.backend.address == work.tuple.source => {
            is_ready = nat::replace_source(work, config, FLOW_SNAT);
        }
        Hook::FromPod if !is_local && config.flags & NODE_MASQUERADE != 0 => {
            // Nodes know the way to each other's pods.
            if !is_in_networks(config, &work.backend.address) && !table::is_node(&work.backend.address) {
                is_ready = nat::replace_source(work, config, FLOW_SNAT | FLOW_MASQUERADE);
            }
        }
        // What the node itself sends to itself never comes to a device with programs, so its answers would not be translated. (Its
        // sockets have other programs. What is left are raw ones.)
        Hook::ToOutside if table::node_address(&work.backend.address) & NODE_ADDRESS_LOCAL != 0 => {
            return Step::refuse(DROP_NO_ROUTE);
        }
        _ => {}
    }
    if !is_ready {
        return Step::drop(DROP_NO_NAT_PORT);
    }
    // Its entry was lost, and with it the port under which the backend knows it: another would not help.
    if work.state.flags & FLOW_SNAT != 0 && work.tuple.protocol == PROTOCOL_TCP && !is_first(work) {
        return Step::refuse(DROP_UNKNOWN_CONNECTION);
    }
    if !packet.finds_way(work) {
        return Step::LEAVE;
    }
    work.state.set_generation(work.service.generation);
    match packet.track(anew) {
        // Another CPU was faster and chose another backend: the way that was found is not there.
        nat::TRACKED if P::XDP && work.state.destination != work.backend.address => Step::LEAVE,
        nat::TRACKED => {
            service::count(work);
            Step::TRANSLATE
        }
        reason => Step::drop(reason),
    }
}

/// Notes that fragments to the address of this Service are lost without their first one. Others' addresses may be those of something
/// else besides.
#[inline(always)]
fn note_destination() {
    if !stages::note_destination() {
        conntrack::missed();
    }
}

/// A flow whose backend's node answers the client itself. Losing its entry does no harm: the tables choose the same again.
#[inline(always)]
fn to_backends_node<P: Decided>(packet: &P, work: &mut Work, anew: bool) -> Step {
    work.state.flags |= FLOW_DSR;
    if !packet.finds_way(work) {
        return Step::LEAVE;
    }
    // That begins nothing.
    if is_reset(work) {
        return Step::HAND_ON;
    }
    work.state.set_generation(work.service.generation);
    nat::stamp(work);
    let written = if anew {
        conntrack::put(&work.tuple, &work.state)
    } else {
        conntrack::add(&work.tuple, &work.state)
    };
    if written.is_ok() {
        service::count(work);
    }
    Step::HAND_ON
}
