//! All maps and read-only globals. Capacities here are only defaults: the loader sets them from its configuration.
//!
//! Must not know: what the programs do with them.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray},
};
use pagurus_ebpf_abi::{
    Address, Backend, COUNTERS as COUNTERS_LEN, ClientKey, ClientValue, FlowKey, FlowValue, ReverseKey,
    ReverseValue, ServiceKey, ServiceValue, SlotKey,
};

/// What clients connect to.
#[map]
pub(crate) static SERVICES: HashMap<ServiceKey, ServiceValue> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Backend id of each slot of each service.
#[map]
pub(crate) static SLOTS: HashMap<SlotKey, u32> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// Backends by id.
#[map]
pub(crate) static BACKENDS: HashMap<u32, Backend> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// Addresses of every node: where NodePorts are reached.
#[map]
pub(crate) static NODES: HashMap<Address, u32> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// What a socket believes its peer to be.
#[map]
pub(crate) static REVERSE: LruHashMap<ReverseKey, ReverseValue> = LruHashMap::with_max_entries(65_536, 0);

/// Which backend the datagrams of an unconnected socket go to.
#[map]
pub(crate) static FLOWS: LruHashMap<FlowKey, FlowValue> = LruHashMap::with_max_entries(65_536, 0);

/// Which backend a client stays with, for Services that want that.
#[map]
pub(crate) static CLIENTS: LruHashMap<ClientKey, ClientValue> = LruHashMap::with_max_entries(16_384, 0);

/// Counters.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS_LEN, 0);

/// First port of the NodePort range; set at load.
#[unsafe(no_mangle)]
pub(crate) static NODE_PORT_FIRST: u16 = 30_000;

/// Last port of the NodePort range; set at load.
#[unsafe(no_mangle)]
pub(crate) static NODE_PORT_LAST: u16 = 32_767;

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(counter: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: the pointer is into this CPU's copy of an array that lives as long as the program.
        unsafe { *value += 1 };
    }
}

/// Whether this port number (host byte order) can be a NodePort.
#[inline(always)]
pub(crate) fn is_node_port(number: u16) -> bool {
    // SAFETY: both are plain statics of this object; volatile because the loader replaces their values.
    let (first, last) = unsafe {
        (
            core::ptr::read_volatile(&raw const NODE_PORT_FIRST),
            core::ptr::read_volatile(&raw const NODE_PORT_LAST),
        )
    };
    first <= number && number <= last
}
