//! Loading: maps reused or made, programs verified. Nothing is attached and no entry is changed here.
//!
//! Must not know: what the maps will hold.

use std::fmt;

use aya::maps::{HashMap as BpfHashMap, Map, MapData, PerCpuArray};
use aya::{Ebpf, EbpfLoader, Pod};
use pagurus_ebpf_abi::{
    ClientKey, ClientValue, FlowKey, FlowValue, ReverseKey, ReverseValue, maps, programs,
};

use crate::features::{self, Missing};
use crate::pins::{PinError, Pins, Place};
use crate::services::KernelMaps;
use crate::{Config, attach, counters};

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
    #[error("load program {name}")]
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
    /// The object lacks something this crate knows.
    #[error("the BPF object has no {0}: it was built from another version of the programs")]
    Lacks(&'static str),
}

/// The loaded programs and their maps.
pub struct Datapath {
    pub(crate) ebpf: Ebpf,
    pub(crate) pins: Pins,
    pub(crate) places: Vec<Place>,
    config: Config,
    services: KernelMaps,
    counters: PerCpuArray<MapData, u64>,
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
        let (first, last) = config.node_ports.clone().into_inner();
        let mut loader = EbpfLoader::new();
        loader.override_global(programs::NODE_PORT_FIRST, &first, true).override_global(
            programs::NODE_PORT_LAST,
            &last,
            true,
        );
        for place in &places {
            loader.map_max_entries(place.shape.name, place.shape.capacity);
            loader.map_pin_path(place.shape.name, place.now.as_path());
        }
        let mut ebpf = loader.load(object).map_err(|error| LoadError::Object(Box::new(error)))?;
        for name in programs::SOCKET {
            let program = attach::socket_program(&mut ebpf, name)?;
            program.load().map_err(|source| LoadError::Program { name, source: Box::new(source) })?;
        }
        let services = KernelMaps {
            services: table(&mut ebpf, maps::SERVICES)?,
            slots: table(&mut ebpf, maps::SLOTS)?,
            backends: table(&mut ebpf, maps::BACKENDS)?,
            nodes: table(&mut ebpf, maps::NODES)?,
        };
        let counters = ebpf.take_map(maps::COUNTERS).ok_or(LoadError::Lacks(maps::COUNTERS))?;
        let counters = PerCpuArray::try_from(counters).map_err(|source| map_error(maps::COUNTERS, source))?;
        carry_over::<ReverseKey, ReverseValue>(&mut ebpf, &places, maps::REVERSE)?;
        carry_over::<FlowKey, FlowValue>(&mut ebpf, &places, maps::FLOWS)?;
        carry_over::<ClientKey, ClientValue>(&mut ebpf, &places, maps::CLIENTS)?;
        Ok(Self { ebpf, pins, places, config: config.clone(), services, counters })
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
        counters::read(&self.counters).map_err(|source| map_error(maps::COUNTERS, source))
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

/// Takes a hash map out of the loaded object.
fn table<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<BpfHashMap<MapData, K, V>, LoadError> {
    let map = ebpf.take_map(name).ok_or(LoadError::Lacks(name))?;
    BpfHashMap::try_from(map).map_err(|source| map_error(name, source))
}

/// Copies what sockets remember from the map that is about to be replaced.
fn carry_over<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    places: &[Place],
    name: &'static str,
) -> Result<(), LoadError> {
    let Some(place) = places.iter().find(|place| place.shape.name == name && place.replaces()) else {
        return Ok(());
    };
    let error = |source| map_error(name, source);
    let old = Map::LruHashMap(MapData::from_pin(&place.path).map_err(error)?);
    // Another shape than this version's: nothing that could be copied.
    let Ok(old) = BpfHashMap::<_, K, V>::try_from(old) else { return Ok(()) };
    let new = ebpf.map_mut(name).ok_or(LoadError::Lacks(name))?;
    let mut new = BpfHashMap::<_, K, V>::try_from(new).map_err(error)?;
    // An entry that goes away while we look is one that nobody needs.
    for (key, value) in old.iter().flatten() {
        new.insert(key, value, 0).map_err(error)?;
    }
    Ok(())
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
}
