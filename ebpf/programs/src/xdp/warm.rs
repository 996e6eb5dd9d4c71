//! The flows that were seen a moment ago: one cache line tells all that becomes of a packet.
//!
//! Must not know: Services, connection tracking. An entry is believed for some seconds, so that its connection is not forgotten and the
//! kernel is asked for its way again; but not once its backend may have gone, and not if its next hop was not given to any packet for
//! half a second.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use pagurus_ebpf_abi::{
    Address, FLOW_DSR, FLOW_REPLY, FlowState, HOPS_PER_CPU, Hop, WARM_BELIEVED, WARM_LEFT, WARM_TAKEN_BACK,
    WARM_V6, WARM_V6_FORWARD, WARM_V6_REPLY, WARM_V6_SAME, WarmBucket, WarmFlow, WarmV6,
};

use super::frame::{Frame, Ip};
use crate::maps::{HOPS, TAKEN_BACK, WARM, config};
use crate::packet::headers::{V4, V6, V6Addresses};
use crate::work::{PARSED_V6, Work};

/// Buckets for each processor, a power of two; the loader says how many. 0: there is no such table.
#[unsafe(no_mangle)]
static WARM_BUCKETS: u32 = 0;

/// How many jiffies a tick of the flows' clock has, as a power of two; the loader says it.
#[unsafe(no_mangle)]
static WARM_TICK: u32 = 8;

/// After so many ticks no flow refers to a next hop any more that was not given again.
const FREE_AFTER: u32 = WARM_BELIEVED + 2;

/// What is known of a flow.
pub(crate) enum Known<A> {
    /// Its packets are left to the other programs.
    Left,
    /// Its packets get these addresses (source, destination) and ports, and go this way.
    Sent([A; 2], u32, &'static Hop),
}

/// A family's flows.
pub(crate) trait Flows: Ip {
    /// What becomes of a packet's flow, if it is known.
    fn recall(frame: &Frame<Self>) -> Option<Known<Self::Address>>;
    /// Forgets a packet's flow.
    fn forget(frame: &Frame<Self>);
}

/// Now, on the clock of flows.
#[inline(always)]
pub(crate) fn now() -> u32 {
    let taken_back = TAKEN_BACK.get_ptr(0).map_or(0, |count| {
        // SAFETY: the place of an array that lives as long as the program; user space writes it meanwhile, as one word.
        unsafe { core::ptr::read_volatile(count) }
    });
    // SAFETY: a constant, which the loader may have replaced: volatile, so that it is not taken for what it was.
    let tick = unsafe { core::ptr::read_volatile(&raw const WARM_TICK) };
    // SAFETY: plain helper, for which the kernel puts in a single load.
    let ticks = (unsafe { bpf_jiffies64() } >> (tick & 63)) as u32;
    ticks.wrapping_add(taken_back.wrapping_mul(WARM_TAKEN_BACK))
}

/// Whether a flow of that time is still believed. Of what its way is that is not enough ([`way`]).
#[inline(always)]
fn is_fresh(stamp: u32, now: u32) -> bool {
    config().is_some_and(|config| now.wrapping_sub(stamp) <= config.warm_ticks)
}

/// A next hop, if a packet's way led there a moment ago: a neighbour may have got another hardware address.
#[inline(always)]
fn way(place: u16, now: u32) -> Option<&'static mut Hop> {
    hop(u32::from(place)).filter(|hop| now.wrapping_sub(hop.stamp) <= 1)
}

#[inline(always)]
fn processor() -> u32 {
    // SAFETY: plain helper.
    unsafe { bpf_get_smp_processor_id() }
}

// Spreads flows over buckets. Who finds flows of one bucket gains nothing but the long way for them.

const ODD: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x9fb2_1c65_1e98_df25];

#[inline(always)]
fn hash(addresses: u64, ports: u32, protocol: u8) -> u32 {
    let rest = u64::from(ports) << 8 | u64::from(protocol);
    let mixed = addresses.wrapping_mul(ODD[0]) ^ rest.wrapping_mul(ODD[1]);
    ((mixed ^ (mixed >> 29)).wrapping_mul(ODD[2]) >> 32) as u32
}

