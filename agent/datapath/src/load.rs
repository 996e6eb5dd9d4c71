//! Loading: maps reused or made, the object's programs made ready to be verified. Nothing is attached and no entry is changed here.
//!
//! Must not know: what the maps will hold.

use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap as BpfHashMap, Map, MapData, PerCpuArray};
use aya::{Ebpf, EbpfLoader};
use pagurus_ebpf_abi::{self as abi, COUNTER_NAMES, DROP_NAMES, NodeConfig, maps};

use crate::attach::{AttachError, Attached};
use crate::conntrack::Conntrack;
use crate::devices::PacketPrograms;
use crate::features::{self, Missing};
use crate::fixed::{Fill, FixedMaps};
use crate::handles::{Announced, Endpoints, Events};
use crate::pins::{PinError, Pins};
use crate::programs::Programs;
use crate::services::{KernelMaps, MapError};
use crate::sys::{self, MapShape};
use crate::tables::{Growing, SharedArray};
use crate::warm::{TakenBack, Warm};
use crate::{Config, counters, reading};

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
    /// The machine does not say how long the ticks of its timer are.
    #[error("ask for the resolution of the kernel's coarse clock")]
    Tick(#[source] std::io::Error),
    /// The object lacks something this crate knows.
    #[error("the BPF object has no {0}: it was built from another version of the programs")]
    Lacks(&'static str),
}

/// Programs, and the version of the layout of their maps.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    /// The object file.
    pub object: &'a [u8],
    /// The version of the layout.
    pub layout: u32,
}

impl Build<'static> {
    /// What this binary carries.
    pub fn own() -> Self {
        Self { object: OBJECT, layout: abi::LAYOUT_VERSION }
    }
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

/// How many of the kernel's timer ticks a tick of the flows' clock has, as a power of two: about a quarter of a second.
fn warm_tick(timer: Duration) -> u32 {
    const LONGEST: Duration = Duration::from_millis(300);
    (LONGEST.as_nanos() / timer.as_nanos().max(1)).max(1).ilog2()
}

/// Maps and programs, each part for its own owner.
#[derive(Debug)]
pub struct Parts {
    /// The programs, not verified yet.
    pub programs: Programs,
    /// The tables of Services.
    pub services: KernelMaps,
    /// The table of flows.
    pub conntrack: Conntrack,
    /// What the programs know of their node.
    pub node: NodeMap,
    /// What the programs count.
    pub counts: Counts,
}

impl Parts {
    /// Opens or makes the maps; those pinned by an earlier agent are used again with everything in them. No program is verified, nothing
    /// is attached: what an earlier agent attached goes on working with the same maps.
    pub fn open(config: &Config) -> Result<Self, LoadError> {
        if !Datapath::is_built() {
            return Err(LoadError::NoObject);
        }
        Self::open_build(config, &Build::own())
    }

