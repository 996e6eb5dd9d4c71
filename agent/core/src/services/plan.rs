//! From pools to map operations: a plan per Service, ordered so that a connection never meets half of it.
//!
//! Order of one plan: new backends, slots, services; then services that go, slots, backends. After each single
//! operation every service in the maps has all its slots, and every slot its backend. Must not know: how operations
//! are carried out. [`Table::plan`] decides against the mirror of the maps; [`Table::record`] tells it what was done,
//! operation by operation, so that a plan that fails half way leaves a true mirror and the next one goes on from there.

mod mirror;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

pub use mirror::{Capacity, Mirror, Observed};

use crate::addr::{Backend, BackendId, Frontend, PoolId};
use crate::services::{Pool, PoolKey, ServiceName};

/// One write to the kernel maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    /// A backend under its id.
    PutBackend(BackendId, Backend),
    /// A slot of a pool.
    PutSlot(PoolId, u32, BackendId),
    /// A frontend: its pool and how clients spread over that.
    PutService(Frontend, PoolId, Spread),
    /// An address of a node, and whether it is this node.
    PutNode(IpAddr, bool),
    /// A frontend goes.
    DeleteService(Frontend),
    /// A slot goes.
    DeleteSlot(PoolId, u32),
    /// A backend goes.
    DeleteBackend(BackendId),
    /// A node's address goes.
    DeleteNode(IpAddr),
}

/// How the clients of a frontend spread over its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spread {
    /// How many slots the pool has.
    pub slots: u32,
    /// For so many seconds a client stays with its backend; 0: it does not.
    pub affinity: u32,
}

/// A Service that does not fit into the maps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {map} map is full ({capacity} entries)")]
pub struct Full {
    /// Which map.
    pub map: &'static str,
    /// Its capacity.
    pub capacity: usize,
}

/// The mirror of the maps, and which Service each entry belongs to.
#[derive(Debug)]
pub struct Table {
    mirror: Mirror,
    /// Pools that have an id.
    pools: HashMap<PoolKey, PoolId>,
    /// Pools whose clients stay with their backend, and for how long.
    affinities: HashMap<PoolId, u32>,
    /// Ids that have a name; all others are left over from before a restart.
    named: HashSet<PoolId>,
    /// Pools of each Service and their frontends, as last planned.
    of_service: HashMap<ServiceName, Vec<(PoolKey, Vec<Frontend>)>>,
    /// Who has a frontend.
    owners: HashMap<Frontend, PoolKey>,
    /// Who else wants it, in the order they will get it.
    waiting: BTreeMap<Frontend, BTreeSet<PoolKey>>,
    next_pool: u32,
    next_backend: u32,
}

impl Table {
    /// Starts from what is in the maps.
    pub fn new(observed: &Observed, capacity: Capacity) -> Self {
        let mirror = Mirror::new(observed, capacity);
        let (next_pool, next_backend) = mirror.highest_ids();
        Self {
            mirror,
            pools: HashMap::new(),
            affinities: HashMap::new(),
            named: HashSet::new(),
            of_service: HashMap::new(),
            owners: HashMap::new(),
            waiting: BTreeMap::new(),
            next_pool,
            next_backend,
        }
    }

    /// What the maps hold.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Frontends that more than one Service claims: frontend, who has it, who waits.
    pub fn contested(&self) -> impl Iterator<Item = (&Frontend, Option<&PoolKey>, &BTreeSet<PoolKey>)> {
        self.waiting.iter().map(|(frontend, waiting)| (frontend, self.owners.get(frontend), waiting))
    }

    /// Notes that an operation has been carried out.
    pub fn record(&mut self, op: &MapOp) {
        self.mirror.record(op);
    }

