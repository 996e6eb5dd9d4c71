//! From compiled Services to map operations: a plan per Service, ordered so that a packet never meets half of it.
//!
//! Order of one plan: larger maps, places of the flat table that nothing leads to yet, new backends, source ranges; then each
//! frontend's value, whole; then what goes. What nothing leads to any more stays as it is for a while (the quarantine), because
//! a program that has read the old value may still follow it; only then it is emptied and given out again. Must not know: how
//! operations are carried out, what time it is (the caller hands in a clock that never goes back, in milliseconds).
//!
//! [`Table::plan`] decides against the mirror of the maps; [`Table::commit`] tells what was done of it, so that a plan that fails
//! half way leaves a true mirror and the next one goes on from there.

mod adopt;
mod commit;
mod extents;
mod ids;
mod ops;

#[cfg(any(test, feature = "fake"))]
pub mod memory;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;

pub use ops::{Capacity, Extent, Flags, Grown, Held, MapOp, Observed, ServiceNumber, Value};

use crate::addr::{Backend, BackendId, Frontend};
use crate::hash::HashMap;
use crate::services::claims::Claims;
use crate::services::{Compiled, NodeAddress, Route, ServiceName, maglev};
use adopt::Adoption;
use extents::Extents;
use ids::Ids;

/// Milliseconds for which nothing is given out again.
pub const QUARANTINE: u64 = 3000;

/// A Service that does not fit into the maps, however large they are made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {map} map is full ({limit} entries)")]
pub struct Full {
    /// Which map.
    pub map: &'static str,
    /// The most entries it may have.
    pub limit: u32,
}

/// The mirror of the maps, and which Service each entry belongs to.
#[derive(Debug)]
pub struct Table {
    values: HashMap<Frontend, Value>,
    /// By id.
    backends: Vec<Option<Held>>,
    nodes: HashMap<IpAddr, NodeAddress>,
    extents: Extents,
    ids: Ids,
    numbers: Ids,
    states: HashMap<ServiceName, State>,
    generation: u32,
    capacity: Capacity,
    limits: Capacity,
    /// What an earlier agent left, as long as not every Service has been planned.
    adoption: Option<Box<Adoption>>,
    batch: Batch,
    /// When what may be given back; in order.
    quarantine: VecDeque<(u64, Leaving)>,
    /// What is to be emptied.
    due: BTreeSet<Due>,
}

/// What was planned and not yet told to be done.
#[derive(Debug, Default)]
struct Batch {
    /// What frontends will lead to; none: they will be gone.
    values: HashMap<Frontend, Option<Value>>,
    /// How many more frontends there will be.
    added: i64,
    capacity: Option<Capacity>,
    names: Vec<ServiceName>,
    /// Of those whose source ranges change.
    numbers: HashMap<ServiceNumber, ServiceName>,
    is_sweep: bool,
}

/// What the maps hold of one Service.
#[derive(Debug, Default)]
struct State {
    number: ServiceNumber,
    /// Every frontend that may be in the maps with its number.
    frontends: Box<[Frontend]>,
    /// Those of them that other Services are to take over and have not yet.
    lent: Box<[Frontend]>,
    /// In order.
    members: Vec<Kept>,
    /// Those written.
    ranges: Vec<IpNet>,
    /// Not all of the last plan was carried out.
    is_pending: bool,
    /// Nothing is wanted of it any more.
    is_gone: bool,
}

/// An endpoint of a Service and the id it has.
#[derive(Clone, Copy, Debug)]
struct Kept {
    backend: Backend,
    id: BackendId,
    /// [`STAYS`], [`LEAVES`], or when it may go.
    until: u64,
}

/// [`Kept::until`]: it is wanted.
const STAYS: u64 = 0;
/// [`Kept::until`]: it is not wanted, and the frontends may still lead to it.
const LEAVES: u64 = u64::MAX;

/// Something that waits to be given back.
#[derive(Clone, Debug)]
enum Leaving {
    Slots(Extent),
    Member(ServiceName, BackendId),
    Number(ServiceName),
    OrphanBackend(BackendId),
    OrphanNumber(ServiceNumber),
}

/// Something to be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Slots(Extent),
    Backend(BackendId),
    Number(ServiceNumber),
}

impl Table {
    /// How much the maps hold.
    pub fn used(&self) -> Capacity {
        let services = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        Capacity {
            services,
            slots: self.extents.used(),
            backends: self.ids.used(),
            numbers: self.numbers.used(),
        }
    }

    /// How much the maps have room for.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// The number of a Service.
    pub fn number(&self, name: &ServiceName) -> Option<ServiceNumber> {
        self.states.get(name).map(|state| state.number)
    }

