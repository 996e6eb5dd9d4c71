//! Which pods come and go next, in order. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;

use super::identity::{first, missing_labels, ordinal};
use crate::runtime::object::{available_at, deleting, finished, key_of, label, name, phase, ready, scaled};
use crate::runtime::pods::BURST;
use crate::runtime::recorder::Note;
use crate::runtime::revisions::REVISION_HASH;

/// All that a plan looks at.
pub(super) struct Observed<'a> {
    pub(super) set: &'a StatefulSet,
    pub(super) pods: &'a [Arc<Pod>],
    /// The name of the revision that pods below the partition have.
    pub(super) current: &'a str,
    /// The name of the revision of the present template.
    pub(super) update: &'a str,
    /// Whether an ordinal's claims are on their way out, so that no pod can be made for it now.
    pub(super) blocked: &'a dyn Fn(i32) -> bool,
    pub(super) now: Timestamp,
}

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Pods that do not say who they are.
    pub(super) relabel: Vec<Arc<Pod>>,
    /// Ordinals and revisions of new pods.
    pub(super) create: Vec<(i32, String)>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Waiting pods whose claims may be missing.
    pub(super) claims_for: Vec<Arc<Pod>>,
    pub(super) notes: Vec<Note>,
}

/// The lowest ordinal that is updated, counted from the first.
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
    let nameless = |pod: &&Arc<Pod>| !missing_labels(observed.set, pod).is_empty();
    plan.relabel = observed.pods.iter().filter(nameless).cloned().collect();
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
    /// The first ordinal, and the first beyond the last.
    first: i32,
    end: i32,
    /// Within the ordinals.
    wanted: BTreeMap<i32, &'a Arc<Pod>>,
    /// Beyond them.
    condemned: BTreeMap<i32, &'a Arc<Pod>>,
}

impl<'a> Work<'a> {
    fn new(observed: &'a Observed<'a>) -> Self {
        let set = observed.set;
        let first = first(set);
        let end = first.saturating_add(set.spec.replicas.unwrap_or(1).max(0));
        let (wanted, condemned) = (observed.pods.iter())
            .filter_map(|pod| Some((ordinal(set, pod)?, pod)))
            .partition(|(ordinal, _)| (first..end).contains(ordinal));
        let ordered = set.spec.pod_management_policy.as_deref() != Some("Parallel");
        Self { observed, ordered, first, end, wanted, condemned }
    }

    fn available(&self, pod: &Pod) -> bool {
        let min_ready = self.observed.set.spec.min_ready_seconds.unwrap_or(0);
        healthy(pod) && available_at(pod, min_ready).is_some_and(|at| at <= self.observed.now)
    }

    fn is_old(&self, pod: &Pod) -> bool {
        label(&pod.metadata, REVISION_HASH) != Some(self.observed.update)
    }

    fn revision_for(&self, ordinal: i32) -> String {
        let below = self.first.saturating_add(partition(self.observed.set));
        let keeps = !on_delete(self.observed.set) && ordinal < below;
        if keeps { self.observed.current.to_owned() } else { self.observed.update.to_owned() }
    }

    /// Starts what is missing. True if all are there and, in order, available.
    fn start(&self, plan: &mut Plan) -> bool {
        for ordinal in self.first..self.end {
            let Some(pod) = self.wanted.get(&ordinal) else {
                if !(self.observed.blocked)(ordinal) {
                    plan.create.push((ordinal, self.revision_for(ordinal)));
                }
                if self.ordered || plan.create.len() == BURST {
                    return false;
                }
                continue;
            };
            if finished(pod) {
                if !deleting(&pod.metadata) {
                    plan.notes.push(self.ended(pod));
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

    /// Says that an ended pod is replaced.
    fn ended(&self, pod: &Pod) -> Note {
        let (set, pod_name) = (key_of(&self.observed.set.metadata), name(&pod.metadata));
        if phase(pod) == "Failed" {
            let text = format!("StatefulSet {set} is recreating failed Pod {pod_name}");
            return Note::warning("RecreatingFailedPod", text);
        }
        let text = format!("StatefulSet {set} is recreating terminated Pod {pod_name}");
        Note::normal("RecreatingTerminatedPod", text)
    }

    /// Stops what is too much, from the top. True if nothing is left to stop.
    fn stop(&self, plan: &mut Plan) -> bool {
        let unhealthy = self.wanted.values().chain(self.condemned.values()).find(|p| !healthy(p));
        for pod in self.condemned.values().rev() {
            if deleting(&pod.metadata) {
                if self.ordered {
                    return false;
                }
                continue;
            }
            // One in trouble is no reason to wait if it is the very one that goes.
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
    ///
    /// A pod that is down already can be replaced at no cost: otherwise a set whose old template never gets ready
    /// could not be repaired. (In order this is never reached while one is down.)
    fn update(&self, plan: &mut Plan) {
        let set = self.observed.set;
        let rolling = set.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let total = self.end - self.first;
        let limit = rolling.and_then(|r| r.max_unavailable.as_ref());
        let limit = limit.and_then(|l| scaled(l, total, false)).unwrap_or(1).max(1);
        let up = self.wanted.values().filter(|pod| self.available(pod)).count();
        let mut may_fall = limit - (total - i32::try_from(up).unwrap_or(i32::MAX));
        let lowest = self.first.saturating_add(partition(set));
        for (_, pod) in self.wanted.range(lowest..).rev() {
            if !self.is_old(pod) || deleting(&pod.metadata) || finished(pod) {
                continue;
            }
            if self.available(pod) {
                if may_fall <= 0 {
                    continue;
                }
                may_fall -= 1;
            }
            plan.delete.push((*pod).clone());
        }
    }
}

/// Running, ready, and not being deleted.
fn healthy(pod: &Pod) -> bool {
    phase(pod) == "Running" && ready(pod) && !deleting(&pod.metadata)
}
