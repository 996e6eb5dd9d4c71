//! The tables of Services: reading them whole, and carrying out operations in the order in which they were planned.
//!
//! Owner of `SERVICES`, `SLOTS`, `BACKENDS`, their statistics, `SOURCE_RANGES` and `NODES`. Must not know: why an operation is
//! wanted. Arrays are written through memory; frontends, which are many when an agent starts, in batches.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap as BpfHashMap, MapData};
use pagurus_agent_core::addr::BackendId;
use pagurus_agent_core::services::plan::{Capacity, Grown, MapOp, Observed, ServiceNumber};
use pagurus_ebpf_abi as abi;

use crate::memory::Shared;
use crate::sys::{self, Cursor};
use crate::tables::{Growing, SharedArray};
use crate::values;
use crate::warm::TakenBack;

/// Entries written or read by one call.
const BATCH: usize = 4096;

/// A map operation that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{operation} map {map}")]
pub struct MapError {
    operation: &'static str,
    map: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl MapError {
    pub(crate) fn new(
        operation: &'static str,
        map: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { operation, map, source: source.into() }
    }
}

/// Some of the operations could not be carried out.
#[derive(Debug, thiserror::Error)]
#[error("operation {done} of a plan failed")]
pub struct Failed {
    /// How many of them were, from the first on.
    pub done: usize,
    /// Why the next one was not.
    #[source]
    pub error: MapError,
}

/// The tables of Services, real or recorded.
pub trait ServiceMaps: Send {
    /// Everything in them.
    fn observe(&mut self) -> Result<Observed, MapError>;
    /// Carries out operations in order.
    fn apply(&mut self, ops: &[MapOp]) -> Result<(), Failed>;
}

/// What was counted of one Service since it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounts {
    /// Connections, and flows of datagrams.
    pub connections: u64,
    /// Refused for want of an endpoint.
    pub refused: u64,
    /// Dropped: not in the source ranges, or no endpoint where it may go.
    pub dropped: u64,
}

/// The counters of Services and backends, as they were in place when this was made; cheap to make, and read without any lock.
#[derive(Clone, Debug)]
pub struct Stats {
    backends: Arc<Shared>,
    services: Arc<Shared>,
}

impl Stats {
    /// Services of which anything was counted, by number.
    pub fn services(&self) -> impl Iterator<Item = (ServiceNumber, ServiceCounts)> {
        let all = (0..self.services.places()).map(|number| (ServiceNumber(number), self.service(number)));
        all.filter(|(_, counts)| counts.connections != 0 || counts.refused != 0 || counts.dropped != 0)
    }

    fn service(&self, number: u32) -> ServiceCounts {
        let [connections, refused, dropped] = self.services.numbers::<3>(number).unwrap_or_default();
        ServiceCounts { connections, refused, dropped }
    }

    /// Connections to a backend since it is there.
    pub fn backend(&self, id: BackendId) -> u64 {
        self.backends.numbers::<1>(id.0).map_or(0, |[connections]| connections)
    }
}

/// The tables in the kernel.
#[derive(Debug)]
pub struct KernelMaps {
    pub(crate) services: Growing,
    pub(crate) slots: SharedArray,
    pub(crate) backends: SharedArray,
    pub(crate) backend_stats: SharedArray,
    pub(crate) service_stats: SharedArray,
    pub(crate) ranges: LpmTrie<MapData, abi::SourceRange, u32>,
    pub(crate) nodes: BpfHashMap<MapData, abi::Address, u32>,
    pub(crate) taken_back: TakenBack,
}

impl KernelMaps {
    /// What the programs count, to be read by others while these tables change.
    pub fn stats(&self) -> Stats {
        Stats { backends: self.backend_stats.memory.clone(), services: self.service_stats.memory.clone() }
    }

    /// Bytes of the kernel's memory in the arrays.
    pub fn array_bytes(&self) -> u64 {
        [&self.slots, &self.backends, &self.backend_stats, &self.service_stats]
            .map(|array| array.memory.bytes())
            .iter()
            .sum()
    }

