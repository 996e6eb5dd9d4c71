//! Reading the tables of Services: which Service a destination is, and the backends in its extents.
//!
//! Must not know: the program type, how a backend is chosen.
//!
//! A Service's value is looked up twice and must agree: the kernel gives the memory of a deleted hash element to the next
//! insertion at once, so a value may change under the reader's eyes. What its extents name is complete before the value is
//! written, and left alone for a while after.

use pagurus_ebpf_abi::{
    Address, Backend, Extent, NODE_ADDRESS_LOCAL, NODE_ADDRESS_NODE_PORTS, Port, SERVICE_DSR,
    SERVICE_OUTSIDE_LOCAL, ServiceKey, ServiceValue,
};

use crate::maps::{BACKENDS, NODES, SERVICES, SLOTS, config};

/// Steps of a binary search: enough for 65,536 backends.
const STEPS: u32 = 17;

/// Copies the value of exactly this key. False: there is none. It goes where the caller wants it, because there is little room on a stack.
#[inline(always)]
fn value(key: &ServiceKey, into: &mut ServiceValue) -> bool {
    let Some(services) = SERVICES.get(0) else { return false };
    // SAFETY: the value is copied at once and must be the same when it is looked up again.
    let Some(first) = (unsafe { services.get(key) }) else { return false };
    *into = *first;
    // SAFETY: as above.
    let Some(again) = (unsafe { services.get(key) }) else { return false };
    if *into == *again {
        return true;
    }
    // It was replaced between the two; hardly a second time at once.
    *into = *again;
    // SAFETY: as above.
    unsafe { services.get(key) }.is_some_and(|third| *into == *third)
}

/// The Service of a destination: by its own address, or as a NodePort of a node, as this node's pods and this node see it.
#[inline(always)]
pub(crate) fn service(key: &ServiceKey, into: &mut ServiceValue) -> bool {
    // Another node's own endpoints are for that node to choose from.
    service_if(key, into, |found| found.flags & SERVICE_OUTSIDE_LOCAL == 0)
}

/// The Service of a destination as packets from outside see it: another node's NodePort is ours only if that node has handed the
/// packet on to us (direct server return).
#[inline(always)]
pub(crate) fn service_outside(key: &ServiceKey, into: &mut ServiceValue) -> bool {
    service_if(key, into, |found| found.flags & (SERVICE_OUTSIDE_LOCAL | SERVICE_DSR) == SERVICE_DSR)
}

/// As above; `foreign` says whether another node's NodePort is for us.
#[inline(always)]
fn service_if(key: &ServiceKey, into: &mut ServiceValue, foreign: impl Fn(&ServiceValue) -> bool) -> bool {
    if value(key, into) {
        return true;
    }
    let Some(config) = config() else { return false };
    let number = key.port.number();
    if number < config.node_port_first || number > config.node_port_last {
        return false;
    }
    // SAFETY: one word, copied at once.
    let Some(flags) = (unsafe { NODES.get(key.address) }).copied() else { return false };
    if flags & NODE_ADDRESS_NODE_PORTS == 0 {
        return false;
    }
    let address = if key.address.is_v4() { Address::ANY_V4 } else { Address::ANY_V6 };
    value(&ServiceKey { address, ..*key }, into) && (flags & NODE_ADDRESS_LOCAL != 0 || foreign(into))
}

/// Whether the low half of the generation of a destination's Service is this one; "no" is always allowed. One word is read, and what may
/// be wrong with it under the reader's eyes makes it another number.
#[inline(always)]
pub(crate) fn is_of_generation(key: &ServiceKey, half: u16) -> bool {
    let Some(services) = SERVICES.get(0) else { return false };
    // SAFETY: one word, copied at once.
    let is_same =
        |key: &ServiceKey| unsafe { services.get(key) }.map(|found| found.generation as u16 == half);
    is_same(key).unwrap_or_else(|| {
        let address = if key.address.is_v4() { Address::ANY_V4 } else { Address::ANY_V6 };
        is_same(&ServiceKey { address, ..*key }).unwrap_or(false)
    })
}

/// The backend's id in a place of an extent.
#[inline(always)]
pub(crate) fn id_at(extent: &Extent, place: u32) -> Option<u32> {
    SLOTS.get(0)?.get(extent.first.wrapping_add(place)).copied()
}

/// A backend by its id.
#[inline(always)]
pub(crate) fn backend(id: u32) -> Option<&'static Backend> {
    BACKENDS.get(0)?.get(id).filter(|backend| backend.protocol != 0)
}

/// What is known of an address of a node: `NODE_ADDRESS_*`; 0 if it is none.
#[inline(always)]
pub(crate) fn node_address(address: &Address) -> u32 {
    // SAFETY: one word, copied at once.
    unsafe { NODES.get(address) }.copied().unwrap_or(0)
}

/// Whether an address is that of a node.
#[inline(always)]
pub(crate) fn is_node(address: &Address) -> bool {
    NODES.get_ptr(address).is_some()
}

/// The backend in a place of an extent, with its id. Where it lies: a copy takes room on the stack, and its place is not given to
/// another one while packets may still read of it.
#[inline(always)]
pub(crate) fn backend_at(extent: &Extent, place: u32) -> Option<(u32, &'static Backend)> {
    let id = id_at(extent, place)?;
    Some((id, backend(id)?))
}

/// Whether a backend comes before this address and port, as backends are ordered in extents.
#[inline(always)]
fn is_before(backend: &Backend, address: &Address, port: u16) -> bool {
    let mut index = 0;
    while index < 4 {
        let (left, right) = (u32::from_be(backend.address.words[index]), u32::from_be(address.words[index]));
        if left != right {
            return left < right;
        }
        index += 1;
    }
    backend.port.number() < port
}

/// A zero that the verifier does not know to be one ([`NodeConfig::zero`](pagurus_ebpf_abi::NodeConfig::zero)).
#[inline(always)]
pub(crate) fn unknown_zero() -> u32 {
    // SAFETY: a field of a place in an array that lives as long as the program; volatile, so that it is not taken for a constant.
    config().map_or(0, |config| unsafe { core::ptr::read_volatile(&raw const config.zero) })
}

/// The first backend of an extent that has this address, with its id.
#[inline(always)]
pub(crate) fn find(extent: &Extent, address: &Address) -> Option<(u32, &'static Backend)> {
    first(extent, address, 0).filter(|(_, backend)| backend.address == *address)
}

/// Whether an extent has a backend at this address and port.
#[inline(always)]
pub(crate) fn contains(extent: &Extent, address: &Address, port: Port) -> bool {
    first(extent, address, port.number())
        .is_some_and(|(_, backend)| backend.address == *address && backend.port.0 == port.0)
}

/// The first backend of an extent that does not come before this address and port, with its id.
#[inline(always)]
fn first(extent: &Extent, address: &Address, port: u16) -> Option<(u32, &'static Backend)> {
    let zero = unknown_zero();
    let (mut low, mut high) = (0u32, extent.count);
    for _ in 0..STEPS {
        low ^= zero;
        high ^= zero;
        if low >= high {
            break;
        }
        let middle = (low + high) / 2;
        let at = backend(id_at(extent, middle)?)?;
        if is_before(at, address, port) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low >= extent.count {
        return None;
    }
    backend_at(extent, low)
}
