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
pub mod counters;
pub mod devices;
pub mod features;
pub mod load;
pub mod pins;
pub mod services;

#[cfg(any(test, feature = "fake"))]
pub mod fake;

mod sys;

pub use load::{Datapath, LoadError};
pub use services::{MapError, ServiceMaps};

use std::ops::RangeInclusive;
use std::path::PathBuf;

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

/// Capacities of the maps. Memory of all but the last three grows with what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapCapacity {
    /// Frontends: Service addresses times ports.
    pub services: u32,
    /// Endpoints of all Service ports together.
    pub slots: u32,
    /// Different endpoints.
    pub backends: u32,
    /// Node addresses.
    pub nodes: u32,
    /// Sockets whose Service address is remembered, oldest out first.
    pub reverse: u32,
    /// Unconnected UDP sockets whose backend is remembered, oldest out first.
    pub flows: u32,
    /// Clients and Services whose backend is remembered for session affinity.
    pub clients: u32,
}

impl Default for MapCapacity {
    fn default() -> Self {
        Self {
            services: 65_536,
            slots: 262_144,
            backends: 262_144,
            nodes: 16_384,
            reverse: 65_536,
            flows: 16_384,
            clients: 16_384,
        }
    }
}
