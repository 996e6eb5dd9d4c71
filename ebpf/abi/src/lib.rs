//! The contract between the BPF programs and user space: every key and value of every map, every counter and
//! every flag.
//!
//! Must not know: BPF helpers, aya's loader, Kubernetes. Invariants: `repr(C)`, only integers (no bool, no enum),
//! no implicit padding, sizes asserted at compile time, byte order fixed by the type. IPv4 addresses travel as
//! v4-mapped IPv6 addresses, so that one code path serves both families.
#![no_std]

mod address;
mod config;
mod counter;
mod event;
mod flow;
mod hash;
mod sctp;
mod service;
mod warm;

pub use address::{Address, Port};
pub use config::*;
pub use counter::*;
pub use event::*;
pub use flow::*;
pub use hash::{client_hash, flow_hash, place};
pub use sctp::{sctp_checksum, sctp_checksum_change};
pub use service::*;
pub use warm::*;

/// Version of the layout of every map here. A change of any type above raises it; a pinned map of an older version is used again only
/// where the loader knows that its entries mean the same.
pub const LAYOUT_VERSION: u32 = 2;

/// Names of the maps, as the programs declare them and as user space looks them up and pins them. (BPF names have 15 letters.)
///
/// Those marked *grows* are arrays of maps with the map in place 0, so that user space can put a larger one in its place while
/// packets flow.
pub mod maps {
    /// Grows: hash of [`ServiceKey`](crate::ServiceKey) to [`ServiceValue`](crate::ServiceValue).
    pub const SERVICES: &str = "SERVICES";
    /// Grows: array of backends' ids (`u32`): the [`Extent`](crate::Extent)s of all Services, and their Maglev tables.
    pub const SLOTS: &str = "SLOTS";
    /// Grows: array of [`Backend`](crate::Backend) by id; ids begin at 1.
    pub const BACKENDS: &str = "BACKENDS";
    /// Grows: array of `u64`, connections by backend id.
    pub const BACKEND_STATS: &str = "BACKEND_STATS";
    /// Grows: array of [`ServiceStats`](crate::ServiceStats) by Service number; numbers begin at 1.
    pub const SERVICE_STATS: &str = "SERVICE_STATS";
    /// Grows: hash of [`FlowTuple`](crate::FlowTuple) to [`FlowState`](crate::FlowState). In place 1 is the smaller table that was
    /// in place 0 before, as long as its entries are being copied, and otherwise nothing: looked at after place 0, never written.
    pub const CONNTRACK: &str = "CONNTRACK";
    /// Trie of [`SourceRange`](crate::SourceRange) to `u32`: who may use frontends with `SERVICE_SOURCE_RANGES`.
    pub const SOURCE_RANGES: &str = "SOURCE_RANGES";
    /// [`Address`](crate::Address) of any node to flags (`u32`).
    pub const NODES: &str = "NODES";
    /// [`Address`](crate::Address) of a pod of this node to [`Endpoint`](crate::Endpoint).
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// [`AnnouncedKey`](crate::AnnouncedKey) to [`Announced`](crate::Announced): addresses for which this node answers ARP requests and
    /// neighbour solicitations.
    pub const ANNOUNCED: &str = "ANNOUNCED";
    /// [`ReverseKey`](crate::ReverseKey) to [`ReverseValue`](crate::ReverseValue), least recently used out first.
    pub const REVERSE: &str = "REVERSE";
    /// [`FlowKey`](crate::FlowKey) to [`FlowValue`](crate::FlowValue), least recently used out first.
    pub const FLOWS: &str = "FLOWS";
    /// [`ClientKey`](crate::ClientKey) to [`ClientValue`](crate::ClientValue), least recently used out first.
    pub const CLIENTS: &str = "CLIENTS";
    /// [`FragmentKey`](crate::FragmentKey) to [`FragmentValue`](crate::FragmentValue), least recently used out first.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// For each CPU as many [`WarmBucket`](crate::WarmBucket)s as the constant [`WARM_BUCKETS`] in the programs says.
    pub const WARM: &str = "WARM";
    /// Name of that constant (`u32`, a power of two, or 0).
    pub const WARM_BUCKETS: &str = "WARM_BUCKETS";
    /// Name of the constant that says how many of the kernel's timer ticks (jiffies) a tick of those flows' clock has, as a power of two
    /// (`u32`).
    pub const WARM_TICK: &str = "WARM_TICK";
    /// For each CPU [`HOPS_PER_CPU`](crate::HOPS_PER_CPU) places with a [`Hop`](crate::Hop).
    pub const HOPS: &str = "HOPS";
    /// The only place: how often user space has taken something back (`u32`): backends, frontends, ranges of clients. What was noted of a
    /// flow before the last time is not believed any more.
    pub const TAKEN_BACK: &str = "TAKEN_BACK";
    /// The only place: [`NodeConfig`](crate::NodeConfig).
    pub const CONFIG: &str = "CONFIG";
    /// Counter index to `u64`, one per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// Reason to `u64`, one per CPU.
    pub const DROPS: &str = "DROPS";
    /// Ring of [`DropEvent`](crate::DropEvent).
    pub const EVENTS: &str = "EVENTS";
}

/// Names of the programs, as the object file has them.
pub mod programs {
    /// Every socket program: name in the object, the kernel's hook of the same name.
    pub const SOCKET: [&str; 8] = [
        "connect4",
        "connect6",
        "sendmsg4",
        "sendmsg6",
        "recvmsg4",
        "recvmsg6",
        "getpeername4",
        "getpeername6",
    ];
    /// tcx: packets that pods send, at ingress of the host's end of their pairs (or of the bridge they are on).
    pub const FROM_POD: &str = "from_pod";
    /// tcx: packets to pods that come through the kernel's forwarding or from the node itself, at egress of the same devices.
    pub const TO_POD: &str = "to_pod";
    /// tcx: packets from outside, at ingress of uplinks and of the overlay.
    pub const FROM_OUTSIDE: &str = "from_outside";
    /// tcx: packets to the outside, at egress of uplinks and of the overlay.
    pub const TO_OUTSIDE: &str = "to_outside";
    /// XDP: packets from outside, early.
    pub const XDP_OUTSIDE: &str = "xdp_outside";
    /// Every tcx program.
    pub const PACKET: [&str; 4] = [FROM_POD, TO_POD, FROM_OUTSIDE, TO_OUTSIDE];
}

/// The types may be keys and values of maps.
#[cfg(feature = "user")]
mod pod {
    use crate::{
        Address, Announced, AnnouncedKey, Backend, ClientKey, ClientValue, DropEvent, Endpoint, FlowKey,
        FlowState, FlowTuple, FlowValue, FragmentKey, FragmentValue, Hop, NodeConfig, ReverseKey,
        ReverseValue, ServiceKey, ServiceStats, ServiceValue, SourceRange, WarmBucket,
    };

    /// Marks types as plain data for aya.
    macro_rules! plain {
        ($($name:ident),+) => {
            // SAFETY: `repr(C)`, integers only and no padding (sizes asserted beside the types): every bit pattern is a value.
            $(unsafe impl aya::Pod for $name {})+
        };
    }

    plain!(
        Address,
        Announced,
        AnnouncedKey,
        Backend,
        ClientKey,
        ClientValue,
        DropEvent,
        Endpoint,
        FlowKey,
        FlowState,
        FlowTuple,
        FlowValue,
        FragmentKey,
        FragmentValue,
        Hop,
        NodeConfig,
        ReverseKey,
        ReverseValue,
        ServiceKey,
        ServiceStats,
        ServiceValue,
        SourceRange,
        WarmBucket
    );
}
