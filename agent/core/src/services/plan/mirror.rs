//! What the kernel maps hold, entry by entry, and the indices that planning needs over it.
//!
//! Must not know: Services; it has only frontends, pools and backends.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::addr::{Backend, BackendId, Frontend, PoolId};
use crate::services::plan::{MapOp, Spread};

/// How many entries each map can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Frontends.
    pub services: usize,
    /// Slots of all pools.
    pub slots: usize,
    /// Backends.
    pub backends: usize,
}

/// The entries read from the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Frontends: pool, and how clients spread over it.
    pub services: Vec<(Frontend, PoolId, Spread)>,
    /// Slots.
    pub slots: Vec<(PoolId, u32, BackendId)>,
    /// Backends.
    pub backends: Vec<(BackendId, Backend)>,
    /// Node addresses; true: of this node.
    pub nodes: Vec<(IpAddr, bool)>,
}

/// Value of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) pool: PoolId,
    pub(super) spread: Spread,
}

/// A copy of the maps.
#[derive(Clone, Debug)]
pub struct Mirror {
    capacity: Capacity,
    services: HashMap<Frontend, Entry>,
    frontends_of: HashMap<PoolId, BTreeSet<Frontend>>,
    /// Slots by index; 0 is an empty slot.
    slots: HashMap<PoolId, Vec<u32>>,
    slot_count: usize,
    backends: HashMap<BackendId, Backend>,
    backend_ids: HashMap<Backend, BackendId>,
    references: HashMap<BackendId, i64>,
    nodes: HashMap<IpAddr, bool>,
}

impl Mirror {
    pub(super) fn new(observed: &Observed, capacity: Capacity) -> Self {
        let mut mirror = Self {
            capacity,
            services: HashMap::with_capacity(observed.services.len()),
            frontends_of: HashMap::new(),
            slots: HashMap::new(),
            slot_count: 0,
            backends: HashMap::with_capacity(observed.backends.len()),
            backend_ids: HashMap::with_capacity(observed.backends.len()),
            references: HashMap::with_capacity(observed.backends.len()),
            nodes: observed.nodes.iter().copied().collect(),
        };
        for (id, backend) in &observed.backends {
            mirror.record(&MapOp::PutBackend(*id, *backend));
        }
        for (pool, slot, id) in &observed.slots {
            mirror.record(&MapOp::PutSlot(*pool, *slot, *id));
        }
        for (frontend, pool, spread) in &observed.services {
            mirror.record(&MapOp::PutService(*frontend, *pool, *spread));
        }
        mirror
    }

    /// Carries out an operation on the copy.
    pub(super) fn record(&mut self, op: &MapOp) {
        match *op {
            MapOp::PutBackend(id, backend) => {
                self.backends.insert(id, backend);
                self.backend_ids.insert(backend, id);
            }
            MapOp::PutSlot(pool, slot, id) => self.set_slot(pool, slot as usize, id.0),
            MapOp::PutService(frontend, pool, spread) => {
                self.forget_frontend(&frontend);
                self.services.insert(frontend, Entry { pool, spread });
                self.frontends_of.entry(pool).or_default().insert(frontend);
            }
            MapOp::DeleteService(frontend) => self.forget_frontend(&frontend),
            MapOp::DeleteSlot(pool, slot) => self.set_slot(pool, slot as usize, 0),
            MapOp::DeleteBackend(id) => {
                if let Some(backend) = self.backends.remove(&id)
                    && self.backend_ids.get(&backend) == Some(&id)
                {
                    self.backend_ids.remove(&backend);
                }
                self.references.remove(&id);
            }
            MapOp::PutNode(ip, local) => {
                self.nodes.insert(ip, local);
            }
            MapOp::DeleteNode(ip) => {
                self.nodes.remove(&ip);
            }
        }
    }

    fn forget_frontend(&mut self, frontend: &Frontend) {
        let Some(entry) = self.services.remove(frontend) else { return };
        if let Some(frontends) = self.frontends_of.get_mut(&entry.pool) {
            frontends.remove(frontend);
            if frontends.is_empty() {
                self.frontends_of.remove(&entry.pool);
            }
        }
    }