    /// Names of all Services by number.
    pub fn numbers(&self) -> impl Iterator<Item = (ServiceNumber, &ServiceName)> {
        self.states.iter().map(|(name, state)| (state.number, name))
    }

    /// The backends of a Service with their ids.
    pub fn members(&self, name: &ServiceName) -> impl Iterator<Item = (BackendId, Backend)> {
        let members = self.states.get(name).into_iter().flat_map(|state| &state.members);
        members.filter(|member| member.until == STAYS).map(|member| (member.id, member.backend))
    }

    /// The operations that make the maps hold this Service, and nothing else of it. `claims` says what others have.
    ///
    /// Several Services may be planned before anything is carried out; [`commit`](Self::commit) must then be told of all these
    /// operations together.
    pub fn plan(
        &mut self,
        name: &ServiceName,
        compiled: &Compiled,
        claims: &Claims,
    ) -> Result<Vec<MapOp>, Full> {
        let mut state = match self.states.remove(name) {
            Some(state) => state,
            None if compiled.routes.is_empty() => return Ok(Vec::new()),
            None => self.adopt(compiled),
        };
        let planned = self.plan_state(name, &mut state, compiled, claims);
        if let Ok(ops) = &planned {
            state.is_pending |= !ops.is_empty();
            self.batch.names.push(name.clone());
        } else {
            state.is_pending = true;
        }
        self.states.insert(name.clone(), state);
        planned
    }

    fn plan_state(
        &mut self,
        name: &ServiceName,
        state: &mut State,
        compiled: &Compiled,
        claims: &Claims,
    ) -> Result<Vec<MapOp>, Full> {
        state.is_gone = compiled.routes.is_empty();
        if state.number.0 == 0 {
            let number = self.numbers.allocate(self.limits.numbers);
            state.number = ServiceNumber(number.ok_or(self.full(Grown::Numbers))?);
        }
        let places = self.assign(state, compiled)?;
        let mut draft = Draft::default();
        for (member, place) in compiled.members.iter().zip(&places) {
            let id = state.members[*place].id;
            let held = Held { backend: member.backend, local: member.local, draining: member.draining };
            draft.put_backend(self.held(id), id, held);
        }
        for member in state.members.iter().filter(|member| member.until != STAYS) {
            if let Some(held) = self.held(member.id) {
                draft.put_backend(Some(held), member.id, Held { draining: true, ..held });
            }
        }
        for range in compiled.ranges.iter().filter(|range| !state.ranges.contains(range)) {
            draft.before.push(MapOp::PutSourceRange(state.number, *range));
        }
        for range in state.ranges.iter().filter(|range| !compiled.ranges.contains(range)) {
            draft.after.push(MapOp::DeleteSourceRange(state.number, *range));
        }
        if compiled.ranges != state.ranges {
            self.batch.numbers.insert(state.number, name.clone());
        }
        let planned = self.route(name, state, compiled, &places, claims, &mut draft);
        let room = planned.and_then(|()| self.room(state, &draft));
        let grows = match room {
            Ok(grows) => grows,
            Err(full) => {
                draft.fresh.into_iter().for_each(|extent| self.extents.free(extent));
                return Err(full);
            }
        };
        for (frontend, value) in draft.values {
            self.batch.values.insert(frontend, value);
        }
        self.batch.added += draft.added - draft.removed;
        let parts = [grows, draft.before, draft.puts, draft.deletes, draft.after];
        Ok(parts.into_iter().flatten().collect())
    }

    /// Gives each endpoint its id, and says which of the others leave. The place of each in the state, in order.
    fn assign(&mut self, state: &mut State, compiled: &Compiled) -> Result<Vec<usize>, Full> {
        let is_new = compiled.members.iter().filter(|member| {
            state.members.binary_search_by_key(&member.backend, |kept| kept.backend).is_err()
        });
        let mut new = Vec::new();
        for member in is_new {
            let id = self.adoption.as_mut().and_then(|adoption| adoption.orphan(&member.backend));
            let id = match id.or_else(|| self.ids.allocate(self.limits.backends)) {
                Some(id) => BackendId(id),
                None => {
                    // Those that an earlier agent wrote wait for their time; the others nobody has seen.
                    let (written, unseen): (Vec<Kept>, Vec<Kept>) =
                        new.into_iter().partition(|kept: &Kept| self.held(kept.id).is_some());
                    unseen.into_iter().for_each(|kept| self.ids.free(kept.id.0));
                    state.members.extend(written.into_iter().map(|kept| Kept { until: LEAVES, ..kept }));
                    state.members.sort_unstable_by_key(|kept| kept.backend);
                    return Err(self.full(Grown::Backends));
                }
            };
            new.push(Kept { backend: member.backend, id, until: STAYS });
        }
        if !new.is_empty() {
            state.members.reserve_exact(new.len());
            state.members.extend(new);
            state.members.sort_unstable_by_key(|kept| kept.backend);
        }
        let mut places = Vec::with_capacity(compiled.members.len());
        let mut wanted = compiled.members.iter().map(|member| member.backend).peekable();
        for (place, kept) in state.members.iter_mut().enumerate() {
            if wanted.next_if_eq(&kept.backend).is_some() {
                kept.until = STAYS;
                places.push(place);
            } else if kept.until == STAYS {
                kept.until = LEAVES;
            }
        }
        Ok(places)
    }

