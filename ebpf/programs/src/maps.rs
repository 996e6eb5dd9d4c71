//! All maps. Capacities here are only defaults: the loader sets them from its configuration.
//!
//! Must not know: what the programs do with them.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use pagurus_ebpf_abi::{
    Address, Announced, AnnouncedKey, Backend, COUNTERS as COUNTERS_LEN, ClientKey, ClientValue,
    DROP_REASONS, DropEvent, Endpoint, FlowKey, FlowState, FlowTuple, FlowValue, FragmentKey, FragmentValue,
    HOPS_PER_CPU, Hop, NodeConfig, ReverseKey, ReverseValue, ServiceKey, ServiceStats, ServiceValue,
    SourceRange, WarmBucket,
};

use crate::packet::{icmp::Quoted, reject::Answer};
use crate::work::Work;

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

/// Connections by backend.
#[btf_map]
pub(crate) static BACKEND_STATS: ArrayOfMaps<Array<u64, 1024, SHARED>, 1> = ArrayOfMaps::new();

/// Connections by Service.
#[btf_map]
pub(crate) static SERVICE_STATS: ArrayOfMaps<Array<ServiceStats, 1024, SHARED>, 1> = ArrayOfMaps::new();

/// Translated flows of packets; place 1 is the table before it grew, while it is being copied.
#[btf_map]
pub(crate) static CONNTRACK: ArrayOfMaps<HashMap<FlowTuple, FlowState, 1024, SPARSE>, 2> = ArrayOfMaps::new();

/// Who may use frontends that are not for everybody.
#[btf_map]
pub(crate) static SOURCE_RANGES: LpmTrie<SourceRange, u32, 65536> = LpmTrie::new();

/// Addresses of every node: where NodePorts are reached.
#[btf_map]
pub(crate) static NODES: HashMap<Address, u32, 16384, SPARSE> = HashMap::new();

/// The pods of this node.
#[btf_map]
pub(crate) static ENDPOINTS: HashMap<Address, Endpoint, 4096, SPARSE> = HashMap::new();

/// Addresses for which this node answers ARP and neighbour solicitations.
#[btf_map]
pub(crate) static ANNOUNCED: HashMap<AnnouncedKey, Announced, 65536, SPARSE> = HashMap::new();

/// What a socket believes its peer to be.
#[btf_map]
pub(crate) static REVERSE: LruHashMap<ReverseKey, ReverseValue, 65536> = LruHashMap::new();

/// Which backend the datagrams of an unconnected socket go to.
#[btf_map]
pub(crate) static FLOWS: LruHashMap<FlowKey, FlowValue, 16384> = LruHashMap::new();

/// Which endpoint a client stays with, for Services that want that.
#[btf_map]
pub(crate) static CLIENTS: LruHashMap<ClientKey, ClientValue, 16384> = LruHashMap::new();

/// The ports of datagrams that come in fragments.
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue, 8192> = LruHashMap::new();

/// Flows seen a moment ago, for each CPU its own. Memory that may be shared begins at a page: no bucket lies in two cache lines.
#[btf_map]
pub(crate) static WARM: Array<WarmBucket, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Next hops of those.
#[btf_map]
pub(crate) static HOPS: Array<Hop, { HOPS_PER_CPU as usize }> = Array::new();

/// How often user space has taken something back that packets were sent by.
#[btf_map]
pub(crate) static TAKEN_BACK: Array<u32, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// What the programs must know of their node.
#[btf_map]
pub(crate) static CONFIG: Array<NodeConfig, 1> = Array::new();

/// Counters.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { COUNTERS_LEN as usize }> = PerCpuArray::new();

/// Dropped and refused packets by reason.
#[btf_map]
pub(crate) static DROPS: PerCpuArray<u64, { DROP_REASONS as usize }> = PerCpuArray::new();

/// Dropped and refused packets, one by one.
#[btf_map]
pub(crate) static EVENTS: RingBuf<DropEvent, 65536> = RingBuf::new();

/// Memory of a packet program while it runs (`work.rs`).
#[btf_map]
pub(crate) static WORK: PerCpuArray<Work, 1> = PerCpuArray::new();

/// Memory of a packet program while it answers in the name of a destination.
#[btf_map]
pub(crate) static ANSWER: PerCpuArray<Answer, 1> = PerCpuArray::new();

/// Memory of a packet program while it translates an ICMP error.
#[btf_map]
pub(crate) static QUOTED: PerCpuArray<Quoted, 1> = PerCpuArray::new();

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