    /// As [`open`](Self::open), with other programs.
    pub fn open_build(config: &Config, build: &Build<'_>) -> Result<Self, LoadError> {
        let missing = features::missing(config);
        if !missing.is_empty() {
            return Err(LoadError::Missing(missing));
        }
        let pins = Pins::new(config).of_layout(build.layout);
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
        let tick = warm_tick(sys::timer_tick().map_err(LoadError::Tick)?);
        loader.override_global(maps::WARM_TICK, &tick, true);
        let mut ebpf = loader.load(build.object).map_err(|error| LoadError::Object(Box::new(error)))?;
        reading::publish(&ebpf, &pins)?;
        let fixed = FixedMaps::open(&ebpf)?;
        // The map itself stays with the programs, which are not verified yet.
        let taken_back = TakenBack::open(duplicate(&ebpf, maps::TAKEN_BACK)?.as_fd())?;
        let services =
            tables(config, taken_back.clone(), |name| ebpf.take_map(name).ok_or(LoadError::Lacks(name)))?;
        let conntrack = ebpf.take_map(maps::CONNTRACK).ok_or(LoadError::Lacks(maps::CONNTRACK))?;
        let conntrack = Growing::open(
            maps::CONNTRACK,
            conntrack,
            MapShape::hash::<abi::FlowTuple, abi::FlowState>(),
            config.capacity.conntrack,
        )?;
        let conntrack = Conntrack::new(conntrack)?;
        let counts = Counts {
            counters: per_cpu(&mut ebpf, maps::COUNTERS)?,
            drops: per_cpu(&mut ebpf, maps::DROPS)?,
            warm: Warm::new(duplicate(&ebpf, maps::WARM)?, cpus, buckets),
            fixed,
        };
        let node = ebpf.take_map(maps::CONFIG).ok_or(LoadError::Lacks(maps::CONFIG))?;
        let map = Array::try_from(node).map_err(|source| map_error(maps::CONFIG, source))?;
        let mut node = NodeMap { map, taken_back };
        let (first, last) = config.node_ports.clone().into_inner();
        node.set(&NodeConfig { node_port_first: first, node_port_last: last, ..unknown_node() })?;
        let mut programs = Programs { ebpf, pins, places, config: config.clone() };
        programs.carry_over()?;
        Ok(Self { programs, services, conntrack, node, counts })
    }
}

/// What the programs know of their node; every program sees a change at once.
pub struct NodeMap {
    map: Array<MapData, NodeConfig>,
    taken_back: TakenBack,
}

impl fmt::Debug for NodeMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeMap").finish_non_exhaustive()
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").finish_non_exhaustive()
    }
}

impl NodeMap {
    /// Tells them. What they noted of flows before is not believed any more.
    pub fn set(&mut self, config: &NodeConfig) -> Result<(), LoadError> {
        self.map.set(0, config, 0).map_err(|source| map_error(maps::CONFIG, source))?;
        self.taken_back.raise();
        Ok(())
    }

    /// Says that the kernel's routes are others: the ways that the programs noted of flows are not believed any more.
    pub fn routes_changed(&self) {
        self.taken_back.raise();
    }

    /// What they were told.
    pub fn get(&self) -> Result<NodeConfig, LoadError> {
        self.map.get(&0, 0).map_err(|source| map_error(maps::CONFIG, source))
    }
}

/// What the programs count.
pub struct Counts {
    counters: PerCpuArray<MapData, u64>,
    drops: PerCpuArray<MapData, u64>,
    warm: Warm,
    fixed: FixedMaps,
}

impl Counts {
    /// The counters since the programs were loaded, by name.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, LoadError> {
        counters::read(&self.counters, &COUNTER_NAMES).map_err(|source| map_error(maps::COUNTERS, source))
    }

    /// Packets dropped or refused since the programs were loaded, by reason.
    pub fn drops(&self) -> Result<Vec<(&'static str, u64)>, LoadError> {
        counters::read(&self.drops, &DROP_NAMES).map_err(|source| map_error(maps::DROPS, source))
    }
}

impl Counts {
    /// How full the maps are that do not grow, by name.
    pub fn fills(&self) -> Vec<(&'static str, Result<Fill, MapError>)> {
        self.fixed.fills()
    }

    /// The flows that XDP has at hand.
    pub fn warm(&self) -> &Warm {
        &self.warm
    }
}

/// Another descriptor of a map, which stays with the programs.
fn duplicate(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    match ebpf.map(name) {
        Some(Map::Array(map)) => {
            let copy = map.fd().as_fd().try_clone_to_owned();
            copy.map_err(|error| LoadError::Table(MapError::new("open", name, error)))
        }
        _ => Err(LoadError::Lacks(name)),
    }
}

/// Maps and verified programs in one hand.
#[derive(Debug)]
pub struct Datapath {
    pub(crate) programs: Programs,
    services: KernelMaps,
    conntrack: Option<Conntrack>,
    node: NodeMap,
    counts: Counts,
}

impl Datapath {
    /// Whether this binary carries the BPF programs at all.
    pub fn is_built() -> bool {
        !OBJECT.is_empty()
    }