    /// The operations that make the maps hold these pools for a Service, and nothing else of it. No pools: the
    /// Service goes.
    pub fn plan(&mut self, name: &ServiceName, pools: &[Pool]) -> Result<Vec<MapOp>, Full> {
        let ids: Vec<PoolId> = pools.iter().map(|pool| self.pool_id(pool)).collect();
        let claims = self.claims(name, pools);
        let mut draft = Draft::new(&self.mirror, self.next_backend);
        for (pool, id) in pools.iter().zip(&ids) {
            let granted = pool.frontends.iter().filter(|f| claims.granted.get(f) == Some(&&pool.key));
            draft.fill(*id, pool, granted, &claims.granted);
        }
        for (frontend, heir) in &claims.released {
            match heir.as_ref().and_then(|heir| self.pools.get(heir)) {
                Some(id) => {
                    let affinity = self.affinities.get(id).copied().unwrap_or(0);
                    let slots = index(self.mirror.filled(*id));
                    draft.put_service(*frontend, *id, Spread { slots, affinity });
                }
                None => draft.delete_service(*frontend),
            }
        }
        let before = self.of_service.get(name).into_iter().flatten().map(|(key, _)| key);
        let gone: Vec<PoolKey> =
            before.filter(|key| !pools.iter().any(|pool| pool.key == **key)).cloned().collect();
        for id in gone.iter().filter_map(|key| self.pools.get(key)) {
            draft.drop_slots(*id, 0);
        }
        for (pool, id) in pools.iter().zip(&ids) {
            draft.drop_slots(*id, pool.backends.len());
        }
        let (ops, next_backend) = draft.finish()?;
        self.next_backend = next_backend;
        for (pool, id) in pools.iter().zip(ids) {
            self.affinities.insert(id, pool.affinity);
        }
        self.adopt(name, pools, claims, &gone);
        Ok(ops)
    }

    /// The operations that remove what no planned Service owns. To be called once every Service has been planned.
    pub fn sweep(&self) -> Vec<MapOp> {
        let mut draft = Draft::new(&self.mirror, self.next_backend);
        for frontend in self.mirror.frontends().filter(|frontend| !self.owners.contains_key(frontend)) {
            draft.delete_service(*frontend);
        }
        for id in self.mirror.pool_ids() {
            if !self.named.contains(&id) {
                draft.drop_slots(id, 0);
            }
        }
        draft.drop_orphans();
        draft.into_ops()
    }

    /// The operations that make the node map hold these addresses (true: of this node).
    pub fn plan_nodes(&self, nodes: &BTreeMap<IpAddr, bool>) -> Vec<MapOp> {
        let puts = nodes
            .iter()
            .filter(|(ip, local)| self.mirror.node(ip) != Some(**local))
            .map(|(ip, local)| MapOp::PutNode(*ip, *local));
        let deletes =
            self.mirror.nodes().filter(|ip| !nodes.contains_key(ip)).map(|ip| MapOp::DeleteNode(*ip));
        puts.chain(deletes).collect()
    }

    /// The id of a pool: its own, or that of the same frontends before a restart, or a new one.
    fn pool_id(&mut self, pool: &Pool) -> PoolId {
        if let Some(id) = self.pools.get(&pool.key) {
            return *id;
        }
        let left_over =
            pool.frontends.iter().filter_map(|frontend| self.mirror.service(frontend)).find(|entry| {
                !self.named.contains(&entry.pool)
                    && self.mirror.frontends_of(entry.pool).all(|other| pool.frontends.contains(other))
            });
        let id = match left_over {
            Some(entry) => entry.pool,
            None => loop {
                self.next_pool = self.next_pool.wrapping_add(1);
                let id = PoolId(self.next_pool);
                if id.0 != 0 && !self.named.contains(&id) && !self.mirror.has_pool(id) {
                    break id;
                }
            },
        };
        self.pools.insert(pool.key.clone(), id);
        self.named.insert(id);
        id
    }

