//! A rollout at work: the ReplicaSets as they shall be, changed step by step by the two strategies. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::Observed;
use super::{conditions, history, template};
use crate::runtime::object::{annotation, created, name, scaled, set_annotation};
use crate::runtime::recorder::Note;

/// One ReplicaSet: as it is (if it is), and as it shall be.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) before: Option<Arc<ReplicaSet>>,
    pub(super) now: ReplicaSet,
}

impl Set {
    /// Pods that it is told to have.
    pub(super) fn replicas(&self) -> i32 {
        self.now.spec.replicas.unwrap_or(1)
    }

    /// Pods that it reports as available.
    pub(super) fn available(&self) -> i32 {
        self.now.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
    }

    /// Pods that are available for certain: none, if the report is from before the last change of its size.
    fn surely_available(&self) -> i32 {
        let observed = self.now.status.as_ref().and_then(|s| s.observed_generation);
        if observed < self.now.metadata.generation {
            return 0;
        }
        self.available().min(self.replicas())
    }

    /// Pods that it reports at all.
    pub(super) fn actual(&self) -> i32 {
        self.now.status.as_ref().map_or(0, |s| s.replicas)
    }
}

/// The state of planning.
pub(super) struct Rollout<'a> {
    pub(super) observed: &'a Observed<'a>,
    /// Oldest first.
    pub(super) sets: Vec<Set>,
    /// Which of them has the Deployment's present template.
    newest: Option<usize>,
    pub(super) conditions: Vec<DeploymentCondition>,
    pub(super) notes: Vec<Note>,
    /// Whether old ReplicaSets beyond the limit shall go.
    pub(super) clean_up: bool,
}