    /// Plans the frontends' values and the extents they need.
    fn route(
        &mut self,
        name: &ServiceName,
        state: &mut State,
        compiled: &Compiled,
        places: &[usize],
        claims: &Claims,
        draft: &mut Draft,
    ) -> Result<(), Full> {
        let id_of = |member: &u32| state.members[places[*member as usize]].id.0;
        let lists: Vec<Box<[u32]>> =
            compiled.lists.iter().map(|list| list.iter().map(id_of).collect()).collect();
        // What it leads to now, for lists that stay as they are.
        let now: Vec<Value> = state
            .frontends
            .iter()
            .filter_map(|frontend| self.value(frontend))
            .filter(|value| value.service == state.number)
            .collect();
        let mut extents: Vec<Option<Extent>> = vec![None; lists.len()];
        let mut tables: Vec<Option<Extent>> = vec![None; lists.len()];
        for route in &compiled.routes {
            for list in [route.inside, route.outside] {
                if extents[list].is_none() {
                    extents[list] = Some(self.extent(&lists[list], &now, draft)?);
                }
            }
            if route.maglev && tables[route.outside].is_none() {
                let backends: Vec<Backend> = compiled.backends(route.outside).collect();
                let outside = extents[route.outside].unwrap_or_default();
                tables[route.outside] =
                    Some(self.table(&backends, &lists[route.outside], outside, &now, draft)?);
            }
            let value = Value {
                service: state.number,
                flags: route.flags,
                affinity: route.affinity,
                generation: 0,
                inside: extents[route.inside].unwrap_or_default(),
                outside: extents[route.outside].unwrap_or_default(),
                maglev: tables[route.outside].filter(|_| route.maglev).unwrap_or_default(),
            };
            self.put(route, value, draft);
        }
        let mut frontends: Vec<Frontend> = compiled.routes.iter().map(|route| route.frontend).collect();
        let mut lent = Vec::new();
        let wanted: std::collections::HashSet<Frontend> = frontends.iter().copied().collect();
        for frontend in state.frontends.iter().filter(|frontend| !wanted.contains(frontend)) {
            if self.value(frontend).is_none_or(|value| value.service != state.number) {
                continue;
            }
            frontends.push(*frontend);
            // Whoever it belongs to now puts its own value there, so that there is no moment without one.
            if claims.holder(frontend).is_some_and(|holder| holder != name) {
                lent.push(*frontend);
            } else {
                draft.deletes.push(MapOp::DeleteService(*frontend));
                draft.values.push((*frontend, None));
                draft.removed += 1;
            }
        }
        state.frontends = frontends.into();
        state.lent = lent.into();
        Ok(())
    }

    /// The extent with these ids: the one that is there, or a new one.
    fn extent(&mut self, ids: &[u32], now: &[Value], draft: &mut Draft) -> Result<Extent, Full> {
        if ids.is_empty() {
            return Ok(Extent::EMPTY);
        }
        let known = now.iter().flat_map(|value| [value.inside, value.outside]).find(|extent| {
            let kept = self.extents.get(*extent).and_then(|kept| kept.ids.as_deref());
            kept == Some(ids)
        });
        match known {
            Some(extent) => Ok(extent),
            None => self.write(ids.into(), Some(ids.into()), draft),
        }
    }

    /// The Maglev table over these backends: the one that is there, or a new one.
    fn table(
        &mut self,
        backends: &[Backend],
        ids: &[u32],
        outside: Extent,
        now: &[Value],
        draft: &mut Draft,
    ) -> Result<Extent, Full> {
        let size = maglev::size(backends.len());
        let make =
            || maglev::table(backends).into_iter().filter_map(|place| ids.get(place as usize).copied());
        let known = now
            .iter()
            .find(|value| value.outside == outside && value.maglev.count == size)
            .map(|value| value.maglev);
        if let Some(extent) = known {
            // What an earlier agent made is looked at once.
            let is_right = match &mut self.adoption {
                Some(adoption) => adoption.is_right(extent, make),
                None => true,
            };
            if is_right {
                return Ok(extent);
            }
        }
        self.write(make().collect(), None, draft)
    }

