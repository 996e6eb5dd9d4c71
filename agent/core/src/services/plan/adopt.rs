//! Going on from what an earlier agent left in the maps.
//!
//! Must not know: how the maps were read. Ids, numbers and extents of Services that are still there are kept; what belongs to
//! nobody goes once every Service has been planned.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::addr::{Backend, BackendId, Frontend};
use crate::hash::{HashMap, HashSet};
use crate::services::plan::extents::Extents;
use crate::services::plan::ids::Ids;
use crate::services::plan::{
    Batch, Capacity, Extent, Flags, Kept, LEAVES, Leaving, MapOp, Observed, QUARANTINE, ServiceNumber, State,
    Table, Value,
};
use crate::services::{Compiled, ServiceName};

/// What nobody has claimed yet.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    /// Frontends by the number they have.
    numbers: HashMap<ServiceNumber, Vec<Frontend>>,
    /// Backends' ids that no Service has.
    ids: HashSet<u32>,
    /// Those of them that no frontend leads to.
    orphans: HashMap<Backend, Vec<u32>>,
    ranges: BTreeMap<ServiceNumber, Vec<IpNet>>,
    /// The flat table as it was.
    slots: Vec<u32>,
    /// Maglev tables that have been looked at.
    right: HashSet<u32>,
}

impl Adoption {
    /// An id that has this backend and that nothing else is known of.
    pub(super) fn orphan(&mut self, backend: &Backend) -> Option<u32> {
        let ids = self.orphans.get_mut(backend)?;
        while let Some(id) = ids.pop() {
            if self.ids.remove(&id) {
                return Some(id);
            }
        }
        None
    }

    /// Whether a Maglev table is as it should be.
    pub(super) fn is_right<I: Iterator<Item = u32>>(&mut self, extent: Extent, make: impl Fn() -> I) -> bool {
        if self.right.contains(&extent.first) {
            return true;
        }
        let is_right = read(&self.slots, extent).is_some_and(|ids| ids.iter().copied().eq(make()));
        if is_right {
            self.right.insert(extent.first);
        }
        is_right
    }

    /// A range that nobody claimed is gone; whether it was one.
    pub(super) fn forget_range(&mut self, number: ServiceNumber, range: &IpNet) -> bool {
        let Some(ranges) = self.ranges.get_mut(&number) else { return false };
        let before = ranges.len();
        ranges.retain(|other| other != range);
        ranges.len() < before
    }

    /// What is left over.
    pub(super) fn rest(self) -> impl Iterator<Item = Leaving> {
        let ids = self.ids.into_iter().map(|id| Leaving::OrphanBackend(BackendId(id)));
        ids.chain(self.numbers.into_keys().map(Leaving::OrphanNumber))
    }
}

/// The ids in an extent, if it is within the table.
fn read(slots: &[u32], extent: Extent) -> Option<&[u32]> {
    slots.get(extent.first as usize..usize::try_from(extent.end()).ok()?)
}

impl Table {
    /// Starts from what is in the maps; none may grow beyond `limits`.
    pub fn new(observed: Observed, limits: Capacity, now: u64) -> Self {
        let mut extents = Extents::new(limits.slots);
        let highest = observed.backends.iter().map(|(id, _)| id.0 as usize + 1).max().unwrap_or(0);
        let mut backends = vec![None; highest];
        for (id, held) in &observed.backends {
            backends[id.0 as usize] = Some(*held);
        }
        let known = |id: &u32| backends.get(*id as usize).is_some_and(Option::is_some);
        let mut values = HashMap::with_capacity_and_hasher(observed.services.len(), Default::default());
        let mut numbers: HashMap<ServiceNumber, Vec<Frontend>> = HashMap::default();
        let mut led_to: HashSet<u32> = HashSet::default();
        let mut generation = 0;
        for (frontend, value) in &observed.services {
            generation = generation.max(value.generation);
            numbers.entry(value.service).or_default().push(*frontend);
            let is_whole = value.extents().all(|extent| {
                let ids = read(&observed.slots, extent).filter(|ids| ids.iter().all(known));
                let list = ids.filter(|_| extent != value.maglev).map(Box::from);
                ids.is_some() && extents.reserve(extent, list)
            });
            // No agent writes such a value: it says nothing that could be gone on with, and is written anew.
            let damaged = Value {
                flags: Flags(u32::MAX),
                inside: Extent::EMPTY,
                outside: Extent::EMPTY,
                maglev: Extent::EMPTY,
                ..*value
            };
            let value = if is_whole { *value } else { damaged };
            value.extents().for_each(|extent| extents.enter(extent));
            for extent in [value.inside, value.outside] {
                led_to.extend(read(&observed.slots, extent).into_iter().flatten());
            }
            values.insert(*frontend, value);
        }
        // A program may be reading what the last agent has just let go.
        let end = observed.slots.iter().rposition(|id| *id != 0).map_or(0, |last| last + 1);
        let until = now.saturating_add(QUARANTINE);
        let left = extents.reserve_free_before(u32::try_from(end).unwrap_or(u32::MAX));
        let mut quarantine = std::collections::VecDeque::new();
        for extent in left {
            extents.retire(extent, until);
            quarantine.push_back((until, Leaving::Slots(extent)));
        }
        let mut orphans: HashMap<Backend, Vec<u32>> = HashMap::default();
        for (id, held) in observed.backends.iter().filter(|(id, _)| !led_to.contains(&id.0)) {
            orphans.entry(held.backend).or_default().push(id.0);
        }
        let mut ranges: BTreeMap<ServiceNumber, Vec<IpNet>> = BTreeMap::new();
        for (number, range) in &observed.ranges {
            ranges.entry(*number).or_default().push(*range);
            // So that it is not given to another before these are gone.
            numbers.entry(*number).or_default();
        }
        let ids = Ids::new(observed.backends.iter().map(|(id, _)| id.0));
        let taken = Ids::new(numbers.keys().map(|number| number.0));
        let adoption = Adoption {
            numbers,
            ids: observed.backends.iter().map(|(id, _)| id.0).collect(),
            orphans,
            ranges,
            slots: observed.slots,
            right: HashSet::default(),
        };
        Self {
            values,
            backends,
            nodes: observed.nodes.into_iter().collect(),
            extents,
            ids,
            numbers: taken,
            states: HashMap::default(),
            generation,
            capacity: observed.capacity,
            limits,
            adoption: Some(Box::new(adoption)),
            batch: Batch::default(),
            quarantine,
            due: std::collections::BTreeSet::new(),
        }
    }

