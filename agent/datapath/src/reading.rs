//! The pinned maps, to be read by whoever may: no agent need run. Nothing is written but the wish to be told of drops.
//!
//! Must not know: who asks, how it is shown.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aya::maps::lpm_trie::Key;
use aya::maps::{Map, MapData, RingBuf};
use aya::{Ebpf, Pod};
use pagurus_agent_core::addr::{Backend, BackendId, Frontend};
use pagurus_agent_core::services::plan::{ServiceNumber, Value};
use pagurus_agent_core::trace;
use pagurus_ebpf_abi as abi;
use pagurus_ebpf_abi::maps;

use crate::names::{NAMES, Text};
use crate::pins::{self, PinError, Pins};
use crate::services::{MapError, ServiceCounts};
use crate::sys::{self, Cursor};
use crate::values;

/// Maps that each agent makes anew and that others want to read.
const PUBLISHED: [&str; 4] = [maps::CONFIG, maps::COUNTERS, maps::DROPS, maps::EVENTS];
/// Entries read by one call.
const BATCH: usize = 4096;
/// UDP, whose sockets are ended.
const UDP: u32 = 17;

/// Pins maps of a loaded object beside those of the agent before, whose place they take with [`settle`].
pub(crate) fn publish(ebpf: &Ebpf, pins: &Pins) -> Result<(), PinError> {
    for name in PUBLISHED {
        let Some(map) = ebpf.map(name) else { continue };
        let path = pins::next(&pins.map(name));
        map.pin(&path).map_err(|error| PinError::new("pin map", &path, std::io::Error::other(error)))?;
    }
    Ok(())
}