    /// Takes room for these ids and plans to write them.
    fn write(
        &mut self,
        places: Box<[u32]>,
        ids: Option<Box<[u32]>>,
        draft: &mut Draft,
    ) -> Result<Extent, Full> {
        let count = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let extent = self.extents.allocate(count, ids).ok_or(self.full(Grown::Slots))?;
        draft.fresh.push(extent);
        draft.before.push(MapOp::WriteSlots(extent.first, places));
        Ok(extent)
    }

    fn put(&mut self, route: &Route, value: Value, draft: &mut Draft) {
        let now = self.value(&route.frontend);
        if now.is_some_and(|now| now.says(&value)) {
            return;
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        let value = Value { generation: self.generation, ..value };
        draft.added += i64::from(now.is_none());
        draft.values.push((route.frontend, Some(value)));
        draft.puts.push(MapOp::PutService(route.frontend, value));
    }

    /// What a frontend leads to, as planned.
    fn value(&self, frontend: &Frontend) -> Option<Value> {
        match self.batch.values.get(frontend) {
            Some(planned) => *planned,
            None => self.values.get(frontend).copied(),
        }
    }

    fn held(&self, id: BackendId) -> Option<Held> {
        self.backends.get(id.0 as usize).copied().flatten()
    }

    /// Operations that make room for a draft.
    fn room(&mut self, state: &State, draft: &Draft) -> Result<Vec<MapOp>, Full> {
        let mut capacity = self.batch.capacity.unwrap_or(self.capacity);
        let services = i64::try_from(self.values.len()).unwrap_or(i64::MAX) + self.batch.added + draft.added;
        let slots = draft.fresh.iter().map(|extent| extent.end()).max().unwrap_or(0);
        let ids = state.members.iter().map(|member| u64::from(member.id.0) + 1).max().unwrap_or(0);
        let needed = [
            (Grown::Services, u64::try_from(services).unwrap_or(0)),
            (Grown::Slots, slots),
            (Grown::Backends, ids),
            (Grown::Numbers, u64::from(state.number.0) + 1),
        ];
        let mut grows = Vec::new();
        for (table, needed) in needed {
            let has = capacity.of(table);
            if needed <= u64::from(has) {
                continue;
            }
            let limit = self.limits.of(table);
            if needed > u64::from(limit) {
                return Err(self.full(table));
            }
            let larger = needed.next_power_of_two().max(u64::from(has) * 2).min(u64::from(limit));
            let larger = u32::try_from(larger).unwrap_or(limit);
            capacity.set(table, larger);
            grows.push(MapOp::Grow(table, larger));
        }
        self.batch.capacity = Some(capacity);
        Ok(grows)
    }

    fn full(&self, table: Grown) -> Full {
        Full { map: table.name(), limit: self.limits.of(table) }
    }

    /// The operations that make the node map hold these addresses.
    pub fn plan_nodes(&self, nodes: &BTreeMap<IpAddr, NodeAddress>) -> Vec<MapOp> {
        let puts = nodes
            .iter()
            .filter(|(ip, address)| self.nodes.get(ip) != Some(address))
            .map(|(ip, address)| MapOp::PutNode(*ip, *address));
        let deletes = self.nodes.keys().filter(|ip| !nodes.contains_key(ip)).map(|ip| MapOp::DeleteNode(*ip));
        puts.chain(deletes).collect()
    }
}

/// Operations in the making.
#[derive(Default)]
struct Draft {
    /// Before any value leads to them.
    before: Vec<MapOp>,
    puts: Vec<MapOp>,
    deletes: Vec<MapOp>,
    after: Vec<MapOp>,
    fresh: Vec<Extent>,
    values: Vec<(Frontend, Option<Value>)>,
    /// How many more frontends there are before any goes.
    added: i64,
    removed: i64,
}

impl Draft {
    /// Plans to write a backend if that says anything new: that it takes no new connections only once no value leads to it.
    fn put_backend(&mut self, now: Option<Held>, id: BackendId, held: Held) {
        if now == Some(held) {
            return;
        }
        let ops = if now.is_some() && held.draining { &mut self.after } else { &mut self.before };
        ops.push(MapOp::PutBackend(id, held));
    }
}

#[cfg(test)]
mod tests;
