//! Clients that stay with their backend (`sessionAffinity: ClientIP`).
//!
//! Must not know: the program type, how a backend is chosen where there is no such wish.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use pagurus_ebpf_abi::{COUNTER_TABLE_FULL, ClientKey, ClientValue, SERVICE_AFFINITY, ServiceValue, SlotKey};

use crate::maps::{CLIENTS, SLOTS, count};

/// How many slots are searched for a backend that has left its own: the last one moves when another leaves.
const SEARCH: u32 = 32;
const NANOSECONDS: u64 = 1_000_000_000;

#[inline(always)]
fn wanted(service: &ServiceValue) -> bool {
    service.flags & SERVICE_AFFINITY != 0
}

#[inline(always)]
fn key(service: &ServiceValue, client: u64) -> ClientKey {
    ClientKey { client, service: service.id, reserved: 0 }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: plain helper.
    unsafe { bpf_ktime_get_ns() }
}

/// The backend's id in a slot.
#[inline(always)]
fn held(service: &ServiceValue, slot: u32) -> Option<u32> {
    // SAFETY: the value is copied at once, and checked when the slot is used.
    unsafe { SLOTS.get(SlotKey { service: service.id, slot }) }.copied()
}

/// The slot of the backend that this client had last, if it is there still and the Service wants that.
#[inline(always)]
pub(crate) fn slot(service: &ServiceValue, client: u64) -> Option<u32> {
    if !wanted(service) {
        return None;
    }
    let key = key(service, client);
    // SAFETY: the value is copied at once.
    let last = unsafe { CLIENTS.get(key) }.copied()?;
    let age = now().wrapping_sub(last.last);
    if age > u64::from(service.affinity_seconds) * NANOSECONDS {
        return None;
    }
    if let Some(slot) = still_there(service, &last) {
        return Some(slot);
    }
    search(service, &key, &last);
    // Read back, and not answered by the search: a slot that the verifier knows nothing of lets it see what follows once,
    // and not once for each slot that could be found.
    // SAFETY: the value is copied at once.
    let found = unsafe { CLIENTS.get(key) }.copied()?;
    still_there(service, &found)
}

#[inline(always)]
fn still_there(service: &ServiceValue, last: &ClientValue) -> Option<u32> {
    (last.slot < service.count && held(service, last.slot) == Some(last.backend)).then_some(last.slot)
}

/// Looks where the backend is now, and notes that.
#[inline(always)]
fn search(service: &ServiceValue, key: &ClientKey, last: &ClientValue) {
    for slot in 0..SEARCH {
        if slot >= service.count {
            return;
        }
        if held(service, slot) == Some(last.backend) {
            let value = ClientValue { slot, ..*last };
            if CLIENTS.insert(key, &value, 0).is_err() {
                count(COUNTER_TABLE_FULL);
            }
            return;
        }
    }
}

/// Notes the backend that this client was given, if the Service wants that.
#[inline(always)]
pub(crate) fn note(service: &ServiceValue, client: u64, slot: u32, backend: u32) {
    if !wanted(service) {
        return;
    }
    let value = ClientValue { last: now(), backend, slot };
    if CLIENTS.insert(&key(service, client), &value, 0).is_err() {
        count(COUNTER_TABLE_FULL);
    }
}
