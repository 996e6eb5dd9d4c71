//! The flows that were seen a moment ago: one cache line tells all that becomes of a packet.
//!
//! Must not know: Services, connection tracking. An entry is believed for so short a time that the long way is taken often enough to
//! keep the connection from being forgotten, and to notice that its backend or its next hop has gone.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use pagurus_ebpf_abi::{HOPS_PER_CPU, Hop, WARM_TICK, WarmBucket, WarmFlow};

use crate::maps::{HOPS, WARM};

/// Buckets for each processor, a power of two; the loader says how many. 0: there is no such table.
#[unsafe(no_mangle)]
static WARM_BUCKETS: u32 = 0;

/// After so many ticks no flow refers to a next hop any more that was not given again.
const FREE_AFTER: u32 = 3;

/// Now, in ticks.
#[inline(always)]
fn now() -> u32 {
    // SAFETY: plain helper, for which the kernel puts in a single load.
    (unsafe { bpf_jiffies64() } >> WARM_TICK) as u32
}

#[inline(always)]
fn processor() -> u32 {
    // SAFETY: plain helper.
    unsafe { bpf_get_smp_processor_id() }
}

/// Spreads flows over buckets. Who finds flows of one bucket gains nothing but the long way for them.
#[inline(always)]
fn hash(flow: &WarmFlow) -> u32 {
    let addresses = u64::from(flow.source) << 32 | u64::from(flow.destination);
    let rest = u64::from(flow.ports) << 8 | u64::from(flow.protocol);
    let mixed = addresses.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ rest.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0x9fb2_1c65_1e98_df25) >> 32) as u32
}

/// The bucket of a flow in this processor's part.
#[inline(always)]
fn bucket(flow: &WarmFlow) -> Option<&'static mut WarmBucket> {
    // SAFETY: a constant, which the loader may have replaced: volatile, so that it is not taken for what it was.
    let size = unsafe { core::ptr::read_volatile(&raw const WARM_BUCKETS) };
    if size == 0 {
        return None;
    }
    let place = WARM.get_ptr_mut(processor().wrapping_mul(size).wrapping_add(hash(flow) & (size - 1)))?;
    // SAFETY: a place of an array that lives as long as the program; nobody else uses this processor's part while it runs.
    Some(unsafe { &mut *place })
}

#[inline(always)]
fn is_same(at: &WarmFlow, flow: &WarmFlow) -> bool {
    at.ports == flow.ports
        && at.source == flow.source
        && at.destination == flow.destination
        && at.protocol == flow.protocol
}

/// What becomes of a flow, if it is known.
#[inline(always)]
pub(crate) fn get(flow: &WarmFlow) -> Option<(&'static WarmFlow, &'static Hop)> {
    let bucket = bucket(flow)?;
    let found = if is_same(&bucket.flows[0], flow) {
        &bucket.flows[0]
    } else if is_same(&bucket.flows[1], flow) {
        &bucket.flows[1]
    } else {
        return None;
    };
    if now().wrapping_sub(found.stamp) > 1 {
        return None;
    }
    Some((found, hop(u32::from(found.hop))?))
}

/// Forgets a flow.
#[inline(always)]
pub(crate) fn remove(flow: &WarmFlow) {
    let Some(bucket) = bucket(flow) else { return };
    if is_same(&bucket.flows[0], flow) {
        bucket.flows[0].protocol = 0;
    }
    if is_same(&bucket.flows[1], flow) {
        bucket.flows[1].protocol = 0;
    }
}

/// Remembers what becomes of a flow, in place of whichever of its bucket came earlier.
#[inline(always)]
pub(crate) fn put(flow: &WarmFlow, next: &Hop) {
    let now = now();
    let Some(place) = keep(next, now) else { return };
    let Some(bucket) = bucket(flow) else { return };
    if !is_same(&bucket.flows[0], flow) {
        bucket.flows[1] = bucket.flows[0];
    }
    bucket.flows[0] = WarmFlow { stamp: now, hop: place as u16, ..*flow };
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