    /// Sets a slot, or empties it with 0.
    fn set_slot(&mut self, pool: PoolId, slot: usize, id: u32) {
        let slots = self.slots.entry(pool).or_default();
        if slots.len() <= slot {
            slots.resize(slot + 1, 0);
        }
        let old = std::mem::replace(&mut slots[slot], id);
        while slots.last() == Some(&0) {
            slots.pop();
        }
        if slots.is_empty() {
            self.slots.remove(&pool);
        }
        if old != 0 {
            self.slot_count -= 1;
            *self.references.entry(BackendId(old)).or_default() -= 1;
        }
        if id != 0 {
            self.slot_count += 1;
            *self.references.entry(BackendId(id)).or_default() += 1;
        }
    }

    /// Everything the copy holds, sorted.
    pub fn contents(&self) -> Observed {
        let mut observed = Observed {
            services: self.services.iter().map(|(f, entry)| (*f, entry.pool, entry.spread)).collect(),
            slots: Vec::with_capacity(self.slot_count),
            backends: self.backends.iter().map(|(id, backend)| (*id, *backend)).collect(),
            nodes: self.nodes.iter().map(|(ip, local)| (*ip, *local)).collect(),
        };
        for (pool, slots) in &self.slots {
            let filled = slots.iter().enumerate().filter(|(_, id)| **id != 0);
            observed.slots.extend(filled.map(|(slot, id)| (*pool, super::index(slot), BackendId(*id))));
        }
        observed.services.sort_unstable();
        observed.slots.sort_unstable();
        observed.backends.sort_unstable();
        observed.nodes.sort_unstable();
        observed
    }

    /// How many entries each map has.
    pub fn used(&self) -> Capacity {
        Capacity { services: self.services.len(), slots: self.slot_count, backends: self.backends.len() }
    }

    pub(super) fn capacity(&self) -> Capacity {
        self.capacity
    }

    pub(super) fn service(&self, frontend: &Frontend) -> Option<Entry> {
        self.services.get(frontend).copied()
    }

    pub(super) fn frontends(&self) -> impl Iterator<Item = &Frontend> {
        self.services.keys()
    }

    pub(super) fn frontends_of(&self, pool: PoolId) -> impl Iterator<Item = &Frontend> {
        self.frontends_of.get(&pool).into_iter().flatten()
    }

    pub(super) fn pool_ids(&self) -> impl Iterator<Item = PoolId> {
        self.slots.keys().copied()
    }

    pub(super) fn has_pool(&self, pool: PoolId) -> bool {
        self.slots.contains_key(&pool) || self.frontends_of.contains_key(&pool)
    }

    pub(super) fn slot(&self, pool: PoolId, slot: usize) -> Option<BackendId> {
        self.slots.get(&pool)?.get(slot).filter(|id| **id != 0).map(|id| BackendId(*id))
    }

    pub(super) fn slots_len(&self, pool: PoolId) -> usize {
        self.slots.get(&pool).map_or(0, Vec::len)
    }

    /// How many slots from the first on are filled without a gap.
    pub(super) fn filled(&self, pool: PoolId) -> usize {
        self.slots.get(&pool).map_or(0, |slots| slots.iter().take_while(|id| **id != 0).count())
    }

    pub(super) fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends.get(&id)
    }

    pub(super) fn backend_id(&self, backend: &Backend) -> Option<BackendId> {
        self.backend_ids.get(backend).copied()
    }

    pub(super) fn backend_ids(&self) -> impl Iterator<Item = BackendId> {
        self.backends.keys().copied()
    }

    pub(super) fn references(&self, id: BackendId) -> i64 {
        self.references.get(&id).copied().unwrap_or(0)
    }

    pub(super) fn node(&self, ip: &IpAddr) -> Option<bool> {
        self.nodes.get(ip).copied()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &IpAddr> {
        self.nodes.keys()
    }

    /// Highest pool and backend ids in use.
    pub(super) fn highest_ids(&self) -> (u32, u32) {
        let pool = self.slots.keys().chain(self.frontends_of.keys()).map(|id| id.0).max();
        let backend = self.backends.keys().map(|id| id.0).max();
        (pool.unwrap_or(0), backend.unwrap_or(0))
    }
}
