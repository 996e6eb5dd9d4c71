//! Which pods come and go next, in order. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;

use super::identity::{first, ordinal};
use crate::runtime::object::{available_at, deleting, finished, label, phase, ready, scaled};
use crate::runtime::revisions::REVISION_HASH;

/// All that a plan looks at.
pub(super) struct Observed<'a> {
    pub(super) set: &'a StatefulSet,
    pub(super) pods: &'a [Arc<Pod>],
    /// The name of the revision that pods below the partition have.
    pub(super) current: &'a str,
    /// The name of the revision of the present template.
    pub(super) update: &'a str,
    pub(super) now: Timestamp,
}

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Ordinals and revisions of new pods.
    pub(super) create: Vec<(i32, String)>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Waiting pods whose claims may be missing.
    pub(super) claims_for: Vec<Arc<Pod>>,
}

/// The lowest ordinal that is updated.
fn partition(set: &StatefulSet) -> i32 {
    let rolling = set.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    rolling.and_then(|r| r.partition).unwrap_or(0)
}

pub(super) fn on_delete(set: &StatefulSet) -> bool {
    set.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete")
}

/// Plans one pass.
pub(super) fn plan(observed: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    if deleting(&observed.set.metadata) {
        return plan;
    }
    let work = Work::new(observed);
    if work.start(&mut plan) && work.stop(&mut plan) && !on_delete(observed.set) {
        work.update(&mut plan);
    }
    plan
}

struct Work<'a> {
    observed: &'a Observed<'a>,
    /// In order one after the other, or all at once.
    ordered: bool,
    first: i32,
    /// By ordinal from the first.
    wanted: Vec<Option<&'a Arc<Pod>>>,
    /// Beyond the wanted ones, highest ordinal first.
    condemned: Vec<&'a Arc<Pod>>,
}

impl<'a> Work<'a> {
    fn new(observed: &'a Observed<'a>) -> Self {
        let set = observed.set;
        let first = first(set);
        let count = set.spec.replicas.unwrap_or(1).max(0);
        let mut wanted = vec![None; usize::try_from(count).unwrap_or(0)];
        let mut condemned = Vec::new();
        for pod in observed.pods {
            let Some(ordinal) = ordinal(set, pod) else { continue };
            match usize::try_from(ordinal - first).ok().and_then(|i| wanted.get_mut(i)) {
                Some(slot) => *slot = Some(pod),
                None => condemned.push((ordinal, pod)),
            }
        }
        condemned.sort_by_key(|(ordinal, _)| -ordinal);
        Self {
            observed,
            ordered: set.spec.pod_management_policy.as_deref() != Some("Parallel"),
            first,
            wanted,
            condemned: condemned.into_iter().map(|(_, pod)| pod).collect(),
        }
    }

    fn available(&self, pod: &Pod) -> bool {
        let wait = self.observed.set.spec.min_ready_seconds.unwrap_or(0);
        healthy(pod) && available_at(pod, wait).is_some_and(|at| at <= self.observed.now)
    }

    /// A new pod below the partition is of the current revision, others of the new one.
    fn revision_for(&self, ordinal: i32) -> String {
        let below = !on_delete(self.observed.set) && ordinal < self.first + partition(self.observed.set);
        if below { self.observed.current.to_owned() } else { self.observed.update.to_owned() }
    }

    /// Starts what is missing. True if all are there and, in order, available.
    fn start(&self, plan: &mut Plan) -> bool {
        for (ordinal, slot) in (self.first..).zip(&self.wanted) {
            let Some(pod) = slot else {
                plan.create.push((ordinal, self.revision_for(ordinal)));
                if self.ordered {
                    return false;
                }
                continue;
            };
            if finished(pod) {
                if !deleting(&pod.metadata) {
                    plan.delete.push((*pod).clone());
                }
                if self.ordered {
                    return false;
                }
                continue;
            }
            if phase(pod) == "Pending" {
                plan.claims_for.push((*pod).clone());
            }
            if self.ordered && !self.available(pod) {
                return false;
            }
        }
        true
    }

    /// Stops what is too much, from the top. True if nothing is left to stop.
    fn stop(&self, plan: &mut Plan) -> bool {
        let unhealthy = self.wanted.iter().flatten().chain(self.condemned.iter().rev()).find(|p| !healthy(p));
        for pod in &self.condemned {
            if deleting(&pod.metadata) {
                if self.ordered {
                    return false;
                }
                continue;
            }
            let is_the_unhealthy = unhealthy.is_some_and(|u| u.metadata.uid == pod.metadata.uid);
            if self.ordered && !self.available(pod) && !is_the_unhealthy {
                return false;
            }
            plan.delete.push((*pod).clone());
            if self.ordered {
                return false;
            }
        }
        true
    }

    /// Replaces pods of old revisions, from the top down to the partition.
    fn update(&self, plan: &mut Plan) {
        let rolling = self.observed.set.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let floor = usize::try_from(partition(self.observed.set)).unwrap_or(0).min(self.wanted.len());
        let old = |pod: &Pod| label(&pod.metadata, REVISION_HASH) != Some(self.observed.update);
        let targets = || self.wanted[floor..].iter().rev();
        if let Some(limit) = rolling.and_then(|r| r.max_unavailable.as_ref()) {
            let total = i32::try_from(self.wanted.len()).unwrap_or(i32::MAX);
            let limit = usize::try_from(scaled(limit, total, false).unwrap_or(1).max(1)).unwrap_or(1);
            let down = self.wanted.iter().filter(|slot| !slot.is_some_and(|p| self.available(p))).count();
            let doomed = targets().flatten().filter(|p| old(p) && !deleting(&p.metadata));
            plan.delete.extend(doomed.take(limit.saturating_sub(down)).map(|p| (*p).clone()));
            return;
        }
        for slot in targets() {
            let Some(pod) = slot else { return };
            if old(pod) && !deleting(&pod.metadata) {
                plan.delete.push((*pod).clone());
                return;
            }
            if !healthy(pod) {
                return;
            }
        }
    }
}

/// Running, ready, and not being deleted.
fn healthy(pod: &Pod) -> bool {
    phase(pod) == "Running" && ready(pod) && !deleting(&pod.metadata)
}
