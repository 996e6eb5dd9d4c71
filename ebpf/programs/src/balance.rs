//! Finding a backend for a destination.
//!
//! Must not know: the program type; it sees only keys and maps.
//!
//! Every look-up chain is done twice and must agree: the kernel gives the memory of a deleted hash element to the
//! next insertion at once, so a value may change under the reader's eyes. The second pass finds the lines in cache.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use pagurus_ebpf_abi::{
    Address, Backend, COUNTER_RETRY, COUNTER_TABLE_FULL, FlowKey, FlowValue, ServiceKey, ServiceValue,
    SlotKey,
};

use crate::affinity;
use crate::maps::{BACKENDS, FLOWS, NODES, SERVICES, SLOTS, count, is_node_port};

/// How often a look-up disturbed by a change is done again.
const ATTEMPTS: u32 = 4;

/// Where a destination leads.
pub(crate) enum Route {
    /// It is no Service.
    Elsewhere,
    /// It is a Service without endpoints.
    Nowhere,
    /// It is a Service: its id and the chosen backend.
    To(u32, Backend),
}

/// The Service of a key: by its own address, or as a NodePort of any node.
#[inline(always)]
fn service(key: &ServiceKey) -> Option<ServiceValue> {
    // SAFETY: the value is copied at once and checked by a second look-up.
    if let Some(value) = unsafe { SERVICES.get(key) } {
        return Some(*value);
    }
    if !is_node_port(key.port.number()) || NODES.get_ptr(&key.address).is_none() {
        return None;
    }
    let address = if key.address.is_v4() { Address::ANY_V4 } else { Address::ANY_V6 };
    let any = ServiceKey { address, ..*key };
    // SAFETY: as above.
    unsafe { SERVICES.get(&any) }.copied()
}

/// One look-up chain from a service to the backend in a slot.
#[inline(always)]
fn backend(service: u32, slot: u32) -> Option<(u32, Backend)> {
    // SAFETY: both values are copied at once and checked by a second look-up.
    unsafe {
        let id = *SLOTS.get(SlotKey { service, slot })?;
        let backend = *BACKENDS.get(id)?;
        Some((id, backend))
    }
}

/// A random number below `count`, without division.
#[inline(always)]
fn random_below(count: u32) -> u32 {
    // SAFETY: plain helper.
    let random = unsafe { bpf_get_prandom_u32() };
    ((u64::from(random) * u64::from(count)) >> 32) as u32
}

/// The slot for a client that is to be given a backend: that of its last one if the Service wants that, or any. Asked only
/// at the first attempt: each more would have the verifier walk through the search once more.
#[inline(always)]
fn any_slot(service: &ServiceValue, client: u64, attempt: u32) -> u32 {
    let last = if attempt == 0 { affinity::slot(service, client) } else { None };
    last.unwrap_or_else(|| random_below(service.count))
}

/// Chooses a backend anew for each call.
#[inline(always)]
pub(crate) fn pick(key: &ServiceKey, client: u64) -> Route {
    for attempt in 0..ATTEMPTS {
        let Some(first) = service(key) else { return Route::Elsewhere };
        if first.count == 0 {
            return Route::Nowhere;
        }
        let slot = any_slot(&first, client, attempt);
        if let Some((id, backend)) = settled(key, &first, slot) {
            affinity::note(&first, client, slot, id);
            return Route::To(first.id, backend);
        }
        count(COUNTER_RETRY);
    }
    Route::Nowhere
}

/// Chooses a backend once for a socket and Service, and again when that backend has left.
#[inline(always)]
pub(crate) fn stay(key: &ServiceKey, cookie: u64, client: u64) -> Route {
    let flow = FlowKey { cookie, address: key.address, port: key.port, reserved: [0; 3] };
    // SAFETY: the value is copied at once and checked against the slot.
    let mut known = unsafe { FLOWS.get(&flow) }.copied();
    for attempt in 0..ATTEMPTS {
        let Some(first) = service(key) else { return Route::Elsewhere };
        if first.count == 0 {
            return Route::Nowhere;
        }
        let kept = known.take().filter(|known| known.service == first.id && known.slot < first.count);
        let slot = match kept {
            Some(known) => known.slot,
            None => any_slot(&first, client, attempt),
        };
        if let Some((id, backend)) = settled(key, &first, slot)
            && kept.is_none_or(|known| known.backend == id)
        {
            if kept.is_none() {
                affinity::note(&first, client, slot, id);
                let value = FlowValue { service: first.id, slot, backend: id, reserved: 0 };
                if FLOWS.insert(&flow, &value, 0).is_err() {
                    count(COUNTER_TABLE_FULL);
                }
            }
            return Route::To(first.id, backend);
        }
        count(COUNTER_RETRY);
    }
    Route::Nowhere
}

/// The backend in a slot, if two look-ups of the whole chain agree.
#[inline(always)]
fn settled(key: &ServiceKey, first: &ServiceValue, slot: u32) -> Option<(u32, Backend)> {
    let found = backend(first.id, slot)?;
    let again = service(key)?;
    if again != *first || backend(first.id, slot)? != found {
        return None;
    }
    Some(found)
}
