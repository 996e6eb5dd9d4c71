//! Loading: maps reused or made, programs verified. Nothing is attached and no entry is changed here.
//!
//! Must not know: what the maps will hold.

use std::fmt;

use std::path::Path;

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap as BpfHashMap, Map, MapData, PerCpuArray};
use aya::{Ebpf, EbpfLoader, Pod};
use pagurus_ebpf_abi::{self as abi, COUNTER_NAMES, DROP_NAMES, NodeConfig, maps, programs};

use crate::conntrack::Conntrack;
use crate::features::{self, Missing};
use crate::pins::{PinError, Pins, Place};
use crate::services::{KernelMaps, MapError};
use crate::sys::MapShape;
use crate::tables::{Growing, SharedArray};
use crate::{Config, attach, counters, reading};

/// The object with all programs; empty in a build without them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pagurus-ebpf.o"));

/// Why the dataplane cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// This binary carries no programs.
    #[error(
        "this agent was built without its BPF programs: build it with `cargo xtask build` (or set PAGURUS_EBPF_OBJECT \
         while building), or start it with --dataplane=off"
    )]
    NoObject,
    /// The machine lacks something.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Missing(Vec<Missing>),
    /// The pins could not be prepared.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The object or one of its maps was refused.
    #[error("load the BPF object")]
    Object(#[source] Box<aya::EbpfError>),
    /// A program is missing or was refused; the source has the verifier's log.
    #[error("load program {name}: {}", verdict(.source))]
    Program {
        /// The program.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// A map is missing or of another type.
    #[error("open map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A table of Services could not be opened or made.
    #[error(transparent)]
    Table(#[from] MapError),
    /// The machine does not say how many CPUs it has.
    #[error("read {file}")]
    Cpus {
        /// Where it is said.
        file: &'static str,
        /// Why it was not.
        #[source]
        source: std::io::Error,
    },
    /// The object lacks something this crate knows.
    #[error("the BPF object has no {0}: it was built from another version of the programs")]
    Lacks(&'static str),
}

/// How many CPUs there may be.
fn cpus() -> Result<u32, LoadError> {
    let count = aya::util::nr_cpus().map_err(|(file, source)| LoadError::Cpus { file, source })?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Buckets of two flows for each CPU, a power of two, so that all CPUs together have about so many flows.
fn warm_buckets(flows: u32, cpus: u32) -> u32 {
    (flows / 2 / cpus.max(1)).max(64).next_power_of_two().min(1 << 24)
}

/// The loaded programs and their maps.
pub struct Datapath {
    pub(crate) ebpf: Ebpf,
    pub(crate) pins: Pins,
    pub(crate) places: Vec<Place>,
    config: Config,
    services: KernelMaps,
    pub(crate) conntrack: Option<Conntrack>,
    node_config: Array<MapData, NodeConfig>,
    counters: PerCpuArray<MapData, u64>,
    drops: PerCpuArray<MapData, u64>,
}

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datapath").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Datapath {
    /// Whether this binary carries the BPF programs at all.
    pub fn is_built() -> bool {
        !OBJECT.is_empty()
    }

    /// Loads programs and maps; maps pinned by an earlier agent are used again with everything in them.
    pub fn load(config: &Config) -> Result<Self, LoadError> {
        if !Self::is_built() {
            return Err(LoadError::NoObject);
        }
        Self::load_object(config, OBJECT)
    }

    /// As [`load`](Self::load), with the programs of another object file.
    pub fn load_object(config: &Config, object: &[u8]) -> Result<Self, LoadError> {
        let missing = features::missing(config);
        if !missing.is_empty() {
            return Err(LoadError::Missing(missing));
        }
        let pins = Pins::new(config);
        let places = pins.prepare(&config.capacity)?;
        let mut loader = EbpfLoader::new();
        for place in &places {
            loader.map_max_entries(place.shape.name, place.shape.capacity);
            loader.map_pin_path(place.shape.name, place.now.as_path());
        }
        loader.map_max_entries(maps::EVENTS, config.capacity.events);
        let cpus = cpus()?;
        let buckets = warm_buckets(config.capacity.warm, cpus);
        loader.map_max_entries(maps::WARM, buckets * cpus);
        loader.map_max_entries(maps::HOPS, abi::HOPS_PER_CPU * cpus);
        loader.override_global(maps::WARM_BUCKETS, &buckets, true);
        let mut ebpf = loader.load(object).map_err(|error| LoadError::Object(Box::new(error)))?;
        for name in programs::SOCKET {
            let program = attach::socket_program(&mut ebpf, name)?;
            program.load().map_err(|source| LoadError::Program { name, source: Box::new(source) })?;
        }
        reading::publish(&ebpf, &pins)?;
        let services = tables(config, |name| ebpf.take_map(name).ok_or(LoadError::Lacks(name)))?;
        let conntrack = ebpf.take_map(maps::CONNTRACK).ok_or(LoadError::Lacks(maps::CONNTRACK))?;
        let conntrack = Growing::open(
            maps::CONNTRACK,
            conntrack,
            MapShape::hash::<abi::FlowTuple, abi::FlowState>(),
            config.capacity.conntrack,
        )?;
        let conntrack = Some(Conntrack::new(conntrack)?);
        let counters = per_cpu(&mut ebpf, maps::COUNTERS)?;
        let drops = per_cpu(&mut ebpf, maps::DROPS)?;
        let node_config = ebpf.take_map(maps::CONFIG).ok_or(LoadError::Lacks(maps::CONFIG))?;
        let node_config = Array::try_from(node_config).map_err(|source| map_error(maps::CONFIG, source))?;
        let mut this = Self {
            ebpf,
            pins,
            places,
            config: config.clone(),
            services,
            conntrack,
            node_config,
            counters,
            drops,
        };
        let (first, last) = config.node_ports.clone().into_inner();
        this.set_node_config(&NodeConfig { node_port_first: first, node_port_last: last, ..unknown_node() })?;
        this.carry_over()?;
        Ok(this)
    }

    /// What the programs must know of their node; every program sees it at once.
    pub fn set_node_config(&mut self, config: &NodeConfig) -> Result<(), LoadError> {
        self.node_config.set(0, config, 0).map_err(|source| map_error(maps::CONFIG, source))
    }

    /// What the programs know of their node.
    pub fn node_config(&self) -> Result<NodeConfig, LoadError> {
        self.node_config.get(&0, 0).map_err(|source| map_error(maps::CONFIG, source))
    }

    /// Copies what sockets and clients remember from maps that are about to be replaced, of this layout or an older one. What is known
    /// already stays: it may be newer.
    pub(crate) fn carry_over(&mut self) -> Result<(), LoadError> {
        self.carry::<abi::ReverseKey, abi::ReverseValue>(maps::REVERSE, 1)?;
        self.carry::<abi::FlowKey, abi::FlowValue>(maps::FLOWS, 2)?;
        self.carry::<abi::ClientKey, abi::ClientValue>(maps::CLIENTS, 2)
    }

    /// Copies the entries of one map; `since` is the first layout in which they mean the same.
    fn carry<K: Pod, V: Pod>(&mut self, name: &'static str, since: u32) -> Result<(), LoadError> {
        let mut from = self.pins.older(name, since);
        if let Some(place) = self.places.iter().find(|place| place.shape.name == name && place.replaces()) {
            from.insert(0, place.path.clone());
        }
        let error = |source| map_error(name, source);
        for path in from {
            let old = Map::LruHashMap(MapData::from_pin(&path).map_err(error)?);
            // Another shape than this layout's: nothing that could be copied.
            let Ok(old) = BpfHashMap::<_, K, V>::try_from(old) else { continue };
            let new = self.ebpf.map_mut(name).ok_or(LoadError::Lacks(name))?;
            let mut new = BpfHashMap::<_, K, V>::try_from(new).map_err(error)?;
            // An entry that goes away while we look is one that nobody needs; one that is there already is newer.
            for (key, value) in old.iter().flatten() {
                let inserted = new.insert(key, value, NO_REPLACE);
                if inserted.as_ref().is_err_and(|error| !is_there(error)) {
                    inserted.map_err(error)?;
                }
            }
        }
        Ok(())
    }

    /// The tables of Services, to read and to write.
    pub fn services(&mut self) -> &mut KernelMaps {
        &mut self.services
    }

    /// What the datapath was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The counters since the programs were loaded, by name.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, LoadError> {
        counters::read(&self.counters, &COUNTER_NAMES).map_err(|source| map_error(maps::COUNTERS, source))
    }

    /// Packets dropped or refused since the programs were loaded, by reason.
    pub fn drops(&self) -> Result<Vec<(&'static str, u64)>, LoadError> {
        counters::read(&self.drops, &DROP_NAMES).map_err(|source| map_error(maps::DROPS, source))
    }

    /// Where a map of this datapath is pinned now.
    pub(crate) fn pinned(&self, name: &str) -> &Path {
        let place = self.places.iter().find(|place| place.shape.name == name);
        place.map_or(Path::new(""), |place| &place.now)
    }

    /// Instructions the verifier walked for each program, where the kernel tells.
    pub fn verified_instructions(&mut self) -> Result<Vec<(&'static str, Option<u32>)>, LoadError> {
        let of = |name: &'static str| {
            let info = attach::socket_program(&mut self.ebpf, name)?.info();
            let info = info.map_err(|source| LoadError::Program { name, source: Box::new(source) })?;
            Ok((name, info.verified_instruction_count()))
        };
        programs::SOCKET.into_iter().map(of).collect()
    }
}

fn map_error(name: &'static str, source: aya::maps::MapError) -> LoadError {
    LoadError::Map { name, source: Box::new(source) }
}

/// `BPF_NOEXIST`.
const NO_REPLACE: u64 = 1;

/// What the verifier said, which is what one wants to see first.
fn verdict(error: &aya::programs::ProgramError) -> String {
    match error {
        aya::programs::ProgramError::LoadError { io_error, verifier_log } => {
            format!("the kernel refused it ({io_error}); its verifier said:\n{verifier_log}")
        }
        other => other.to_string(),
    }
}

fn is_there(error: &aya::maps::MapError) -> bool {
    matches!(error, aya::maps::MapError::SyscallError(error)
        if error.io_error.kind() == std::io::ErrorKind::AlreadyExists)
}

/// A node of which nothing is known yet.
fn unknown_node() -> NodeConfig {
    NodeConfig {
        flags: 0,
        node_port_first: 0,
        node_port_last: 0,
        nat_port_first: 0,
        nat_port_last: 0,
        overlay_ifindex: 0,
        node_v4: abi::Address::ANY_V4,
        node_v6: abi::Address::ANY_V6,
        tcp_seconds: [60, 86_400, 120, 10],
        udp_seconds: [30, 120],
        networks_len: 0,
        mtu: 0,
        zero: 0,
        reserved: [0; 3],
        networks: [abi::Network { address: abi::Address::ANY_V6, mask: abi::Address::ANY_V6 }; abi::NETWORKS],
    }
}

/// Takes a map of counters out of the loaded object.
fn per_cpu(ebpf: &mut Ebpf, name: &'static str) -> Result<PerCpuArray<MapData, u64>, LoadError> {
    let map = ebpf.take_map(name).ok_or(LoadError::Lacks(name))?;
    PerCpuArray::try_from(map).map_err(|source| map_error(name, source))
}

/// The tables of Services, with an inner map in each that has none.
fn tables(
    config: &Config,
    mut take: impl FnMut(&'static str) -> Result<Map, LoadError>,
) -> Result<KernelMaps, LoadError> {
    let room = &config.capacity;
    let mut array = |name, value, capacity| -> Result<SharedArray, LoadError> {
        Ok(SharedArray::open(name, take(name)?, value, capacity)?)
    };
    let slots = array(maps::SLOTS, size_of::<u32>(), room.slots)?;
    let backends = array(maps::BACKENDS, size_of::<abi::Backend>(), room.backends)?;
    let backend_stats = array(maps::BACKEND_STATS, size_of::<u64>(), room.backends)?;
    let service_stats = array(maps::SERVICE_STATS, size_of::<abi::ServiceStats>(), room.numbers)?;
    let shape = MapShape::hash::<abi::ServiceKey, abi::ServiceValue>();
    let services = Growing::open(maps::SERVICES, take(maps::SERVICES)?, shape, room.services)?;
    let ranges = LpmTrie::try_from(take(maps::SOURCE_RANGES)?)
        .map_err(|source| map_error(maps::SOURCE_RANGES, source))?;
    let nodes = BpfHashMap::try_from(take(maps::NODES)?).map_err(|source| map_error(maps::NODES, source))?;
    Ok(KernelMaps { services, slots, backends, backend_stats, service_stats, ranges, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_programs_says_how_to_make_them() {
        let config = Config {
            cgroup_root: "/nowhere".into(),
            bpffs: "/nowhere".into(),
            capacity: crate::MapCapacity::default(),
            node_ports: 1..=2,
        };
        let error = Datapath::load(&config).expect_err("neither cgroup nor BPF file system");
        assert_eq!(matches!(error, LoadError::NoObject), !Datapath::is_built());
        assert!(error.to_string().contains(if Datapath::is_built() {
            "--cgroup-root"
        } else {
            "cargo xtask build"
        }));
    }

    #[test]
    fn flows_are_shared_among_cpus() {
        for (flows, cpus, buckets) in [
            (0, 2, 64),
            (1, 0, 64),
            (131_072, 2, 32_768),
            (131_072, 3, 32_768),
            (131_072, 1000, 128),
            (u32::MAX, 1, 1 << 24),
        ] {
            assert_eq!(warm_buckets(flows, cpus), buckets, "{flows} flows, {cpus} CPUs");
        }
    }
}
