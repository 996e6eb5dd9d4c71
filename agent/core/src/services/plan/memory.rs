//! The maps in memory, for tests: they hold what the kernel's would hold, and refuse what could never be right.
//!
//! Must not know: how operations are planned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::{BackendId, Frontend};
use crate::services::NodeAddress;
use crate::services::plan::{Capacity, Extent, Grown, Held, MapOp, Observed, ServiceNumber, Value};

/// The maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Frontends.
    pub services: BTreeMap<Frontend, Value>,
    /// The flat table, as large as its room.
    pub slots: Vec<u32>,
    /// Backends by id, as large as their room.
    pub backends: Vec<Option<Held>>,
    /// Who may use what.
    pub ranges: BTreeSet<(ServiceNumber, IpNet)>,
    /// Nodes' addresses.
    pub nodes: BTreeMap<IpAddr, NodeAddress>,
    /// How much there is room for.
    pub capacity: Capacity,
}

/// An operation that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {op:?}")]
pub struct Refused {
    what: &'static str,
    op: MapOp,
}

impl Memory {
    /// Empty maps with this much room.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            slots: vec![0; capacity.slots as usize],
            backends: vec![None; capacity.backends as usize],
            capacity,
            ..Self::default()
        }
    }

    /// Carries out an operation.
    pub fn apply(&mut self, op: &MapOp) -> Result<(), Refused> {
        match self.change(op) {
            Ok(()) => Ok(()),
            Err(what) => Err(Refused { what, op: op.clone() }),
        }
    }

    fn change(&mut self, op: &MapOp) -> Result<(), &'static str> {
        match op {
            MapOp::Grow(table, capacity) => {
                check(*capacity > self.capacity.of(*table), "no larger map")?;
                self.capacity.set(*table, *capacity);
                match table {
                    Grown::Slots => self.slots.resize(*capacity as usize, 0),
                    Grown::Backends => self.backends.resize(*capacity as usize, None),
                    Grown::Services | Grown::Numbers => {}
                }
            }
            MapOp::WriteSlots(first, ids) => {
                let count = u32::try_from(ids.len()).map_err(|_| "too many places")?;
                self.check_unused(Extent { first: *first, count })?;
                let places = self.slots.get_mut(*first as usize..*first as usize + ids.len());
                places.ok_or("no such places")?.copy_from_slice(ids);
            }
            MapOp::PutBackend(id, held) => {
                check(id.0 != 0, "an id of 0")?;
                let place = self.backends.get_mut(id.0 as usize).ok_or("no such place")?;
                check(place.is_none_or(|old| old.backend == held.backend), "another backend's id")?;
                *place = Some(*held);
            }
            MapOp::PutSourceRange(number, range) => {
                check(self.ranges.insert((*number, *range)), "there already")?;
            }
            MapOp::PutService(frontend, value) => {
                check(value.service.0 < self.capacity.numbers, "no place for its counts")?;
                self.backends_of(value)?;
                self.services.insert(*frontend, *value);
                check(self.services.len() <= self.capacity.services as usize, "the map is full")?;
            }
            MapOp::DeleteService(frontend) => {
                check(self.services.remove(frontend).is_some(), "nothing there")?;
            }
            MapOp::DeleteSourceRange(number, range) => {
                check(self.ranges.remove(&(*number, *range)), "nothing there")?;
            }
            MapOp::FreeSlots(extent) => {
                self.check_unused(*extent)?;
                let end = usize::try_from(extent.end()).map_err(|_| "no such places")?;
                self.slots.get_mut(extent.first as usize..end).ok_or("no such places")?.fill(0);
            }
            MapOp::FreeBackend(id) => {
                let is_led_to = self
                    .services
                    .values()
                    .flat_map(Value::extents)
                    .any(|extent| self.ids(extent).is_some_and(|ids| ids.contains(&id.0)));
                check(!is_led_to, "a frontend leads to it")?;
                *self.backends.get_mut(id.0 as usize).ok_or("no such place")? = None;
            }
            MapOp::FreeNumber(number) => {
                check(self.services.values().all(|value| value.service != *number), "a frontend has it")?;
            }
            MapOp::PutNode(ip, address) => drop(self.nodes.insert(*ip, *address)),
            MapOp::DeleteNode(ip) => check(self.nodes.remove(ip).is_some(), "nothing there")?,
        }
        Ok(())
    }

    fn check_unused(&self, extent: Extent) -> Result<(), &'static str> {
        let overlaps =
            |other: Extent| u64::from(other.first) < extent.end() && u64::from(extent.first) < other.end();
        check(!self.services.values().flat_map(Value::extents).any(overlaps), "a frontend leads there")
    }

    /// The ids in an extent.
    pub fn ids(&self, extent: Extent) -> Option<&[u32]> {
        self.slots.get(extent.first as usize..usize::try_from(extent.end()).ok()?)
    }

    /// The backends in an extent; an error if a connection would find none.
    pub fn backends(&self, extent: Extent) -> Result<Vec<Held>, &'static str> {
        let ids = self.ids(extent).ok_or("places beyond the end")?;
        let held =
            |id: &u32| self.backends.get(*id as usize).copied().flatten().ok_or("an id without a backend");
        ids.iter().map(held).collect()
    }

    /// The backends in the extents of a value: inside, outside, Maglev table.
    pub fn backends_of(&self, value: &Value) -> Result<[Vec<Held>; 3], &'static str> {
        let lists = [value.inside, value.outside, value.maglev].map(|extent| self.backends(extent));
        let [inside, outside, maglev] = lists;
        let (inside, outside, maglev) = (inside?, outside?, maglev?);
        for list in [&inside, &outside] {
            check(list.is_sorted_by(|a, b| a.backend < b.backend), "not in order")?;
        }
        check(maglev.iter().all(|held| outside.contains(held)), "a stranger in the Maglev table")?;
        Ok([inside, outside, maglev])
    }

    /// Everything, as a new agent would read it.
    pub fn observed(&self) -> Observed {
        let backends = (0u32..).zip(&self.backends);
        Observed {
            services: self.services.iter().map(|(frontend, value)| (*frontend, *value)).collect(),
            slots: self.slots.clone(),
            backends: backends.filter_map(|(id, held)| Some((BackendId(id), (*held)?))).collect(),
            ranges: self.ranges.iter().copied().collect(),
            nodes: self.nodes.iter().map(|(ip, address)| (*ip, *address)).collect(),
            capacity: self.capacity,
        }
    }
}

fn check(is_right: bool, what: &'static str) -> Result<(), &'static str> {
    if is_right { Ok(()) } else { Err(what) }
}