    /// The state of a Service that is planned for the first time: what an earlier agent left at its frontends.
    pub(super) fn adopt(&mut self, compiled: &Compiled) -> State {
        let Some(adoption) = &mut self.adoption else { return State::default() };
        let values = &self.values;
        let mut numbers =
            compiled.routes.iter().filter_map(|route| values.get(&route.frontend)).map(|value| value.service);
        let Some(number) = numbers.find(|number| adoption.numbers.contains_key(number)) else {
            return State::default();
        };
        let frontends = adoption.numbers.remove(&number).unwrap_or_default();
        let mut members: Vec<Kept> = Vec::new();
        for value in frontends.iter().filter_map(|frontend| values.get(frontend)) {
            for extent in [value.inside, value.outside] {
                let kept = self.extents.get(extent).and_then(|kept| kept.ids.as_deref());
                for id in kept.into_iter().flatten().filter(|id| adoption.ids.remove(id)) {
                    if let Some(held) = self.backends.get(*id as usize).copied().flatten() {
                        members.push(Kept { backend: held.backend, id: BackendId(*id), until: LEAVES });
                    }
                }
            }
        }
        members.sort_unstable_by_key(|kept| kept.backend);
        // One of several ids of the same backend is gone on with; the others belong to nobody.
        members.dedup_by(|later, kept| {
            let same = later.backend == kept.backend;
            if same {
                adoption.ids.insert(later.id.0);
            }
            same
        });
        members.shrink_to_fit();
        let ranges = adoption.ranges.remove(&number).unwrap_or_default();
        State { number, frontends: frontends.into(), members, ranges, ..State::default() }
    }

    /// Whether [`sweep`](Self::sweep) has yet to be carried out.
    pub fn needs_sweep(&self) -> bool {
        self.adoption.is_some()
    }

    /// The operations that remove what no planned Service owns. To be called once every Service has been planned, and again if
    /// they could not all be carried out.
    pub fn sweep(&mut self) -> Vec<MapOp> {
        let Some(adoption) = &self.adoption else { return Vec::new() };
        self.batch.is_sweep = true;
        let mut ops = Vec::new();
        for (number, frontends) in &adoption.numbers {
            let own = frontends.iter().filter(|frontend| {
                self.values.get(frontend).is_some_and(|value| value.service == *number)
                    && !self.batch.values.contains_key(frontend)
            });
            ops.extend(own.map(|frontend| MapOp::DeleteService(*frontend)));
        }
        for op in &ops {
            if let MapOp::DeleteService(frontend) = op {
                self.batch.values.insert(*frontend, None);
                self.batch.added -= 1;
            }
        }
        for (number, ranges) in &adoption.ranges {
            ops.extend(ranges.iter().map(|range| MapOp::DeleteSourceRange(*number, *range)));
        }
        ops
    }

    /// Services that had a plan and whose last one was not carried out whole.
    pub fn pending(&self) -> impl Iterator<Item = &ServiceName> {
        self.states.iter().filter(|(_, state)| state.is_pending).map(|(name, _)| name)
    }
}