    /// Loads programs and maps; maps pinned by an earlier agent are used again with everything in them.
    pub fn load(config: &Config) -> Result<Self, LoadError> {
        Self::verify(Parts::open(config)?)
    }

    /// As [`load`](Self::load), with other programs.
    pub fn load_build(config: &Config, build: &Build<'_>) -> Result<Self, LoadError> {
        Self::verify(Parts::open_build(config, build)?)
    }

    fn verify(parts: Parts) -> Result<Self, LoadError> {
        let Parts { mut programs, services, conntrack, node, counts } = parts;
        programs.verify_sockets()?;
        Ok(Self { programs, services, conntrack: Some(conntrack), node, counts })
    }

    /// What the programs must know of their node; every program sees it at once.
    pub fn set_node_config(&mut self, config: &NodeConfig) -> Result<(), LoadError> {
        self.node.set(config)
    }

    /// What the programs know of their node.
    pub fn node_config(&self) -> Result<NodeConfig, LoadError> {
        self.node.get()
    }

    /// The tables of Services, to read and to write.
    pub fn services(&mut self) -> &mut KernelMaps {
        &mut self.services
    }

    /// The table of flows; can be taken once.
    pub fn take_conntrack(&mut self) -> Option<Conntrack> {
        self.conntrack.take()
    }

    /// What the datapath was loaded with.
    pub fn config(&self) -> &Config {
        self.programs.config()
    }

    /// See [`Counts::counters`].
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, LoadError> {
        self.counts.counters()
    }

    /// See [`Counts::drops`].
    pub fn drops(&self) -> Result<Vec<(&'static str, u64)>, LoadError> {
        self.counts.drops()
    }

    /// See [`Counts::fills`].
    pub fn fills(&self) -> Vec<(&'static str, Result<Fill, MapError>)> {
        self.counts.fills()
    }

    /// See [`Programs::verified_instructions`].
    pub fn verified_instructions(&mut self) -> Result<Vec<(&'static str, Option<u32>)>, LoadError> {
        self.programs.verified_instructions()
    }

    /// See [`Programs::attach`].
    pub fn attach(&mut self) -> Result<Attached, AttachError> {
        self.programs.attach()
    }

    /// See [`Programs::packet_programs`].
    pub fn packet_programs(&mut self, early: bool) -> Result<PacketPrograms, LoadError> {
        self.programs.packet_programs(early)
    }

    /// See [`Programs::endpoints`].
    pub fn endpoints(&self) -> Result<Endpoints, LoadError> {
        self.programs.endpoints()
    }

    /// See [`Programs::announced`].
    pub fn announced(&self) -> Result<Announced, LoadError> {
        self.programs.announced()
    }

    /// See [`Programs::take_events`].
    pub fn take_events(&mut self) -> Result<Events, LoadError> {
        self.programs.take_events()
    }
}

pub(crate) fn map_error(name: &'static str, source: aya::maps::MapError) -> LoadError {
    LoadError::Map { name, source: Box::new(source) }
}

/// What the verifier said, which is what one wants to see first.
fn verdict(error: &aya::programs::ProgramError) -> String {
    match error {
        aya::programs::ProgramError::LoadError { io_error, verifier_log } => {
            format!("the kernel refused it ({io_error}); its verifier said:\n{verifier_log}")
        }
        other => other.to_string(),
    }
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
        warm_ticks: 0,
        reserved: [0; 2],
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
    taken_back: TakenBack,
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
    Ok(KernelMaps { services, slots, backends, backend_stats, service_stats, ranges, nodes, taken_back })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_flows_are_about_a_quarter_of_a_second() {
        for (micros, expected) in [(1_000, 8), (3_333, 6), (4_000, 6), (10_000, 4), (0, 28), (1_000_000, 0)] {
            assert_eq!(warm_tick(Duration::from_micros(micros)), expected, "{micros} us");
        }
    }

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
