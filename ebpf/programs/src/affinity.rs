//! Clients that stay with their endpoint (`sessionAffinity: ClientIP`).
//!
//! Must not know: the program type, how a backend is chosen where there is no such wish.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use pagurus_ebpf_abi::{
    Address, Backend, COUNTER_TABLE_FULL, ClientKey, ClientValue, Extent, SERVICE_AFFINITY, ServiceValue,
};

use crate::maps::{CLIENTS, count};
use crate::table;

const NANOSECONDS: u64 = 1_000_000_000;

#[inline(always)]
fn key(service: &ServiceValue, client: &Address) -> ClientKey {
    ClientKey { client: *client, service: service.service, reserved: 0 }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: plain helper.
    unsafe { bpf_ktime_get_ns() }
}

/// The backend of the endpoint that this client had last, with its id, if it is in the extent still and the Service wants that. The
/// time begins anew.
#[inline(always)]
pub(crate) fn last(
    service: &ServiceValue,
    extent: &Extent,
    client: &Address,
) -> Option<(u32, &'static Backend)> {
    if service.flags & SERVICE_AFFINITY == 0 {
        return None;
    }
    // SAFETY: its memory may become another client's meanwhile: an endpoint that is none of this Service's is not found below.
    let last = unsafe { CLIENTS.get(key(service, client)) }?;
    if now().wrapping_sub(last.last) > u64::from(service.affinity_seconds) * NANOSECONDS {
        return None;
    }
    let found = table::find(extent, &last.address)?;
    note(service, client, &last.address);
    Some(found)
}

/// Notes the endpoint that this client was given, if the Service wants that.
#[inline(always)]
pub(crate) fn note(service: &ServiceValue, client: &Address, endpoint: &Address) {
    if service.flags & SERVICE_AFFINITY == 0 {
        return;
    }
    let value = ClientValue { last: now(), address: *endpoint };
    if CLIENTS.insert(key(service, client), value, 0).is_err() {
        count(COUNTER_TABLE_FULL);
    }
}