/// Whether all old pods must be gone before the first new one.
pub(super) fn recreates(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// Pods that the Deployment wants.
pub(super) fn desired(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

/// How many pods more, and how many available pods less, a rolling update may have.
pub(super) fn bounds(deployment: &Deployment) -> (i32, i32) {
    let total = desired(deployment);
    if recreates(deployment) {
        return (0, 0);
    }
    let rolling = deployment.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let quarter = |up| scaled(&IntOrString::String("25%".to_owned()), total, up);
    let surge = match rolling.and_then(|r| r.max_surge.as_ref()) {
        Some(value) => scaled(value, total, true),
        None => quarter(true),
    };
    let unavailable = match rolling.and_then(|r| r.max_unavailable.as_ref()) {
        Some(value) => scaled(value, total, false),
        None => quarter(false),
    };
    match (surge.unwrap_or(0).max(0), unavailable.unwrap_or(0).max(0)) {
        // Without any room the rollout could not move.
        (0, 0) => (0, 1.min(total)),
        (surge, unavailable) => (surge, unavailable.min(total)),
    }
}

impl<'a> Rollout<'a> {
    pub(super) fn new(observed: &'a Observed<'a>) -> Self {
        let mut sets: Vec<Set> = (observed.sets.iter())
            .map(|set| Set { before: Some(set.clone()), now: (**set).clone() })
            .collect();
        sets.sort_by(|a, b| {
            let key = |s: &Set| (created(&s.now.metadata), name(&s.now.metadata).to_owned());
            key(a).cmp(&key(b))
        });
        let template = &observed.deployment.spec.template;
        let newest = sets.iter().position(|s| template::same(s.now.spec.template.as_ref(), template));
        let conditions =
            (observed.deployment.status.as_ref()).and_then(|s| s.conditions.clone()).unwrap_or_default();
        Self { observed, sets, newest, conditions, notes: Vec::new(), clean_up: false }
    }

    pub(super) fn deployment(&self) -> &'a Deployment {
        self.observed.deployment
    }

    pub(super) fn now(&self) -> Timestamp {
        self.observed.now
    }

    pub(super) fn newest(&self) -> Option<&Set> {
        self.newest.map(|i| &self.sets[i])
    }

    pub(super) fn newest_index(&self) -> Option<usize> {
        self.newest
    }

    /// All but the newest, oldest first.
    pub(super) fn old(&self) -> impl Iterator<Item = &Set> {
        let newest = self.newest;
        self.sets.iter().enumerate().filter(move |(i, _)| Some(*i) != newest).map(|(_, s)| s)
    }

    /// Indexes of old sets that are told to have pods, oldest first.
    pub(super) fn active_old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|i| Some(*i) != self.newest && self.sets[*i].replicas() > 0).collect()
    }

    pub(super) fn total_replicas(&self) -> i32 {
        self.sets.iter().map(Set::replicas).sum()
    }

    /// Whether the Deployment's size has changed since its sets were last scaled.
    pub(super) fn scaling(&self) -> bool {
        self.sets.iter().filter(|s| s.replicas() > 0).any(|s| {
            annotation(&s.now.metadata, history::DESIRED)
                .and_then(|d| d.parse::<i32>().ok())
                .is_some_and(|d| d != desired(self.deployment()))
        })
    }

    fn next_revision(&self) -> i64 {
        self.old().map(|s| history::revision(&s.now.metadata)).max().unwrap_or(0) + 1
    }

    /// Brings the annotations of an existing newest set up to date.
    pub(super) fn adopt_newest(&mut self) {
        let Some(index) = self.newest else { return };
        let (revision, deployment) = (self.next_revision(), self.deployment());
        let set = &mut self.sets[index].now;
        history::annotate(set, deployment, revision, true);
        let wait = deployment.spec.min_ready_seconds.unwrap_or(0);
        if set.spec.min_ready_seconds.unwrap_or(0) != wait {
            set.spec.min_ready_seconds = Some(wait);
        }
        let found = name(&set.metadata).to_owned();
        conditions::found(self, &found);
    }

    /// The newest set, made now if there is none.
    fn ensure_newest(&mut self) -> usize {
        self.adopt_newest();
        if let Some(index) = self.newest {
            return index;
        }
        let deployment = self.deployment();
        let mut set = template::replica_set(deployment);
        history::annotate(&mut set, deployment, self.next_revision(), false);
        let made = name(&set.metadata).to_owned();
        self.sets.push(Set { before: None, now: set });
        let index = self.sets.len() - 1;
        self.newest = Some(index);
        let replicas = self.room_for_newest(index);
        self.set_size(index, replicas);
        conditions::created(self, &made);
        index
    }

    /// Tells a set to have so many pods and notes what the Deployment wanted at that time.
    pub(super) fn set_size(&mut self, index: usize, replicas: i32) {
        let deployment = self.deployment();
        let maximum = desired(deployment) + bounds(deployment).0;
        let set = &mut self.sets[index];
        let old = set.replicas();
        set.now.spec.replicas = Some(replicas);
        for (key, value) in [(history::DESIRED, desired(deployment)), (history::MAXIMUM, maximum)] {
            set_annotation(&mut set.now.metadata, key, value.to_string());
        }
        if old != replicas {
            let way = if replicas > old { "up" } else { "down" };
            let text =
                format!("Scaled {way} replica set {} from {old} to {replicas}", name(&set.now.metadata));
            self.notes.push(Note::normal("ScalingReplicaSet", text));
        }
    }

    /// How many pods the newest set may have now.
    fn room_for_newest(&self, index: usize) -> i32 {
        let deployment = self.deployment();
        let (wanted, have) = (desired(deployment), self.sets[index].replicas());
        if recreates(deployment) {
            return wanted;
        }
        let maximum = wanted + bounds(deployment).0;
        let room = maximum - self.total_replicas();
        if room <= 0 { have } else { have + room.min(wanted - have) }
    }

    /// One step of a rolling update: grow the new set as far as the surge allows; if it cannot grow, shrink the old.
    pub(super) fn roll(&mut self) {
        let index = self.ensure_newest();
        let (wanted, have) = (desired(self.deployment()), self.sets[index].replicas());
        if have != wanted {
            let next = if have > wanted { wanted } else { self.room_for_newest(index) };
            if next != have {
                return self.set_size(index, next);
            }
        }
        self.shrink_old(index);
    }

    fn shrink_old(&mut self, newest: usize) {
        let old = self.active_old();
        if old.is_empty() {
            return;
        }
        let deployment = self.deployment();
        let minimum = desired(deployment) - bounds(deployment).1;
        let new_unavailable = self.sets[newest].replicas() - self.sets[newest].surely_available();
        let mut broken_room = self.total_replicas() - minimum - new_unavailable;
        if broken_room <= 0 {
            return;
        }
        // First the pods that serve nobody: they do not count against the minimum.
        for &index in &old {
            let set = &self.sets[index];
            let broken = (set.replicas() - set.available()).clamp(0, broken_room);
            if broken > 0 {
                broken_room -= broken;
                self.set_size(index, set.replicas() - broken);
            }
        }
        let available: i32 = self.sets.iter().map(Set::surely_available).sum();
        let mut room = available - minimum;
        for &index in &old {
            let drop = self.sets[index].replicas().min(room);
            if drop > 0 {
                room -= drop;
                self.set_size(index, self.sets[index].replicas() - drop);
            }
        }
    }

    /// One step of a recreation: stop all old sets; when their pods are gone, start the new one.
    pub(super) fn recreate(&mut self) {
        self.adopt_newest();
        let old = self.active_old();
        for &index in &old {
            self.set_size(index, 0);
        }
        let running = self.observed.running;
        let left = self.old().any(|s| s.actual() > 0 || s.before.as_deref().is_some_and(running));
        if !old.is_empty() || left {
            return;
        }
        let index = self.ensure_newest();
        let wanted = desired(self.deployment());
        if self.sets[index].replicas() != wanted {
            self.set_size(index, wanted);
        }
    }
}
