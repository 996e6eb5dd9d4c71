//! Who has a frontend when more than one Service wants it: the same one on every node and after every restart.
//!
//! Must not know: endpoints, maps.

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::Frontend;
use crate::hash::HashMap;
use crate::services::{Created, ServiceName};

/// How good a claim is; the least wins. An address the cluster gave out itself comes first, then Services by age, then host ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    class: u8,
    created: Created,
}

impl Rank {
    /// Of a Service's cluster IP.
    pub fn cluster_ip(created: &Created) -> Self {
        Self { class: 0, created: created.clone() }
    }

    /// Of a NodePort, or an address from outside.
    pub fn external(created: &Created) -> Self {
        Self { class: 1, created: created.clone() }
    }

    /// Of a host port.
    pub fn host_port(created: &Created) -> Self {
        Self { class: 2, created: created.clone() }
    }
}

type Claim = (Rank, ServiceName);

/// Frontends by claimant.
#[derive(Debug, Default)]
pub struct Claims {
    held: HashMap<Frontend, Claim>,
    /// All claims, of frontends that have more than one.
    contested: BTreeMap<Frontend, BTreeSet<Claim>>,
    /// Frontends each claims.
    wanted: HashMap<ServiceName, Box<[Frontend]>>,
}

/// What a change of claims meant for others.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Those who were given a frontend.
    pub(super) gained: Vec<ServiceName>,
    /// Those who lost one.
    pub(super) lost: Vec<ServiceName>,
    /// Whether the claimant itself took one from another.
    pub(super) took_over: bool,
}

impl Claims {
    /// Replaces everything a Service claims.
    pub(super) fn replace(&mut self, name: &ServiceName, claims: Vec<(Frontend, Rank)>) -> Changes {
        let mut changes = Changes::default();
        // The best claim to each; what is claimed as before is not touched.
        let mut new: BTreeMap<Frontend, Rank> = BTreeMap::new();
        for (frontend, rank) in claims {
            let best = new.entry(frontend).or_insert_with(|| rank.clone());
            if rank < *best {
                *best = rank;
            }
        }
        for frontend in self.wanted.remove(name).unwrap_or_default() {
            if !new.contains_key(&frontend) {
                self.release(&frontend, name, &mut changes);
            }
        }
        if !new.is_empty() {
            self.wanted.insert(name.clone(), new.keys().copied().collect());
        }
        for (frontend, rank) in new {
            self.claim(frontend, (rank, name.clone()), &mut changes);
        }
        changes
    }

    fn claim(&mut self, frontend: Frontend, claim: Claim, changes: &mut Changes) {
        let Some(holder) = self.held.get(&frontend) else {
            self.held.insert(frontend, claim);
            return;
        };
        let is_contested = self.contested.contains_key(&frontend);
        if holder.1 == claim.1 && !is_contested {
            self.held.insert(frontend, claim);
            return;
        }
        let all = self.contested.entry(frontend).or_insert_with(|| BTreeSet::from([holder.clone()]));
        all.retain(|(_, name)| *name != claim.1);
        all.insert(claim.clone());
        let Some(best) = all.first().cloned() else { return };
        let old = self.held.insert(frontend, best.clone());
        if let Some((_, old)) = old.filter(|(_, old)| *old != best.1) {
            if best.1 == claim.1 {
                changes.took_over = true;
            } else {
                changes.gained.push(best.1);
            }
            changes.lost.push(old);
        }
    }

    fn release(&mut self, frontend: &Frontend, name: &ServiceName, changes: &mut Changes) {
        let Some(all) = self.contested.get_mut(frontend) else {
            if self.held.get(frontend).is_some_and(|(_, holder)| holder == name) {
                self.held.remove(frontend);
            }
            return;
        };
        all.retain(|(_, other)| other != name);
        let best = all.first().cloned();
        if all.len() < 2 {
            self.contested.remove(frontend);
        }
        let Some(best) = best else { return };
        let old = self.held.insert(*frontend, best.clone());
        if old.is_some_and(|(_, old)| old != best.1) {
            changes.gained.push(best.1);
        }
    }

    /// Who has a frontend.
    pub fn holder(&self, frontend: &Frontend) -> Option<&ServiceName> {
        self.held.get(frontend).map(|(_, name)| name)
    }

    /// Frontends that more than one claims: who has it, who else wants it.
    pub fn contested(&self) -> impl Iterator<Item = (&Frontend, &ServiceName, Vec<&ServiceName>)> {
        self.contested.iter().filter_map(|(frontend, all)| {
            let mut names = all.iter().map(|(_, name)| name);
            Some((frontend, names.next()?, names.collect()))
        })
    }

    /// What a Service claims and another one has: frontend, who has it.
    pub fn lost(&self, name: &ServiceName) -> Vec<(Frontend, ServiceName)> {
        let wanted = self.wanted.get(name).into_iter().flatten();
        let held = wanted.filter_map(|frontend| Some((*frontend, self.holder(frontend)?.clone())));
        held.filter(|(_, holder)| holder != name).collect()
    }
}
