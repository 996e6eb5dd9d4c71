//! What was carried out, and what may be given back after its time.
//!
//! Must not know: what is planned next.

use crate::addr::{BackendId, Frontend};
use crate::services::ServiceName;
use crate::services::plan::{Due, Extent, LEAVES, Leaving, MapOp, QUARANTINE, ServiceNumber, Table, Value};

/// So many things at most are given back in one go, so that no change waits for long behind it.
const AT_ONCE: usize = 256;

impl Table {
    /// Notes that the first `done` of these operations have been carried out and the others have not: everything that was planned
    /// since the last time, in its order.
    pub fn commit(&mut self, ops: &[MapOp], done: usize, now: u64) {
        let until = now.saturating_add(QUARANTINE);
        for op in ops.iter().take(done) {
            self.record(op, until);
        }
        // Room that was taken and that nothing leads to after all.
        for op in ops {
            if let MapOp::WriteSlots(first, ids) = op {
                let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
                self.retire_unused(Extent { first: *first, count }, until);
            }
        }
        let batch = std::mem::take(&mut self.batch);
        if done < ops.len() {
            return;
        }
        for name in batch.names {
            self.settle(&name, until);
        }
        if batch.is_sweep {
            for leaving in self.adoption.take().map(|adoption| adoption.rest()).into_iter().flatten() {
                self.quarantine.push_back((until, leaving));
            }
        }
    }

    /// A Service's last plan was carried out whole: what it let go of may be given back when its time has come.
    fn settle(&mut self, name: &ServiceName, until: u64) {
        let Some(state) = self.states.get_mut(name) else { return };
        state.is_pending = false;
        for member in state.members.iter_mut().filter(|member| member.until == LEAVES) {
            member.until = until;
            self.quarantine.push_back((until, Leaving::Member(name.clone(), member.id)));
        }
        if state.is_gone {
            self.quarantine.push_back((until, Leaving::Number(name.clone())));
        }
    }

    fn record(&mut self, op: &MapOp, until: u64) {
        match op {
            MapOp::Grow(table, capacity) => self.capacity.set(*table, *capacity),
            MapOp::WriteSlots(..) => {}
            MapOp::PutBackend(id, held) => {
                let place = id.0 as usize;
                if self.backends.len() <= place {
                    self.backends.resize(place + 1, None);
                }
                self.backends[place] = Some(*held);
            }
            MapOp::PutSourceRange(number, range) => {
                if let Some(state) = self.state_of(*number) {
                    state.ranges.push(*range);
                }
            }
            MapOp::DeleteSourceRange(number, range) => {
                let was_orphan = |adoption: &mut Box<super::Adoption>| adoption.forget_range(*number, range);
                if !self.adoption.as_mut().is_some_and(was_orphan)
                    && let Some(state) = self.state_of(*number)
                {
                    state.ranges.retain(|other| other != range);
                }
            }
            MapOp::PutService(frontend, value) => {
                value.extents().for_each(|extent| self.extents.enter(extent));
                let old = self.values.insert(*frontend, *value);
                self.leave(old, until);
            }
            MapOp::DeleteService(frontend) => {
                let old = self.values.remove(frontend);
                self.leave(old, until);
            }
            MapOp::FreeSlots(extent) => {
                if self.due.remove(&Due::Slots(*extent)) {
                    self.extents.free(*extent);
                }
            }
            MapOp::FreeBackend(id) => {
                if self.due.remove(&Due::Backend(*id)) {
                    if let Some(place) = self.backends.get_mut(id.0 as usize) {
                        *place = None;
                    }
                    self.ids.free(id.0);
                }
            }
            MapOp::FreeNumber(number) => {
                if self.due.remove(&Due::Number(*number)) {
                    self.numbers.free(number.0);
                }
            }
            MapOp::PutNode(ip, address) => drop(self.nodes.insert(*ip, *address)),
            MapOp::DeleteNode(ip) => drop(self.nodes.remove(ip)),
        }
    }

    /// The Service whose source ranges are being changed.
    fn state_of(&mut self, number: ServiceNumber) -> Option<&mut super::State> {
        self.states.get_mut(self.batch.numbers.get(&number)?)
    }

    /// A frontend no longer has this value.
    fn leave(&mut self, old: Option<Value>, until: u64) {
        for extent in old.iter().flat_map(Value::extents) {
            if self.extents.leave(extent) {
                self.retire_unused(extent, until);
            }
        }
    }

    fn retire_unused(&mut self, extent: Extent, until: u64) {
        if self.extents.retire(extent, until) {
            self.quarantine.push_back((until, Leaving::Slots(extent)));
        }
    }

    /// When something may be given back next; [`release`](Self::release) is to be called then.
    pub fn release_at(&self) -> Option<u64> {
        if self.due.is_empty() { self.quarantine.front().map(|(at, _)| *at) } else { Some(0) }
    }

    /// The operations that empty what may be given out again, some at a time. To be carried out and committed before anything else is planned.
    pub fn release(&mut self, now: u64) -> Vec<MapOp> {
        let mut left = AT_ONCE;
        while let Some((at, _)) = self.quarantine.front()
            && *at <= now
            && left > 0
            && let Some((at, leaving)) = self.quarantine.pop_front()
        {
            left -= 1;
            self.give_back(at, leaving, now.saturating_add(QUARANTINE));
        }
        let op = |due: &Due| match *due {
            Due::Slots(extent) => MapOp::FreeSlots(extent),
            Due::Backend(id) => MapOp::FreeBackend(id),
            Due::Number(number) => MapOp::FreeNumber(number),
        };
        self.due.iter().map(op).collect()
    }

    fn give_back(&mut self, at: u64, leaving: Leaving, later: u64) {
        match leaving {
            Leaving::Slots(extent) => {
                if self.extents.may_go(extent, at) {
                    self.due.insert(Due::Slots(extent));
                }
            }
            Leaving::OrphanBackend(id) => drop(self.due.insert(Due::Backend(id))),
            Leaving::OrphanNumber(number) => drop(self.due.insert(Due::Number(number))),
            Leaving::Member(name, id) => self.give_back_member(at, name, id, later),
            Leaving::Number(name) => {
                let Some(state) = self.states.get(&name).filter(|state| state.is_gone) else { return };
                if self.is_held(state) || !state.members.is_empty() {
                    self.quarantine.push_back((later, Leaving::Number(name)));
                } else if let Some(state) = self.states.remove(&name) {
                    self.due.insert(Due::Number(state.number));
                }
            }
        }
    }

    fn give_back_member(&mut self, at: u64, name: ServiceName, id: BackendId, later: u64) {
        let Some(state) = self.states.get(&name) else { return };
        let is_held = self.is_held(state);
        let Some(state) = self.states.get_mut(&name) else { return };
        let member = state.members.iter().position(|member| member.id == id && member.until == at);
        let Some(place) = member else { return };
        if is_held {
            state.members[place].until = later;
            self.quarantine.push_back((later, Leaving::Member(name, id)));
        } else {
            state.members.remove(place);
            state.members.shrink_to_fit();
            self.due.insert(Due::Backend(id));
        }
    }

    /// Whether frontends may lead to what the Service no longer wants.
    fn is_held(&self, state: &super::State) -> bool {
        let leads = |frontend: &Frontend| {
            self.values.get(frontend).is_some_and(|value| value.service == state.number)
        };
        state.is_pending || state.lent.iter().any(leads)
    }
}