    /// Who gets which frontend if this Service has these pools.
    fn claims<'a>(&self, name: &ServiceName, pools: &'a [Pool]) -> Claims<'a> {
        let mut claims = Claims::default();
        for pool in pools {
            for frontend in &pool.frontends {
                match self.owners.get(frontend) {
                    Some(owner) if owner.service != *name => {
                        claims.contested.insert(*frontend, &pool.key);
                    }
                    _ => {
                        claims.granted.entry(*frontend).or_insert(&pool.key);
                    }
                }
            }
        }
        for (key, frontends) in self.of_service.get(name).into_iter().flatten() {
            for frontend in frontends {
                if self.owners.get(frontend) == Some(key) && !claims.granted.contains_key(frontend) {
                    let mut heirs = self.waiting.get(frontend).into_iter().flatten();
                    let heir = heirs.find(|heir| heir.service != *name).cloned();
                    claims.released.insert(*frontend, heir);
                }
            }
        }
        claims
    }

    /// Takes over the names of a plan.
    fn adopt(&mut self, name: &ServiceName, pools: &[Pool], claims: Claims<'_>, gone: &[PoolKey]) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|key| key.service != *name);
            !waiting.is_empty()
        });
        for (frontend, key) in claims.contested {
            self.waiting.entry(frontend).or_default().insert(key.clone());
        }
        for (frontend, heir) in claims.released {
            match heir {
                Some(heir) => {
                    if let Some(waiting) = self.waiting.get_mut(&frontend) {
                        waiting.remove(&heir);
                        if waiting.is_empty() {
                            self.waiting.remove(&frontend);
                        }
                    }
                    self.owners.insert(frontend, heir);
                }
                None => {
                    self.owners.remove(&frontend);
                }
            }
        }
        for (frontend, key) in claims.granted {
            self.owners.insert(frontend, key.clone());
        }
        for key in gone {
            if let Some(id) = self.pools.remove(key) {
                self.named.remove(&id);
                self.affinities.remove(&id);
            }
        }
        if pools.is_empty() {
            self.of_service.remove(name);
        } else {
            let planned = pools.iter().map(|pool| (pool.key.clone(), pool.frontends.clone())).collect();
            self.of_service.insert(name.clone(), planned);
        }
    }
}

/// What becomes of the frontends of one Service.
#[derive(Debug, Default)]
struct Claims<'a> {
    /// Those it gets.
    granted: BTreeMap<Frontend, &'a PoolKey>,
    /// Those another Service has.
    contested: BTreeMap<Frontend, &'a PoolKey>,
    /// Those it gives up, and who gets them.
    released: BTreeMap<Frontend, Option<PoolKey>>,
}

/// Operations in the making: what the maps will hold after them.
struct Draft<'a> {
    mirror: &'a Mirror,
    next_backend: u32,
    puts: Vec<MapOp>,
    service_deletes: Vec<MapOp>,
    slot_deletes: Vec<MapOp>,
    backend_deletes: Vec<MapOp>,
    /// Ids given in this draft.
    ids: HashMap<Backend, BackendId>,
    /// Change of the number of slots that hold a backend.
    references: BTreeMap<BackendId, i64>,
    new_services: usize,
    new_slots: usize,
}

impl<'a> Draft<'a> {
    fn new(mirror: &'a Mirror, next_backend: u32) -> Self {
        Self {
            mirror,
            next_backend,
            puts: Vec::new(),
            service_deletes: Vec::new(),
            slot_deletes: Vec::new(),
            backend_deletes: Vec::new(),
            ids: HashMap::new(),
            references: BTreeMap::new(),
            new_services: 0,
            new_slots: 0,
        }
    }

