//! Choosing a backend for a packet.
//!
//! Must not know: how the packet gets there.

use core::arch::asm;

use aya_ebpf::{btf_maps::lpm_trie::Key, helpers::bpf_get_prandom_u32};
use pagurus_ebpf_abi::{
    Backend, DROP_NO_ENDPOINT, DROP_NO_LOCAL_ENDPOINT, DROP_SOURCE_RANGE, Extent, FlowTuple,
    SERVICE_AFFINITY, SERVICE_DSR, SERVICE_HAS_ENDPOINTS, SERVICE_INSIDE_LOCAL, SERVICE_OUTSIDE_LOCAL,
    SERVICE_RANDOM, SERVICE_SOURCE_RANGES, ServiceKey, ServiceStats, SourceRange, client_hash, flow_hash,
    place,
};

use crate::{
    affinity,
    maps::{BACKEND_STATS, SERVICE_STATS, SOURCE_RANGES},
    table,
    work::{Work, work},
};

/// Whose packet it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// A pod's of this node, or the node's own.
    Inside,
    /// Anybody else's.
    Outside,
}

/// Who answers for a Service, as a number, because functions that the verifier checks on their own return numbers: one of
/// these, or the reason `DROP_*` why the packet is not for the Service.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice(pub(crate) u32);

impl Choice {
    /// The backend is in `work.backend` and `work.id`.
    pub(crate) const BACKEND: Self = Self(2 << 8);
    /// Nobody answers for the Service.
    pub(crate) const REFUSE: Self = Self(3 << 8);
}

/// What a flow asks for.
#[inline(always)]
fn key(tuple: &FlowTuple) -> ServiceKey {
    ServiceKey {
        address: tuple.destination,
        port: tuple.destination_port,
        protocol: tuple.protocol,
        reserved: 0,
    }
}

/// Finds the Service of `work.tuple`, for `work.service`. False: there is none.
#[inline(always)]
pub(crate) fn find(side: Side) -> bool {
    let Some(work) = work() else { return false };
    let key = key(&work.tuple);
    match side {
        Side::Inside => table::service(&key, &mut work.service),
        Side::Outside => table::service_outside(&key, &mut work.service),
    }
}

/// Whether the Service of `work.tuple` is as it was when it was last compared with `work.state`; "no" is always allowed.
#[inline(always)]
pub(crate) fn is_unchanged() -> bool {
    work().is_some_and(|work| table::is_of_generation(&key(&work.tuple), work.state.generation()))
}

/// Whether `work.service` is the one of `work.state` and still gives this client its backend: `work.state` then says that they were
/// compared.
#[inline(always)]
pub(crate) fn keeps(side: Side) -> bool {
    let Some(work) = work() else { return false };
    if work.service.service != work.state.service
        || (work.service.flags & SERVICE_SOURCE_RANGES != 0 && !is_in_ranges(work))
    {
        return false;
    }
    let extent = match side {
        Side::Inside => work.service.inside,
        Side::Outside => work.service.outside,
    };
    if !table::contains(&extent, &work.state.destination, work.state.destination_port) {
        return false;
    }
    work.state.set_generation(work.service.generation);
    true
}

/// Whether the nodes of a Service's backends answer clients outside themselves. Only where every node chooses alike.
#[inline(always)]
pub(crate) fn hands_on(flags: u32) -> bool {
    flags & SERVICE_DSR != 0 && flags & (SERVICE_RANDOM | SERVICE_AFFINITY) != SERVICE_RANDOM
}

/// Chooses a backend of `work.service`.
#[inline(always)]
pub(crate) fn choose(side: Side) -> Choice {
    let Some(work) = work() else { return Choice::REFUSE };
    let service = &work.service;
    let flags = service.flags;
    if flags & SERVICE_SOURCE_RANGES != 0 && !is_in_ranges(work) {
        return Choice(DROP_SOURCE_RANGE);
    }
    let (extent, local) = match side {
        Side::Inside => (service.inside, SERVICE_INSIDE_LOCAL),
        // A cluster IP has one policy for everybody.
        Side::Outside => (service.outside, SERVICE_OUTSIDE_LOCAL | SERVICE_INSIDE_LOCAL),
    };
    if extent.count == 0 {
        return if flags & local != 0 && flags & SERVICE_HAS_ENDPOINTS != 0 {
            Choice(DROP_NO_LOCAL_ENDPOINT)
        } else {
            Choice::REFUSE
        };
    }
    let client = work.tuple.source;
    // Behind direct server return each node chooses for itself, and what one of them remembers the others do not know.
    let remembers = !hands_on(flags) || side == Side::Inside;
    if remembers && let Some((id, backend)) = affinity::last(&work.service, &extent, &client) {
        work.id = id;
        work.backend = *backend;
        return Choice::BACKEND;
    }
    let is_random = flags & (SERVICE_RANDOM | SERVICE_AFFINITY) == SERVICE_RANDOM;
    let hash = if flags & SERVICE_AFFINITY != 0 {
        client_hash(&client)
    } else if is_random && side == Side::Outside {
        // SAFETY: plain helper.
        unsafe { bpf_get_prandom_u32() }
    } else {
        flow_hash(&work.tuple)
    };
    let table = if side == Side::Outside && !is_random && work.service.maglev.count != 0 {
        work.service.maglev
    } else {
        extent
    };
    let Some((id, backend)) = at(&table, hash) else { return Choice::REFUSE };
    work.id = id;
    work.backend = *backend;
    if remembers {
        affinity::note(&work.service, &client, &backend.address);
    }
    Choice::BACKEND
}

#[inline(always)]
fn at(extent: &Extent, hash: u32) -> Option<(u32, &'static Backend)> {
    table::backend_at(extent, place(hash, extent.count))
}

/// Whether the packet's source may use the Service.
#[inline(always)]
fn is_in_ranges(work: &Work) -> bool {
    let range = SourceRange { service: work.service.service.to_be(), address: work.tuple.source };
    SOURCE_RANGES.get(&Key::new(u32::BITS + 128, range)).is_some()
}

/// This Service's counts.
#[inline(always)]
fn stats(service: u32) -> Option<*mut ServiceStats> {
    SERVICE_STATS.get_value_ptr_mut(0, &service)
}

/// Adds one to a counter that other CPUs add to.
#[inline(always)]
fn increase(counter: *mut u64) {
    // SAFETY: the counter is a word of an array that lives as long as the program. The library has no atomic addition for BPF; the
    // instruction set has.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1u64, options(nostack)) };
}

/// Counts a new flow of `work.service` to `work.id`.
#[inline(always)]
pub(crate) fn count(work: &Work) {
    if let Some(stats) = stats(work.service.service) {
        // SAFETY: a field of a place in an array that lives as long as the program.
        increase(unsafe { &raw mut (*stats).connections });
    }
    if let Some(connections) = BACKEND_STATS.get_value_ptr_mut(0, &work.id) {
        increase(connections);
    }
}

/// Counts a packet for `work.service` that is refused or dropped for one of the reasons that a choice has.
#[inline(always)]
pub(crate) fn count_rejected(work: &Work, reason: u32) {
    let is_refused = reason == DROP_NO_ENDPOINT;
    if !is_refused && reason != DROP_SOURCE_RANGE && reason != DROP_NO_LOCAL_ENDPOINT {
        return;
    }
    if let Some(stats) = stats(work.service.service) {
        // SAFETY: as above.
        increase(unsafe { if is_refused { &raw mut (*stats).refused } else { &raw mut (*stats).dropped } });
    }
}
