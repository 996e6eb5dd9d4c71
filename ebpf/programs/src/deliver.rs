//! Getting a packet to where it is to go: into a pod of this node, to the next hop, or on through the kernel.
//!
//! Must not know: why it goes there.

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_SKIP_NEIGH, bpf_fib_lookup,
        bpf_redir_neigh,
    },
    helpers::{bpf_fib_lookup as fib_lookup, bpf_redirect_neigh, bpf_redirect_peer},
};
use pagurus_ebpf_abi::{
    Address, DROP_NO_ROUTE, DROP_REWRITE, DROP_TOO_LONG, DROP_TTL, Endpoint, NODE_DELIVER, NodeConfig,
    PROTOCOL_TCP,
};

use crate::{
    drop,
    maps::{ENDPOINTS, config},
    packet::{Packet, Verdict, rewrite},
    stages::Stages,
    work::{PARSED_DIVISIBLE, PARSED_V6, Work},
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `BPF_FIB_LKUP_RET_BLACKHOLE`, `_UNREACHABLE`, `_PROHIBIT`: the kernel's routes say no.
const REFUSED: core::ops::RangeInclusive<i64> = 1..=3;

/// Where a packet goes. Every field always has a value, because the verifier lets no register be copied that has none.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) struct Route {
    kind: Kind,
    /// The largest packet, for [`Kind::TooLong`].
    mtu: u32,
    /// The pod, for [`Kind::Pod`].
    endpoint: Option<&'static Endpoint>,
}

/// The kinds of a [`Route`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The kernel knows best: to this node itself, or in a way that the programs do not know.
    Kernel,
    /// Into a pod of this node.
    Pod,
    /// Out of the device and to the next hop in `work.fib`.
    Way,
    /// There would be a way for smaller packets.
    TooLong,
    /// Nowhere.
    None,
}

impl Route {
    /// On through the kernel.
    pub(crate) const KERNEL: Self = Self::of(Kind::Kernel);

    #[inline(always)]
    const fn of(kind: Kind) -> Self {
        Self { kind, mtu: 0, endpoint: None }
    }
}

/// Addresses that packets are not sent on for: multicast, link-local, broadcast.
#[inline(always)]
fn stays(address: &Address, is_v6: bool) -> bool {
    if is_v6 {
        let first = u32::from_be(address.words[0]) >> 16;
        return first & 0xffc0 == 0xfe80 || first >> 8 == 0xff;
    }
    let word = u32::from_be(address.v4_word());
    word >> 28 >= 0xe || word >> 16 == 0xa9fe
}

/// Finds where a packet of this source and destination goes. `forward`: the programs may send it on to other nodes.
#[inline(always)]
pub(crate) fn route<P: Packet>(
    packet: &P,
    work: &mut Work,
    config: &NodeConfig,
    source: &Address,
    destination: &Address,
    forward: bool,
) -> Route {
    if config.flags & NODE_DELIVER != 0 {
        // SAFETY: entries are replaced by user space, and of half an entry no more harm comes than of an old one.
        if let Some(endpoint) = unsafe { ENDPOINTS.get(destination) } {
            return Route { kind: Kind::Pod, mtu: 0, endpoint: Some(endpoint) };
        }
    }
    let is_v6 = work.parsed.is(PARSED_V6);
    if !forward || stays(destination, is_v6) {
        return Route::KERNEL;
    }
    let route = way(packet, work, source, destination, is_v6);
    // The kernel sends fragments of what may come in fragments. But nothing that has one of its own addresses as its source: the
    // sender is told of that, and sends the next one in fragments itself.
    let is_divided = route.kind == Kind::TooLong
        && work.parsed.is(PARSED_DIVISIBLE)
        && !packet.is_egress()
        && packet.segment() == 0
        && *source == work.tuple.source;
    if is_divided { Route::KERNEL } else { route }
}

/// Asks the kernel's routes.
#[inline(always)]
pub(crate) fn way<P: Packet>(
    packet: &P,
    work: &mut Work,
    source: &Address,
    destination: &Address,
    is_v6: bool,
) -> Route {
    let code = ask(packet, work, source, destination, is_v6);
    let fib = &work.fib;
    // SAFETY: plain words, written by the kernel.
    let mtu = u32::from(unsafe { fib.__bindgen_anon_1.mtu_result });
    if code == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) {
        // What the overlay wraps packets in may come in fragments as well.
        let is_wrapped = config().is_some_and(|config| config.overlay_ifindex == fib.ifindex);
        if is_wrapped && work.parsed.is(PARSED_DIVISIBLE) {
            return Route::of(Kind::Way);
        }
        return Route { kind: Kind::TooLong, mtu, endpoint: None };
    }
    if code != i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
        return if REFUSED.contains(&code) { Route::of(Kind::None) } else { Route::KERNEL };
    }
    let segment = packet.segment();
    if segment != 0 && segment + headers(packet, work) > mtu {
        return Route { kind: Kind::TooLong, mtu, endpoint: None };
    }
    Route::of(Kind::Way)
}

/// Finds the next hop of a packet with these addresses, with the hardware addresses in `work.fib`. False: there is none that the kernel
/// knows already.
#[inline(always)]
pub(crate) fn find_hop<P: Packet>(
    packet: &P,
    work: &mut Work,
    source: &Address,
    destination: &Address,
) -> bool {
    let is_v6 = work.parsed.is(PARSED_V6);
    !stays(destination, is_v6)
        && ask(packet, work, source, destination, is_v6) == i64::from(BPF_FIB_LKUP_RET_SUCCESS)
}