    /// Makes a pool hold these backends and its frontends say so. Backends that stay keep their slot where they can.
    fn fill<'b>(
        &mut self,
        pool: PoolId,
        content: &Pool,
        frontends: impl Iterator<Item = &'b Frontend>,
        moving: &BTreeMap<Frontend, &PoolKey>,
    ) {
        let wanted: Vec<BackendId> =
            content.backends.iter().map(|backend| self.backend_id(backend)).collect();
        let count = wanted.len();
        let mut rest: HashSet<BackendId> = wanted.iter().copied().collect();
        let mut slots: Vec<Option<BackendId>> = Vec::with_capacity(count);
        for slot in 0..count {
            slots.push(self.mirror.slot(pool, slot).filter(|held| rest.remove(held)));
        }
        let mut rest = wanted.into_iter().filter(|id| rest.contains(id));
        for (slot, held) in slots.iter().enumerate() {
            if held.is_none()
                && let Some(id) = rest.next()
            {
                self.put_slot(pool, slot, id);
            }
        }
        let own: Vec<Frontend> = frontends.copied().collect();
        // Frontends that still show this pool and go later must not point beyond its end until then.
        let fading = self.mirror.frontends_of(pool).filter(|f| !own.contains(f) && !moving.contains_key(f));
        let spread = Spread { slots: index(count), affinity: content.affinity };
        for frontend in own.iter().chain(fading) {
            self.put_service(*frontend, pool, spread);
        }
    }

    fn backend_id(&mut self, backend: &Backend) -> BackendId {
        if let Some(id) = self.mirror.backend_id(backend).or_else(|| self.ids.get(backend).copied()) {
            return id;
        }
        let id = loop {
            self.next_backend = self.next_backend.wrapping_add(1);
            let id = BackendId(self.next_backend);
            if id.0 != 0 && self.mirror.backend(id).is_none() {
                break id;
            }
        };
        self.ids.insert(*backend, id);
        self.puts.push(MapOp::PutBackend(id, *backend));
        id
    }

    fn put_slot(&mut self, pool: PoolId, slot: usize, id: BackendId) {
        match self.mirror.slot(pool, slot) {
            Some(held) => *self.references.entry(held).or_default() -= 1,
            None => self.new_slots += 1,
        }
        *self.references.entry(id).or_default() += 1;
        self.puts.push(MapOp::PutSlot(pool, index(slot), id));
    }

    fn put_service(&mut self, frontend: Frontend, pool: PoolId, spread: Spread) {
        let entry = self.mirror.service(&frontend);
        if entry.is_some_and(|entry| entry.pool == pool && entry.spread == spread) {
            return;
        }
        self.new_services += usize::from(entry.is_none());
        self.puts.push(MapOp::PutService(frontend, pool, spread));
    }

    fn delete_service(&mut self, frontend: Frontend) {
        if self.mirror.service(&frontend).is_some() {
            self.service_deletes.push(MapOp::DeleteService(frontend));
        }
    }

    /// Removes the slots of a pool from this one on, last first.
    fn drop_slots(&mut self, pool: PoolId, from: usize) {
        for slot in (from..self.mirror.slots_len(pool)).rev() {
            if let Some(held) = self.mirror.slot(pool, slot) {
                *self.references.entry(held).or_default() -= 1;
                self.slot_deletes.push(MapOp::DeleteSlot(pool, index(slot)));
            }
        }
    }

    /// Removes every backend that no slot holds, not only those this draft let go.
    fn drop_orphans(&mut self) {
        for id in self.mirror.backend_ids() {
            self.references.entry(id).or_default();
        }
    }

    fn finish(mut self) -> Result<(Vec<MapOp>, u32), Full> {
        let capacity = self.mirror.capacity();
        let used = self.mirror.used();
        check(used.services + self.new_services, capacity.services, "services")?;
        check(used.slots + self.new_slots, capacity.slots, "slots")?;
        check(used.backends + self.ids.len(), capacity.backends, "backends")?;
        let next_backend = self.next_backend;
        self.drop_unreferenced();
        Ok((self.ordered(), next_backend))
    }

    fn into_ops(mut self) -> Vec<MapOp> {
        self.drop_unreferenced();
        self.ordered()
    }

    fn drop_unreferenced(&mut self) {
        let mirror = self.mirror;
        let unused = self.references.iter().filter(|(id, change)| mirror.references(**id) + **change == 0);
        self.backend_deletes.extend(unused.map(|(id, _)| MapOp::DeleteBackend(*id)));
    }

    fn ordered(self) -> Vec<MapOp> {
        let (mut backends, mut slots, mut services) = (Vec::new(), Vec::new(), Vec::new());
        for op in self.puts {
            match op {
                MapOp::PutBackend(..) => backends.push(op),
                MapOp::PutSlot(..) => slots.push(op),
                _ => services.push(op),
            }
        }
        let parts = [slots, services, self.service_deletes, self.slot_deletes, self.backend_deletes];
        backends.extend(parts.into_iter().flatten());
        backends
    }
}

fn check(needed: usize, capacity: usize, map: &'static str) -> Result<(), Full> {
    if needed > capacity { Err(Full { map, capacity }) } else { Ok(()) }
}

/// Slots are counted in 32 bits; a map cannot hold more.
fn index(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