#[inline(always)]
fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[inline(always)]
fn hash_v6(source: &Address, destination: &Address, ports: u32, protocol: u8) -> u32 {
    let (a, b) = (&source.words, &destination.words);
    let high = pair(a[0] ^ b[1], a[1] ^ b[0]).wrapping_mul(ODD[1]);
    let low = pair(a[2], a[3]).wrapping_mul(ODD[2]) ^ pair(b[3], b[2]).wrapping_mul(ODD[0]);
    hash(high ^ low ^ (low >> 31), ports, protocol)
}

/// The second of a flow's buckets, as a hash. Each flow may be in two, of which the second is looked at if it is not in the first: so
/// flows hardly ever drive each other out before most of the table is full.
#[inline(always)]
const fn second(hash: u32) -> u32 {
    (hash ^ hash >> 15).wrapping_mul(0x9e37_79b1).rotate_left(13)
}

/// A bucket in this processor's part.
#[inline(always)]
fn bucket(hash: u32) -> Option<&'static mut WarmBucket> {
    // SAFETY: a constant, which the loader may have replaced: volatile, so that it is not taken for what it was.
    let size = unsafe { core::ptr::read_volatile(&raw const WARM_BUCKETS) };
    if size == 0 {
        return None;
    }
    let place = WARM.get_ptr_mut(processor().wrapping_mul(size).wrapping_add(hash & (size - 1)))?;
    // SAFETY: a place of an array that lives as long as the program; nobody else uses this processor's part while it runs.
    Some(unsafe { &mut *place })
}

/// The flow of IPv6 packets that a bucket is in that case.
#[inline(always)]
fn as_v6(bucket: &'static mut WarmBucket) -> &'static mut WarmV6 {
    // SAFETY: both have the same size and alignment, and every bit pattern is a value of either.
    unsafe { &mut *core::ptr::from_mut(bucket).cast::<WarmV6>() }
}

#[inline(always)]
fn is_same(at: &WarmFlow, flow: &WarmFlow) -> bool {
    at.ports == flow.ports
        && at.source == flow.source
        && at.destination == flow.destination
        && at.protocol == flow.protocol
}

#[inline(always)]
fn hash_v4(flow: &WarmFlow) -> u32 {
    hash(pair(flow.source, flow.destination), flow.ports, flow.protocol)
}

/// The place of a flow in one of its buckets.
#[inline(always)]
fn find_v4_in(hash: u32, flow: &WarmFlow) -> Option<&'static mut WarmFlow> {
    let [first, second] = &mut bucket(hash)?.flows;
    let is_v6 = first.protocol >= WARM_V6;
    if is_same(first, flow) {
        Some(first)
    } else if !is_v6 && is_same(second, flow) {
        Some(second)
    } else {
        None
    }
}

/// The place of a flow, if it is there.
#[inline(always)]
fn find_v4(flow: &WarmFlow) -> Option<&'static mut WarmFlow> {
    let hash = hash_v4(flow);
    match find_v4_in(hash, flow) {
        Some(found) => Some(found),
        None => find_v4_in(second(hash), flow),
    }
}

/// The flow of a packet, nothing being known yet of what becomes of it.
#[inline(always)]
fn flow_v4(frame: &Frame<V4>) -> WarmFlow {
    let [source, destination] = frame.ip.addresses();
    WarmFlow {
        source,
        destination,
        ports: *frame.ports,
        protocol: frame.ip.protocol(),
        ..WarmFlow::default()
    }
}

impl Flows for V4 {
    #[inline(always)]
    fn recall(frame: &Frame<Self>) -> Option<Known<u32>> {
        let found = find_v4(&flow_v4(frame))?;
        let now = now();
        if !is_fresh(found.stamp, now) {
            return None;
        }
        if found.hop == WARM_LEFT {
            return Some(Known::Left);
        }
        let hop = way(found.hop, now)?;
        Some(Known::Sent([found.new_source, found.new_destination], found.new_ports, hop))
    }

    #[inline(always)]
    fn forget(frame: &Frame<Self>) {
        if let Some(found) = find_v4(&flow_v4(frame)) {
            found.protocol = 0;
        }
    }
}