/// Asks the kernel's routes; the answer is in `work.fib`.
#[inline(always)]
fn ask<P: Packet>(packet: &P, work: &mut Work, source: &Address, destination: &Address, is_v6: bool) -> i64 {
    let fib = &mut work.fib;
    fib.l4_protocol = work.parsed.tuple.protocol;
    fib.sport = 0;
    fib.dport = 0;
    fib.ifindex = packet.ifindex();
    // No length: the kernel then compares the packet with the device's, and does not take many packets in one for a long one.
    fib.__bindgen_anon_1.tot_len = 0;
    if is_v6 {
        fib.family = AF_INET6;
        fib.__bindgen_anon_2.flowinfo = 0;
        fib.__bindgen_anon_3.ipv6_src = source.words;
        fib.__bindgen_anon_4.ipv6_dst = destination.words;
    } else {
        fib.family = AF_INET;
        fib.__bindgen_anon_2.flowinfo = 0;
        fib.__bindgen_anon_2.tos = work.parsed.tos;
        fib.__bindgen_anon_3.ipv4_src = source.v4_word();
        fib.__bindgen_anon_4.ipv4_dst = destination.v4_word();
    }
    fib.__bindgen_anon_5.tbid = 0;
    // tc programs send to a neighbour by its address; XDP has to write the hardware addresses itself.
    let flags = if P::XDP { 0 } else { BPF_FIB_LOOKUP_SKIP_NEIGH };
    // SAFETY: the helper reads and writes the structure, whose size is given.
    unsafe { fib_lookup(packet.context(), &raw mut *fib, size_of::<bpf_fib_lookup>() as i32, flags) }
}

/// Length of the headers of IP and the transport.
#[inline(always)]
fn headers<P: Packet>(packet: &P, work: &Work) -> u32 {
    let l4 = work.parsed.l4;
    let transport = match work.parsed.tuple.protocol {
        PROTOCOL_TCP => packet.read::<u8>(l4 + 12).map_or(20, |word| u32::from(word >> 4) * 4),
        _ => 8,
    };
    l4.wrapping_sub(work.parsed.l3) + transport
}

/// The hardware addresses of an Ethernet header.
#[repr(C)]
#[derive(Clone, Copy)]
struct Macs {
    destination: [u8; 6],
    source: [u8; 6],
}

/// Why a packet does not go along its route, if it does not. Asked before it is rewritten: who sent it is told of it as it came.
/// What is not translated is left to the kernel, which tells the sender itself.
#[inline(always)]
pub(crate) fn refusal<P: Stages>(
    packet: &P,
    work: &mut Work,
    route: &Route,
    translated: bool,
) -> Option<Verdict> {
    let is_spent = work.parsed.ttl <= 1;
    match route.kind {
        Kind::Kernel => None,
        Kind::Pod | Kind::Way if !is_spent => None,
        _ if !translated => Some(Verdict::Pass),
        Kind::TooLong => {
            drop::note(packet, work, DROP_TOO_LONG);
            Some(packet.too_long(route.mtu))
        }
        Kind::None => Some(drop::packet(packet, work, DROP_NO_ROUTE)),
        Kind::Pod | Kind::Way => {
            drop::note(packet, work, DROP_TTL);
            Some(packet.expired())
        }
    }
}

/// Sends a packet along its route. `is_decided`: on its way out there is nothing left to do with it.
#[inline(always)]
pub(crate) fn send<P: Packet>(packet: &P, work: &mut Work, route: Route, is_decided: bool) -> Verdict {
    if route.kind == Kind::Kernel {
        return Verdict::Pass;
    }
    if !rewrite::hop(packet, &mut work.parsed) {
        return drop::packet(packet, work, DROP_REWRITE);
    }
    match route.endpoint {
        Some(endpoint) => into_pod(packet, work, endpoint),
        None => {
            if is_decided && !packet.is_egress() {
                packet.set_decided();
            }
            to_next_hop(packet, work)
        }
    }
}

#[inline(always)]
fn into_pod<P: Packet>(packet: &P, work: &mut Work, endpoint: &Endpoint) -> Verdict {
    let macs = Macs { destination: endpoint.mac, source: endpoint.host_mac };
    if !packet.write(0, &macs, false) {
        return drop::packet(packet, work, DROP_REWRITE);
    }
    if packet.is_egress() {
        return packet.redirect(endpoint.ifindex);
    }
    // SAFETY: plain helper.
    Verdict::Code(unsafe { bpf_redirect_peer(endpoint.ifindex, 0) } as i32)
}

/// Out of the device in `work.fib`, with the neighbour's address as the kernel knows it.
#[inline(always)]
fn to_next_hop<P: Packet>(packet: &P, work: &mut Work) -> Verdict {
    if packet.is_egress() {
        // A packet of this node's own has the route to where it was going first. Had it to wait for its neighbour's hardware address,
        // it would be sent there after all: so the kernel looks for the way once more, and gives the packet that route.
        // SAFETY: without a structure nothing is read.
        return Verdict::Code(
            unsafe { bpf_redirect_neigh(work.fib.ifindex, core::ptr::null_mut(), 0, 0) } as i32
        );
    }
    // The kernel has replaced the destination by the gateway, which may be of the other family.
    work.next_hop.nh_family = u32::from(work.fib.family);
    // SAFETY: the four words are all there is in either form.
    unsafe { work.next_hop.__bindgen_anon_1.ipv6_nh = work.fib.__bindgen_anon_4.ipv6_dst };
    // SAFETY: the helper reads as many bytes as it is told.
    Verdict::Code(unsafe {
        bpf_redirect_neigh(work.fib.ifindex, &raw mut work.next_hop, size_of::<bpf_redir_neigh>() as i32, 0)
    } as i32)
}
