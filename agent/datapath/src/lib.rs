//! The kernel side of the agent: loads the BPF programs, attaches them to the node's cgroup and owns their maps.
//!
//! The only user-space crate that imports aya. Invariants: each map has one owner here; programs and maps outlive the
//! agent through their pins; a restart replaces programs in their links atomically and changes no map entry by itself.
//! Must not know: Kubernetes, which operations to carry out (`agent-core` decides).
//!
//! ```text
//! <bpffs>/pagurus/links/<program>      the attachment; survives every restart and upgrade
//! <bpffs>/pagurus/maps-v<N>/<MAP>      the maps of layout version N
//! ```

pub mod attach;
pub mod conntrack;
pub mod counters;
pub mod devices;
pub mod features;
pub mod fixed;
pub mod handles;
pub mod load;
pub mod names;
pub mod pins;
pub mod programs;
pub mod reading;
pub mod services;
pub mod values;
pub mod warm;

#[cfg(any(test, feature = "fake"))]
pub mod fake;

mod fill;
mod memory;
mod sys;
mod tables;

pub use load::{Build, Datapath, LoadError, Parts};
pub use services::{Failed, MapError, ServiceMaps};

use std::ops::RangeInclusive;
use std::path::PathBuf;

use pagurus_agent_core::services::plan::Capacity;

/// What the datapath needs to know of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cgroup2 directory whose processes are served.
    pub cgroup_root: PathBuf,
    /// A mounted BPF file system.
    pub bpffs: PathBuf,
    /// How many entries each map can hold.
    pub capacity: MapCapacity,
    /// The NodePort range.
    pub node_ports: RangeInclusive<u16>,
}

/// Capacities of the maps. Those marked *grows* are only where they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapCapacity {
    /// Frontends: Service addresses times ports. Grows.
    pub services: u32,
    /// Places of the flat table of backends' ids. Grows.
    pub slots: u32,
    /// Endpoints of Services. Grows.
    pub backends: u32,
    /// Services. Grows.
    pub numbers: u32,
    /// Flows of packets that are translated, two for each connection. Grows.
    pub conntrack: u32,
    /// Ranges of clients that may use a load balancer's address.
    pub source_ranges: u32,
    /// Node addresses.
    pub nodes: u32,
    /// Pods of this node.
    pub endpoints: u32,
    /// Addresses this node answers ARP and neighbour solicitations for.
    pub announced: u32,
    /// Sockets whose Service address is remembered, oldest out first.
    pub reverse: u32,
    /// Unconnected UDP sockets whose backend is remembered, oldest out first.
    pub flows: u32,
    /// Clients and Services whose backend is remembered for session affinity.
    pub clients: u32,
    /// Datagrams whose other fragments are waited for, oldest out first.
    pub fragments: u32,
    /// Flows that XDP has at hand from a moment ago, about, for all CPUs together; 32 bytes for each, taken at once. Another agent may
    /// have another number: nothing in there is missed.
    pub warm: u32,
    /// Bytes of the ring of events: a power of two of pages.
    pub events: u32,
}

impl Default for MapCapacity {
    fn default() -> Self {
        Self {
            services: 65_536,
            slots: 16_384,
            backends: 16_384,
            numbers: 16_384,
            conntrack: 262_144,
            source_ranges: 65_536,
            nodes: 16_384,
            endpoints: 4096,
            announced: 65_536,
            reverse: 65_536,
            flows: 16_384,
            clients: 16_384,
            fragments: 8192,
            warm: 131_072,
            events: 262_144,
        }
    }
}

/// The most entries that maps which grow may have.
pub const LIMITS: Capacity =
    Capacity { services: 1 << 20, slots: 1 << 24, backends: 1 << 22, numbers: 1 << 20 };
