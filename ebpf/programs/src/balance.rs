//! Choosing a backend for a socket.
//!
//! Must not know: the program type; it sees only keys and maps.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use pagurus_ebpf_abi::{
    Address, Backend, COUNTER_TABLE_FULL, Extent, FlowKey, FlowValue, SERVICE_SOURCE_RANGES, ServiceKey,
    ServiceValue, place,
};

use crate::affinity;
use crate::maps::{FLOWS, count};
use crate::table;

/// Where a destination leads.
pub(crate) enum Route {
    /// It is no Service, or one that is decided on where the client's address is known.
    Elsewhere,
    /// It is a Service without endpoints.
    Nowhere,
    /// It is a Service: its number and the chosen backend.
    To(u32, Backend),
}

/// The Service that a destination is, if it is decided on here.
#[inline(always)]
fn service_of(key: &ServiceKey) -> Option<ServiceValue> {
    let none = Extent { first: 0, count: 0 };
    let mut service = ServiceValue {
        service: 0,
        flags: 0,
        affinity_seconds: 0,
        generation: 0,
        inside: none,
        outside: none,
        maglev: none,
    };
    (table::service(key, &mut service) && service.flags & SERVICE_SOURCE_RANGES == 0).then_some(service)
}

/// Any of a Service's backends.
#[inline(always)]
fn any(service: &ServiceValue) -> Option<(u32, &'static Backend)> {
    // SAFETY: plain helper.
    let random = unsafe { bpf_get_prandom_u32() };
    table::backend_at(&service.inside, place(random, service.inside.count))
}

/// The backend for a client that asks anew: that of its last one if the Service wants that, or any.
#[inline(always)]
fn choose(service: &ServiceValue, client: &Address) -> Option<Backend> {
    if let Some((_, backend)) = affinity::last(service, &service.inside, client) {
        return Some(*backend);
    }
    let (_, backend) = any(service)?;
    affinity::note(service, client, &backend.address);
    Some(*backend)
}

/// Chooses a backend anew for each call.
#[inline(always)]
pub(crate) fn pick(key: &ServiceKey, client: &Address) -> Route {
    let Some(service) = service_of(key) else {
        return Route::Elsewhere;
    };
    if service.inside.count == 0 {
        return Route::Nowhere;
    }
    choose(&service, client).map_or(Route::Nowhere, |backend| Route::To(service.service, backend))
}

/// Chooses a backend once for a socket and Service, and again when that backend has left.
#[inline(always)]
pub(crate) fn stay(key: &ServiceKey, cookie: u64, client: &Address) -> Route {
    let Some(service) = service_of(key) else {
        return Route::Elsewhere;
    };
    if service.inside.count == 0 {
        return Route::Nowhere;
    }
    let flow = FlowKey { cookie, address: key.address, port: key.port, reserved: [0; 3] };
    // SAFETY: the value is copied at once.
    let known = unsafe { FLOWS.get(flow) }.copied().filter(|known| known.service == service.service);
    let backend = match known {
        Some(known) if known.generation == service.generation => Some(Backend {
            address: known.address,
            port: known.port,
            protocol: key.protocol,
            reserved: 0,
            flags: 0,
        }),
        Some(known) => table::find(&service.inside, &known.address).map(|(_, backend)| *backend),
        None => None,
    };
    let is_news = known.is_none_or(|known| known.generation != service.generation);
    let Some(backend) = backend.or_else(|| choose(&service, client)) else { return Route::Nowhere };
    if is_news {
        let value = FlowValue {
            service: service.service,
            generation: service.generation,
            address: backend.address,
            port: backend.port,
            reserved: [0; 3],
        };
        if FLOWS.insert(flow, value, 0).is_err() {
            count(COUNTER_TABLE_FULL);
        }
    }
    Route::To(service.service, backend)
}