/// What tells a flow of IPv6 from others.
struct KeyV6<'a> {
    addresses: &'a V6Addresses,
    ports: u32,
    protocol: u8,
    /// This node's address.
    node: &'static Address,
}

impl<'a> KeyV6<'a> {
    #[inline(always)]
    fn new(addresses: &'a V6Addresses, ports: u32, protocol: u8) -> Option<Self> {
        Some(Self { addresses, ports, protocol, node: &config()?.node_v6 })
    }

    #[inline(always)]
    fn of(frame: &'a Frame<V6>) -> Option<Self> {
        Self::new(&frame.ip.addresses, *frame.ports, frame.ip.protocol())
    }

    #[inline(always)]
    fn hash(&self) -> u32 {
        hash_v6(&self.addresses.source, &self.addresses.destination, self.ports, self.protocol)
    }

    /// The place of the flow in one of its buckets.
    #[inline(always)]
    fn find_in(&self, hash: u32) -> Option<&'static mut WarmV6> {
        let at = as_v6(bucket(hash)?);
        let destination = if at.kind == WARM_V6_REPLY { self.node } else { &at.service };
        let is_same = at.kind >= WARM_V6
            && at.ports == self.ports
            && at.protocol == self.protocol
            && at.source == self.addresses.source
            && *destination == self.addresses.destination;
        is_same.then_some(at)
    }

    /// The place of the flow, if it is there.
    #[inline(always)]
    fn find(&self) -> Option<&'static mut WarmV6> {
        let hash = self.hash();
        match self.find_in(hash) {
            Some(found) => Some(found),
            None => self.find_in(second(hash)),
        }
    }
}

impl Flows for V6 {
    #[inline(always)]
    fn recall(frame: &Frame<Self>) -> Option<Known<Address>> {
        let key = KeyV6::of(frame)?;
        let found = key.find()?;
        let now = now();
        if !is_fresh(found.stamp, now) {
            return None;
        }
        if found.hop == WARM_LEFT {
            return Some(Known::Left);
        }
        let addresses = match found.kind {
            WARM_V6_FORWARD => [*key.node, found.new_destination],
            WARM_V6_REPLY => [found.service, found.new_destination],
            _ => frame.ip.addresses(),
        };
        Some(Known::Sent(addresses, found.new_ports, way(found.hop, now)?))
    }

    #[inline(always)]
    fn forget(frame: &Frame<Self>) {
        if let Some(found) = KeyV6::of(frame).and_then(|key| key.find()) {
            found.kind = 0;
        }
    }
}

/// Lets the next packets of this flow go the short way: by this next hop, or to the other programs.
#[inline(always)]
pub(crate) fn remember(work: &Work, hop: Option<&Hop>) {
    let now = work.now;
    let place = match hop {
        None => WARM_LEFT,
        Some(hop) => match keep(hop, now) {
            Some(place) => place as u16,
            None => return,
        },
    };
    if work.parsed.is(PARSED_V6) {
        remember_v6(work, now, place);
    } else {
        remember_v4(work, now, place);
    }
}

#[inline(always)]
fn ports(source: u16, destination: u16) -> u32 {
    u32::from_ne_bytes([
        source.to_ne_bytes()[0],
        source.to_ne_bytes()[1],
        destination.to_ne_bytes()[0],
        destination.to_ne_bytes()[1],
    ])
}

/// What is lost with what is in a place: nothing, what is not believed any more, a flow.
#[inline(always)]
fn worth(flow: &WarmFlow, now: u32) -> u32 {
    if flow.protocol == 0 {
        0
    } else if is_fresh(flow.stamp, now) {
        2
    } else {
        1
    }
}

/// What is lost in a bucket with what is worth least: of the first place, or of the second. With a flow of IPv6 all of it is lost.
#[inline(always)]
fn least(bucket: &WarmBucket, now: u32) -> (bool, u32) {
    let (first, second) = (worth(&bucket.flows[0], now), worth(&bucket.flows[1], now));
    if bucket.flows[0].protocol >= WARM_V6 || first < second { (true, first) } else { (false, second) }
}

