//! All maps. Capacities here are only defaults: the loader sets them from its configuration.
//!
//! Must not know: what the programs do with them.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use pagurus_ebpf_abi::{
    Address, Backend, COUNTERS as COUNTERS_LEN, ClientKey, ClientValue, FlowKey, FlowValue, NodeConfig,
    ReverseKey, ReverseValue, ServiceKey, ServiceValue,
};

/// Entries are allocated as they come.
const SPARSE: usize = BPF_F_NO_PREALLOC as usize;
/// User space writes through memory, and puts in larger ones.
const SHARED: usize = (BPF_F_MMAPABLE | BPF_F_INNER_MAP) as usize;

/// What clients connect to.
#[btf_map]
pub(crate) static SERVICES: ArrayOfMaps<HashMap<ServiceKey, ServiceValue, 1024, SPARSE>, 1> =
    ArrayOfMaps::new();

/// The backends' ids of all Services.
#[btf_map]
pub(crate) static SLOTS: ArrayOfMaps<Array<u32, 1024, SHARED>, 1> = ArrayOfMaps::new();

/// Backends by id.
#[btf_map]
pub(crate) static BACKENDS: ArrayOfMaps<Array<Backend, 1024, SHARED>, 1> = ArrayOfMaps::new();

/// Addresses of every node: where NodePorts are reached.
#[btf_map]
pub(crate) static NODES: HashMap<Address, u32, 16384, SPARSE> = HashMap::new();

/// What a socket believes its peer to be.
#[btf_map]
pub(crate) static REVERSE: LruHashMap<ReverseKey, ReverseValue, 65536> = LruHashMap::new();

/// Which backend the datagrams of an unconnected socket go to.
#[btf_map]
pub(crate) static FLOWS: LruHashMap<FlowKey, FlowValue, 16384> = LruHashMap::new();

/// Which endpoint a client stays with, for Services that want that.
#[btf_map]
pub(crate) static CLIENTS: LruHashMap<ClientKey, ClientValue, 16384> = LruHashMap::new();

/// What the programs must know of their node.
#[btf_map]
pub(crate) static CONFIG: Array<NodeConfig, 1> = Array::new();

/// Counters.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { COUNTERS_LEN as usize }> = PerCpuArray::new();

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(counter: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: the pointer is into this CPU's copy of an array that lives as long as the program.
        unsafe { *value += 1 };
    }
}

/// What the programs must know of their node.
#[inline(always)]
pub(crate) fn config() -> Option<&'static NodeConfig> {
    CONFIG.get(0)
}