    /// How much there is room for.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            services: self.services.capacity(),
            slots: self.slots.map.capacity(),
            // The two may differ after a growth that ended half way.
            backends: self.backends.map.capacity().min(self.backend_stats.map.capacity()),
            numbers: self.service_stats.map.capacity(),
        }
    }

    fn frontends(&self) -> Result<Vec<(abi::ServiceKey, abi::ServiceValue)>, MapError> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let (mut cursor, mut all) = (Cursor::default(), Vec::new());
        let error = |error| MapError::new("read", abi::maps::SERVICES, error);
        while cursor.next(self.services.fd(), BATCH, &mut keys, &mut values).map_err(error)? {
            all.extend(keys.iter().copied().zip(values.iter().copied()));
        }
        Ok(all)
    }

    fn grow(&mut self, table: Grown, capacity: u32) -> Result<(), MapError> {
        match table {
            Grown::Services => self.grow_services(capacity),
            Grown::Slots => self.slots.grow(capacity, false),
            Grown::Backends => {
                if self.backends.map.capacity() < capacity {
                    self.backends.grow(capacity, false)?;
                }
                self.backend_stats.grow(capacity, true)
            }
            Grown::Numbers => self.service_stats.grow(capacity, true),
        }
    }

    fn grow_services(&mut self, capacity: u32) -> Result<(), MapError> {
        let larger = self.services.larger(capacity)?;
        let (keys, values): (Vec<_>, Vec<_>) = self.frontends()?.into_iter().unzip();
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            sys::update_batch(larger.fd().as_fd(), keys, values)
                .map_err(|(_, error)| MapError::new("copy", abi::maps::SERVICES, error))?;
        }
        self.services.install(larger, capacity).map(drop)
    }

    /// Carries out an operation other than those on frontends.
    fn carry_out(&mut self, op: &MapOp) -> Result<(), MapError> {
        let beyond = |map| MapError::new("write beyond the end of", map, "there is no such place");
        match op {
            MapOp::Grow(table, capacity) => self.grow(*table, *capacity),
            MapOp::WriteSlots(first, ids) => {
                let places = (*first..).zip(ids.iter());
                let mut written = places.map(|(place, id)| self.slots.memory.store(place, &[*id]));
                if written.all(|is_there| is_there) { Ok(()) } else { Err(beyond(abi::maps::SLOTS)) }
            }
            MapOp::PutBackend(id, held) => {
                let is_there = self.backends.memory.store(id.0, &values::backend_words(held));
                if is_there { Ok(()) } else { Err(beyond(abi::maps::BACKENDS)) }
            }
            MapOp::PutSourceRange(number, range) => {
                let (bits, data) = values::range_key(*number, range);
                let error = |error| MapError::new("write", abi::maps::SOURCE_RANGES, error);
                self.ranges.insert(&Key::new(bits, data), 0, 0).map_err(error)
            }
            MapOp::DeleteSourceRange(number, range) => {
                let (bits, data) = values::range_key(*number, range);
                gone(self.ranges.remove(&Key::new(bits, data)), abi::maps::SOURCE_RANGES)
            }
            MapOp::FreeSlots(extent) => {
                for place in extent.first..extent.first.saturating_add(extent.count) {
                    self.slots.memory.store(place, &[0]);
                }
                Ok(())
            }
            MapOp::FreeBackend(id) => {
                self.backends.memory.store(id.0, &[0; values::BACKEND_WORDS]);
                self.backend_stats.memory.clear(id.0);
                Ok(())
            }
            MapOp::FreeNumber(number) => {
                self.service_stats.memory.clear(number.0);
                Ok(())
            }
            MapOp::PutNode(ip, address) => {
                let error = |error| MapError::new("write", abi::maps::NODES, error);
                self.nodes.insert(values::from_ip(ip), values::node_flags(*address), 0).map_err(error)
            }
            MapOp::DeleteNode(ip) => gone(self.nodes.remove(&values::from_ip(ip)), abi::maps::NODES),
            MapOp::DeleteService(frontend) => sys::delete(self.services.fd(), &values::service_key(frontend))
                .map_err(|error| MapError::new("delete from", abi::maps::SERVICES, error)),
            MapOp::PutService(frontend, value) => {
                let (key, value) = (values::service_key(frontend), values::service_value(value));
                sys::update(self.services.fd(), &key, &value, 0)
                    .map_err(|error| MapError::new("write", abi::maps::SERVICES, error))
            }
        }
    }
}

/// That an entry has gone already is as good.
pub(crate) fn gone(result: Result<(), aya::maps::MapError>, map: &'static str) -> Result<(), MapError> {
    match result {
        Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        result => result.map_err(|error| MapError::new("delete from", map, error)),
    }
}

/// Whether nobody sees what an operation writes before a frontend leads there, so that frontends may wait for it. That a backend takes
/// no new connections is seen at once: frontends must have stopped leading to it before.
fn is_unseen(op: &MapOp) -> bool {
    match op {
        MapOp::WriteSlots(..) | MapOp::PutSourceRange(..) => true,
        MapOp::PutBackend(_, held) => !held.draining,
        _ => false,
    }
}

/// Whether packets of flows that there are already may no longer go where they went.
fn takes_back(op: &MapOp) -> bool {
    match op {
        MapOp::PutBackend(_, held) => held.draining,
        // The first range of a Service shuts out all others.
        MapOp::PutSourceRange(..) => true,
        MapOp::DeleteService(_) | MapOp::DeleteSourceRange(..) | MapOp::FreeBackend(_) => true,
        _ => false,
    }
}

/// Frontends that are to be written together.
#[derive(Default)]
struct Frontends {
    keys: Vec<abi::ServiceKey>,
    values: Vec<abi::ServiceValue>,
    /// Which operation each is.
    places: Vec<usize>,
}