/// The maps of this agent take the place of those before.
pub(crate) fn settle(pins: &Pins) -> Result<(), PinError> {
    for name in PUBLISHED {
        let path = pins.map(name);
        let next = pins::next(&path);
        match std::fs::rename(&next, &path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(PinError::new("rename", &next, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A map that could not be opened or read.
pub type ReadError = MapError;

fn open(pins: &Pins, name: &'static str) -> Result<OwnedFd, ReadError> {
    sys::open_pin(&pins.map(name)).map_err(|error| MapError::new("open", name, error))
}

/// The map in a place of one that grows.
fn inner(outer: &OwnedFd, name: &'static str, place: u32) -> Result<Option<OwnedFd>, ReadError> {
    let error = |error| MapError::new("look into", name, error);
    let Some(id) = sys::look_up::<u32, u32>(outer.as_fd(), &place).map_err(error)? else { return Ok(None) };
    let map = MapData::from_id(id).map_err(|error| MapError::new("look into", name, error))?;
    map.fd().as_fd().try_clone_to_owned().map(Some).map_err(error)
}

fn first(pins: &Pins, name: &'static str) -> Result<OwnedFd, ReadError> {
    let missing = || MapError::new("look into", name, "no agent has filled it yet");
    inner(&open(pins, name)?, name, 0)?.ok_or_else(missing)
}

/// Calls for every entry of a hash map.
fn each<K: Pod, V: Pod>(
    map: &OwnedFd,
    name: &'static str,
    mut tell: impl FnMut(K, V),
) -> Result<(), ReadError> {
    let (mut cursor, mut keys, mut values) = (Cursor::default(), Vec::new(), Vec::new());
    let error = |error| MapError::new("read", name, error);
    while cursor.next(map.as_fd(), BATCH, &mut keys, &mut values).map_err(error)? {
        keys.iter().zip(&values).for_each(|(key, value)| tell(*key, *value));
    }
    Ok(())
}

/// What sockets believe to be connected to.
#[derive(Debug)]
pub struct Connections {
    reverse: OwnedFd,
}

impl Connections {
    /// Opens the map that is pinned below this BPF file system.
    pub fn open(bpffs: &Path) -> Result<Self, ReadError> {
        Ok(Self { reverse: open(&Pins::at(bpffs), maps::REVERSE)? })
    }

    /// The number of the Service through which a UDP socket has come to a backend.
    pub fn service_of(&self, cookie: u64, backend: SocketAddr) -> Option<u32> {
        let key = abi::ReverseKey {
            cookie,
            address: values::from_ip(&backend.ip()),
            port: abi::Port::new(backend.port()),
            reserved: 0,
            protocol: UDP,
        };
        let value: abi::ReverseValue = sys::look_up(self.reverse.as_fd(), &key).ok()??;
        Some(value.service)
    }
}

/// All maps.
#[derive(Debug)]
pub struct Reader {
    services: OwnedFd,
    slots: OwnedFd,
    backends: OwnedFd,
    backend_stats: OwnedFd,
    service_stats: OwnedFd,
    ranges: OwnedFd,
    nodes: OwnedFd,
    pods: OwnedFd,
    clients: OwnedFd,
    conntrack: Vec<OwnedFd>,
    config: OwnedFd,
    names: OwnedFd,
}

impl Reader {
    /// Opens what is pinned below this BPF file system.
    pub fn open(bpffs: &Path) -> Result<Self, ReadError> {
        let pins = &Pins::at(bpffs);
        let conntrack = open(pins, maps::CONNTRACK)?;
        Ok(Self {
            services: first(pins, maps::SERVICES)?,
            slots: first(pins, maps::SLOTS)?,
            backends: first(pins, maps::BACKENDS)?,
            backend_stats: first(pins, maps::BACKEND_STATS)?,
            service_stats: first(pins, maps::SERVICE_STATS)?,
            ranges: open(pins, maps::SOURCE_RANGES)?,
            nodes: open(pins, maps::NODES)?,
            pods: open(pins, maps::ENDPOINTS)?,
            clients: open(pins, maps::CLIENTS)?,
            conntrack: [inner(&conntrack, maps::CONNTRACK, 0)?, inner(&conntrack, maps::CONNTRACK, 1)?]
                .into_iter()
                .flatten()
                .collect(),
            config: open(pins, maps::CONFIG)?,
            names: open(pins, NAMES)?,
        })
    }

    /// Every frontend and what is behind it, in order.
    pub fn frontends(&self) -> Result<Vec<(Frontend, Value)>, ReadError> {
        let mut found = Vec::new();
        each(&self.services, maps::SERVICES, |key: abi::ServiceKey, value: abi::ServiceValue| {
            found.extend(values::frontend(&key).map(|frontend| (frontend, values::value(&value))));
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// The backends in an extent: id, where it is, whether it runs on this node.
    pub fn backends(&self, first: u32, count: u32) -> Vec<(BackendId, Backend, bool)> {
        let of = |place| {
            let id = trace::Maps::slot(self, place)?;
            let held = trace::Maps::backend(self, id)?;
            let protocol = pagurus_agent_core::addr::Protocol::from_number(held.protocol)?;
            let backend = Backend { ip: values::to_ip(held.address), port: held.port.number(), protocol };
            Some((BackendId(id), backend, held.flags & abi::BACKEND_LOCAL != 0))
        };
        (first..first.saturating_add(count)).filter_map(of).collect()
    }

    /// Connections to a backend since it is there.
    pub fn backend_connections(&self, id: BackendId) -> u64 {
        sys::look_up(self.backend_stats.as_fd(), &id.0).ok().flatten().unwrap_or(0)
    }

    /// What was counted of a Service.
    pub fn service_counts(&self, number: ServiceNumber) -> ServiceCounts {
        let counts: Option<abi::ServiceStats> =
            sys::look_up(self.service_stats.as_fd(), &number.0).ok().flatten();
        let abi::ServiceStats { connections, refused, dropped } = counts.unwrap_or_default();
        ServiceCounts { connections, refused, dropped }
    }

    /// Calls for every tracked flow, in each direction.
    pub fn flows(&self, mut tell: impl FnMut(abi::FlowTuple, abi::FlowState)) -> Result<(), ReadError> {
        self.conntrack.iter().try_for_each(|map| each(map, maps::CONNTRACK, &mut tell))
    }

    fn get<K: Pod, V: Pod>(map: &OwnedFd, key: &K) -> Option<V> {
        sys::look_up(map.as_fd(), key).ok().flatten()
    }
}

impl trace::Maps for Reader {
    fn config(&self) -> Option<abi::NodeConfig> {
        Self::get(&self.config, &0u32)
    }

    fn service(&self, key: &abi::ServiceKey) -> Option<abi::ServiceValue> {
        Self::get(&self.services, key)
    }

    fn slot(&self, place: u32) -> Option<u32> {
        Self::get(&self.slots, &place)
    }

    fn backend(&self, id: u32) -> Option<abi::Backend> {
        Self::get(&self.backends, &id)
    }

    fn node(&self, address: &abi::Address) -> Option<u32> {
        Self::get(&self.nodes, address)
    }

    fn flow(&self, tuple: &abi::FlowTuple) -> Option<abi::FlowState> {
        self.conntrack.iter().find_map(|map| Self::get(map, tuple))
    }

    fn allows(&self, service: u32, client: &abi::Address) -> bool {
        let range = abi::SourceRange { service: service.to_be(), address: *client };
        Self::get::<_, u32>(&self.ranges, &Key::new(u32::BITS + u128::BITS, range)).is_some()
    }

    fn client(&self, key: &abi::ClientKey) -> Option<abi::ClientValue> {
        Self::get(&self.clients, key)
    }

    fn pod(&self, address: &abi::Address) -> Option<abi::Endpoint> {
        Self::get(&self.pods, address)
    }

    fn now(&self) -> u64 {
        sys::nanoseconds()
    }

    fn name(&self, service: u32) -> Option<String> {
        Self::get::<_, Text>(&self.names, &service).map(|text| text.to_string())
    }
}

/// Drops as they are told.
pub struct Drops {
    ring: RingBuf<MapData>,
    config: OwnedFd,
}

impl Drops {
    /// Opens the ring that is pinned below this BPF file system.
    pub fn open(bpffs: &Path) -> Result<Self, ReadError> {
        let pins = Pins::at(bpffs);
        let error = |error| MapError::new("open", maps::EVENTS, error);
        let ring = Map::RingBuf(MapData::from_pin(pins.map(maps::EVENTS)).map_err(error)?);
        Ok(Self { ring: RingBuf::try_from(ring).map_err(error)?, config: open(&pins, maps::CONFIG)? })
    }

    /// Asks the programs to tell, or no longer to. An agent that writes what it knows of the node forgets the wish: say it again now
    /// and then.
    pub fn want(&self, wanted: bool) -> Result<(), ReadError> {
        let error = |error| MapError::new("write", maps::CONFIG, error);
        let found: Option<abi::NodeConfig> = sys::look_up(self.config.as_fd(), &0u32).map_err(error)?;
        let Some(mut config) = found else { return Ok(()) };
        let flags = if wanted { config.flags | abi::NODE_EVENTS } else { config.flags & !abi::NODE_EVENTS };
        if flags != config.flags {
            config.flags = flags;
            sys::update(self.config.as_fd(), &0u32, &config, 0).map_err(error)?;
        }
        Ok(())
    }
}

impl Iterator for Drops {
    type Item = abi::DropEvent;

    /// The next one, if there is one now; later there may be more.
    fn next(&mut self) -> Option<abi::DropEvent> {
        let item = self.ring.next()?;
        sys::read_plain(&item)
    }
}

/// Packets dropped or refused since the programs were loaded, by reason.
pub fn drop_counts(bpffs: &Path) -> Result<Vec<(&'static str, u64)>, ReadError> {
    let error = |error| MapError::new("read", maps::DROPS, error);
    let map = Map::PerCpuArray(MapData::from_pin(Pins::at(bpffs).map(maps::DROPS)).map_err(error)?);
    let counts = aya::maps::PerCpuArray::try_from(map).map_err(error)?;
    crate::counters::read(&counts, &abi::DROP_NAMES).map_err(error)
}