/// In its place, or in that of what is worth least.
#[inline(always)]
fn remember_v4(work: &Work, stamp: u32, hop: u16) {
    let (old, new) = (&work.tuple, &work.state);
    let flow = WarmFlow {
        source: old.source.v4_word(),
        destination: old.destination.v4_word(),
        ports: ports(old.source_port.0, old.destination_port.0),
        new_source: new.source.v4_word(),
        new_destination: new.destination.v4_word(),
        new_ports: ports(new.source_port.0, new.destination_port.0),
        stamp,
        hop,
        protocol: old.protocol,
        reserved: 0,
    };
    if let Some(found) = find_v4(&flow) {
        *found = flow;
        return;
    }
    let hash = hash_v4(&flow);
    let (Some(near), Some(far)) = (bucket(hash), bucket(second(hash))) else { return };
    let ((is_first, lost), (is_first_far, lost_far)) = (least(near, stamp), least(far, stamp));
    let (bucket, is_first) = if lost_far < lost { (far, is_first_far) } else { (near, is_first) };
    if !is_first {
        bucket.flows[1] = flow;
        return;
    }
    if bucket.flows[0].protocol >= WARM_V6 {
        bucket.flows[1].protocol = 0;
    }
    bucket.flows[0] = flow;
}

/// What kind a flow is, and the Service's address in it. None: the node has had another address in the meantime.
#[inline(always)]
fn kind_v6(work: &Work, node: &Address) -> Option<(u8, Address)> {
    let (old, new): (_, &FlowState) = (&work.tuple, &work.state);
    if new.flags & FLOW_DSR != 0 {
        return Some((WARM_V6_SAME, old.destination));
    }
    if new.flags & FLOW_REPLY != 0 {
        return (old.destination == *node).then_some((WARM_V6_REPLY, new.source));
    }
    (new.source == *node).then_some((WARM_V6_FORWARD, old.destination))
}

#[inline(always)]
fn remember_v6(work: &Work, stamp: u32, hop: u16) {
    let Some(config) = config() else { return };
    let (old, new) = (&work.tuple, &work.state);
    let found =
        if hop == WARM_LEFT { Some((WARM_V6_SAME, old.destination)) } else { kind_v6(work, &config.node_v6) };
    let Some((kind, service)) = found else { return };
    let addresses = V6Addresses { source: old.source, destination: old.destination };
    let ports_now = ports(old.source_port.0, old.destination_port.0);
    let Some(key) = KeyV6::new(&addresses, ports_now, old.protocol) else { return };
    let at = match key.find() {
        Some(found) => found,
        None => {
            let hash = key.hash();
            let (Some(near), Some(far)) = (bucket(hash), bucket(second(hash))) else { return };
            let worth = |bucket: &WarmBucket| worth(&bucket.flows[0], stamp) + worth(&bucket.flows[1], stamp);
            as_v6(if worth(far) < worth(near) { far } else { near })
        }
    };
    at.source = old.source;
    at.ports = ports_now;
    at.new_ports = ports(new.source_port.0, new.destination_port.0);
    at.stamp = stamp;
    at.hop = hop;
    at.kind = kind;
    at.protocol = old.protocol;
    at.service = service;
    at.new_destination = new.destination;
}

#[inline(always)]
fn hop(place: u32) -> Option<&'static mut Hop> {
    let place = HOPS.get_ptr_mut(processor().wrapping_mul(HOPS_PER_CPU).wrapping_add(place))?;
    // SAFETY: as in `bucket`.
    Some(unsafe { &mut *place })
}

/// The place of a next hop in this processor's part of `HOPS`, if it has one or there is one for it.
#[inline(always)]
fn keep(next: &Hop, now: u32) -> Option<u32> {
    let spread = u32::from(next.macs[2]) << 16 | u32::from(next.macs[1]);
    let place = (spread ^ next.ifindex).wrapping_mul(0x9e37_79b1) >> 24 & (HOPS_PER_CPU - 1);
    let at = hop(place)?;
    let is_same = at.macs == next.macs && at.ifindex == next.ifindex && at.mtu == next.mtu;
    if !is_same && at.ifindex != 0 && now.wrapping_sub(at.stamp) < FREE_AFTER {
        return None;
    }
    *at = Hop { stamp: now, ..*next };
    Some(place)
}