impl Frontends {
    fn write(&mut self, services: &Growing) -> Result<(), Failed> {
        let written = sys::update_batch(services.fd(), &self.keys, &self.values);
        let result = written.map_err(|(done, error)| Failed {
            done: self.places.get(done).copied().unwrap_or(0),
            error: MapError::new("write", abi::maps::SERVICES, error),
        });
        self.keys.clear();
        self.values.clear();
        self.places.clear();
        result
    }
}

impl ServiceMaps for KernelMaps {
    fn observe(&mut self) -> Result<Observed, MapError> {
        let mut observed = Observed { capacity: self.capacity(), ..Observed::default() };
        for (key, value) in self.frontends()? {
            match values::frontend(&key) {
                Some(frontend) => observed.services.push((frontend, values::value(&value))),
                // A key that no version of this layout writes: nobody would ever remove it.
                None => sys::delete(self.services.fd(), &key)
                    .map_err(|error| MapError::new("delete from", abi::maps::SERVICES, error))?,
            }
        }
        let slots = &self.slots.memory;
        let ids = (0..slots.places()).map(|place| slots.load::<1>(place).map_or(0, |[id]| id));
        observed.slots = ids.collect();
        let used = observed.slots.iter().rposition(|id| *id != 0).map_or(0, |last| last + 1);
        observed.slots.truncate(used);
        for id in 1..self.backends.memory.places() {
            if let Some(held) = self.backends.memory.load(id).and_then(values::held) {
                observed.backends.push((BackendId(id), held));
            }
        }
        let error = |error| MapError::new("read", abi::maps::SOURCE_RANGES, error);
        for key in self.ranges.keys() {
            let key = key.map_err(error)?;
            observed.ranges.extend(values::range(key.prefix_len(), &key.data()));
        }
        for entry in self.nodes.iter() {
            let (address, flags) = entry.map_err(|error| MapError::new("read", abi::maps::NODES, error))?;
            observed.nodes.push((values::to_ip(address), values::node_address(flags)));
        }
        Ok(observed)
    }

    fn apply(&mut self, ops: &[MapOp]) -> Result<(), Failed> {
        let result = self.write(ops);
        // Also of what was only begun.
        if ops.iter().any(takes_back) {
            self.taken_back.raise();
        }
        result
    }
}

impl KernelMaps {
    /// Frontends that follow each other are written together. What nobody sees until something leads to it may be written before them
    /// although it comes later; all else is written in the order in which it was planned.
    fn write(&mut self, ops: &[MapOp]) -> Result<(), Failed> {
        let mut waiting = Frontends::default();
        for (place, op) in ops.iter().enumerate() {
            match op {
                MapOp::PutService(frontend, value) => {
                    waiting.keys.push(values::service_key(frontend));
                    waiting.values.push(values::service_value(value));
                    waiting.places.push(place);
                    if waiting.keys.len() == BATCH {
                        waiting.write(&self.services)?;
                    }
                    continue;
                }
                op if waiting.keys.is_empty() || is_unseen(op) => {}
                _ => waiting.write(&self.services)?,
            }
            if let Err(error) = self.carry_out(op) {
                if !waiting.keys.is_empty() {
                    waiting.write(&self.services)?;
                }
                return Err(Failed { done: place, error });
            }
        }
        if waiting.keys.is_empty() { Ok(()) } else { waiting.write(&self.services) }
    }
}

impl ServiceMaps for crate::Datapath {
    fn observe(&mut self) -> Result<Observed, MapError> {
        self.services().observe()
    }

    fn apply(&mut self, ops: &[MapOp]) -> Result<(), Failed> {
        self.services().apply(ops)
    }
}

#[cfg(test)]
mod tests {
    use pagurus_agent_core::addr::{Backend, Frontend, Protocol, ServiceIp};
    use pagurus_agent_core::services::plan::{Extent, Held};

    use super::*;

    #[test]
    fn what_may_be_written_before_frontends_and_what_flows_lose() {
        let backend = Backend { ip: [10, 0, 0, 1].into(), port: 80, protocol: Protocol::Udp };
        let put = |draining| MapOp::PutBackend(BackendId(1), Held { backend, local: false, draining });
        let frontend =
            Frontend { ip: ServiceIp::Own([10, 96, 0, 1].into()), port: 80, protocol: Protocol::Udp };
        let range = "10.0.0.0/8".parse().expect("a network");
        for (op, unseen, lost) in [
            (MapOp::WriteSlots(0, Box::new([1])), true, false),
            (put(false), true, false),
            (put(true), false, true),
            (MapOp::DeleteService(frontend), false, true),
            (MapOp::PutSourceRange(ServiceNumber(1), range), true, true),
            (MapOp::DeleteSourceRange(ServiceNumber(1), range), false, true),
            (MapOp::FreeBackend(BackendId(1)), false, true),
            (MapOp::FreeSlots(Extent { first: 0, count: 1 }), false, false),
            (MapOp::Grow(Grown::Slots, 8), false, false),
        ] {
            assert_eq!((is_unseen(&op), takes_back(&op)), (unseen, lost), "{op:?}");
        }
    }
}
