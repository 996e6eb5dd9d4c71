//! The plan of a Deployment, by rows and against a simulated cluster.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use serde_json::json;

use super::plan::{Action, Observed, Plan, plan};
use super::*;
use crate::runtime::object::annotation;

/// A ReplicaSet with pods that need time.
struct SimulatedSet {
    set: ReplicaSet,
    /// Whether each pod is available.
    pods: Vec<bool>,
}

struct World {
    deployment: Deployment,
    sets: Vec<SimulatedSet>,
    clock: i64,
    told: Vec<String>,
}

fn deployment(replicas: i32, surge: IntOrString, unavailable: IntOrString) -> Deployment {
    let mut deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "D", "generation": 1},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 2,
            "strategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
        },
    }))
    .unwrap();
    let strategy = deployment.spec.strategy.as_mut().unwrap();
    let rolling = strategy.rolling_update.get_or_insert_default();
    (rolling.max_surge, rolling.max_unavailable) = (Some(surge), Some(unavailable));
    deployment
}

impl World {
    fn new(deployment: Deployment) -> Self {
        Self { deployment, sets: Vec::new(), clock: 1_000_000, told: Vec::new() }
    }

    fn image(&mut self, image: &str) {
        let spec = self.deployment.spec.template.spec.as_mut().unwrap();
        spec.containers[0].image = Some(image.to_owned());
        self.changed();
    }

    fn changed(&mut self) {
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn plan(&mut self) -> Plan {
        self.clock += 1;
        let sets: Vec<Arc<ReplicaSet>> = self.sets.iter().map(|s| Arc::new(s.set.clone())).collect();
        let running = |set: &ReplicaSet| {
            self.sets.iter().any(|s| s.set.metadata.uid == set.metadata.uid && !s.pods.is_empty())
        };
        plan(&Observed {
            deployment: &self.deployment,
            sets: &sets,
            running: &running,
            now: Timestamp::from_second(self.clock).unwrap(),
        })
    }

    /// One pass of the controller.
    fn pass(&mut self) -> usize {
        let plan = self.plan();
        let count = plan.actions.len();
        for action in plan.actions {
            match action {
                Action::Create(mut set) => {
                    set.metadata.uid = Some(format!("{}-uid", name(&set.metadata)));
                    let at = Timestamp::from_second(self.clock).unwrap();
                    set.metadata.creation_timestamp = Some(crate::runtime::object::time(at));
                    set.metadata.generation = Some(1);
                    let taken = self.sets.iter().any(|s| s.set.metadata.name == set.metadata.name);
                    assert!(!taken, "a ReplicaSet is created twice");
                    self.sets.push(SimulatedSet { set: *set, pods: Vec::new() });
                }
                Action::Update(set) => {
                    let held = self.sets.iter_mut().find(|s| s.set.metadata.uid == set.metadata.uid).unwrap();
                    if held.set.spec != set.spec {
                        *held.set.metadata.generation.as_mut().unwrap() += 1;
                    }
                    held.set.spec = set.spec;
                    held.set.metadata.annotations = set.metadata.annotations;
                }
                Action::Delete(set) => self.sets.retain(|s| s.set.metadata.uid != set.metadata.uid),
                Action::Report { status, annotations } => {
                    self.deployment.status = Some(*status);
                    if annotations.is_some() {
                        self.deployment.metadata.annotations = annotations;
                    }
                }
                Action::Tell(note) => self.told.push(note.message),
            }
        }
        count
    }

    /// A pass of the ReplicaSet controller: deletes and creates pods as it is told, and reports.
    fn pods_follow(&mut self, index: usize) {
        let Some(set) = self.sets.get_mut(index) else { return };
        let wanted = usize::try_from(set.set.spec.replicas.unwrap()).unwrap();
        while set.pods.len() > wanted {
            let gone = set.pods.iter().position(|available| !available).unwrap_or(0);
            set.pods.remove(gone);
        }
        set.pods.resize(wanted, false);
        self.report(index);
    }

    fn pod_becomes_available(&mut self, index: usize) {
        if let Some(pod) = self.sets.get_mut(index).and_then(|s| s.pods.iter_mut().find(|p| !**p)) {
            *pod = true;
        }
        self.pods_follow(index);
    }

    fn report(&mut self, index: usize) {
        let Some(set) = self.sets.get_mut(index) else { return };
        let available = i32::try_from(set.pods.iter().filter(|p| **p).count()).unwrap();
        set.set.status = Some(ReplicaSetStatus {
            replicas: i32::try_from(set.pods.len()).unwrap(),
            ready_replicas: Some(available),
            available_replicas: Some(available),
            observed_generation: set.set.metadata.generation,
            ..ReplicaSetStatus::default()
        });
    }

    /// Lets everything happen until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..500 {
            let actions = self.pass();
            for index in 0..self.sets.len() {
                self.pods_follow(index);
                let count = self.sets[index].pods.len();
                (0..count).for_each(|_| self.pod_becomes_available(index));
            }
            if actions == 0 && self.pass() == 0 {
                return;
            }
        }
        panic!("never settles: {:#?}", self.deployment.status);
    }

    fn told_to_have(&self) -> i32 {
        self.sets.iter().map(|s| s.set.spec.replicas.unwrap()).sum()
    }

    fn really_available(&self) -> i32 {
        i32::try_from(self.sets.iter().flat_map(|s| &s.pods).filter(|p| **p).count()).unwrap()
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(|s| s.set.spec.replicas.unwrap()).collect()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let status = self.deployment.status.clone().unwrap();
        let conditions = status.conditions.unwrap();
        let condition = conditions::get(&conditions, kind).unwrap();
        (condition.status.clone().unwrap(), condition.reason.clone().unwrap())
    }

    fn complete(&self) -> bool {
        let status = self.deployment.status.clone().unwrap_or_default();
        let wanted = self.deployment.spec.replicas;
        let wanted = wanted.filter(|n| *n > 0);
        status.updated_replicas == wanted && status.available_replicas == wanted && status.replicas == wanted
    }
}

fn int(n: i32) -> IntOrString {
    IntOrString::Int(n)
}

#[test]
fn first_rollout_and_update() {
    let mut world = World::new(deployment(3, int(1), int(0)));
    world.settle();
    assert!(world.complete());
    assert_eq!(world.sizes(), [3]);
    assert_eq!(world.told.len(), 1);
    assert!(
        world.told[0].starts_with("Scaled up replica set web-") && world.told[0].ends_with(" from 0 to 3")
    );
    assert_eq!(annotation(&world.deployment.metadata, history::REVISION), Some("1"));
    assert_eq!(world.condition("Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));

    world.image("v2");
    world.pass();
    assert_eq!(world.sizes(), [3, 1], "no old pod goes before a new one is available");
    world.settle();
    assert_eq!(world.sizes(), [0, 3]);
    assert_eq!(annotation(&world.deployment.metadata, history::REVISION), Some("2"));

    // Back to the first template: its ReplicaSet is used again, as the third revision.
    world.image("v1");
    world.settle();
    assert_eq!(world.sizes(), [3, 0]);
    assert_eq!(annotation(&world.deployment.metadata, history::REVISION), Some("3"));
    let first = &world.sets[0].set.metadata;
    assert_eq!(annotation(first, "deployment.kubernetes.io/revision-history"), Some("1"));
}

#[test]
fn history_is_limited() {
    let mut world = World::new(deployment(1, int(1), int(0)));
    for version in 1..=6 {
        world.image(&format!("v{version}"));
        world.settle();
    }
    assert_eq!(world.sizes(), [0, 0, 1]);
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut first = deployment(2, int(1), int(0));
    first.spec.strategy = serde_json::from_value(json!({"type": "Recreate"})).unwrap();
    let mut world = World::new(first);
    world.settle();
    world.image("v2");
    world.pass();
    assert_eq!(world.sizes(), [0]);
    world.pass();
    assert_eq!(world.sizes(), [0], "old pods still run");
    world.pods_follow(0);
    world.pass();
    assert_eq!(world.sizes(), [0, 2]);
    world.settle();
    assert!(world.complete());
}

#[test]
fn pause_and_resume() {
    let mut world = World::new(deployment(2, int(1), int(0)));
    world.settle();
    world.deployment.spec.paused = Some(true);
    world.image("v2");
    world.settle();
    assert_eq!(world.sizes(), [2], "a paused Deployment makes no new ReplicaSet");
    assert_eq!(world.condition("Progressing"), ("Unknown".into(), "DeploymentPaused".into()));
    world.deployment.spec.replicas = Some(4);
    world.changed();
    world.settle();
    assert_eq!(world.sizes(), [4], "but it scales");
    world.deployment.spec.paused = None;
    world.changed();
    world.settle();
    assert_eq!(world.sizes(), [0, 4]);
}

#[test]
fn scaling_in_the_middle_is_in_proportion() {
    let mut world = World::new(deployment(10, int(3), int(2)));
    world.settle();
    world.image("broken");
    world.pass();
    for index in 0..2 {
        world.pods_follow(index);
    }
    world.pass();
    assert_eq!(world.sizes(), [8, 5], "13 pods at most, 8 available at least");
    world.deployment.spec.replicas = Some(15);
    world.changed();
    world.pass();
    assert_eq!(world.sizes(), [11, 7], "18 pods at most, split in proportion");
}

#[test]
fn a_finished_rollout_is_not_watched_for_lateness() {
    let mut world = World::new(deployment(3, int(1), int(0)));
    world.settle();
    world.clock += 100_000;
    world.sets[0].pods[0] = false;
    world.report(0);
    world.pass();
    assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    assert!(!world.complete(), "a pod is down");
    let plan = world.plan();
    assert!(plan.actions.is_empty());
    assert_eq!(plan.again, None, "nothing will change by time alone");
}

#[test]
fn a_stuck_rollout_is_late_after_the_deadline() {
    let mut world = World::new(deployment(1, int(1), int(0)));
    world.settle();
    world.image("broken");
    world.pass();
    let plan = world.plan();
    let wait = plan.again.expect("must look again at the deadline");
    assert!((598..=602).contains(&wait.as_secs()), "{wait:?}");
    world.clock += 602;
    world.pass();
    assert_eq!(world.condition("Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    assert_eq!(world.pass(), 0);
}

#[test]
fn bounds_of_a_rolling_update() {
    let percent = |n: i32| IntOrString::String(format!("{n}%"));
    for (replicas, surge, unavailable, expected) in [
        (10, percent(25), percent(25), (3, 2)),
        (1, percent(25), percent(25), (1, 0)),
        (3, int(0), int(0), (0, 1)),
        (2, int(0), int(5), (0, 2)),
        (0, int(0), int(0), (0, 0)),
    ] {
        assert_eq!(rollout::bounds(&deployment(replicas, surge, unavailable)), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However pods, statuses, templates and passes interleave: never too many pods, never too few available.
    #[test]
    fn a_rolling_update_keeps_its_bounds(
        replicas in 1..9_i32, surge in 0..4_i32, unavailable in 0..4_i32,
        steps in proptest::collection::vec((0..6_u8, 0..4_usize), 0..120),
    ) {
        let mut world = World::new(deployment(replicas, int(surge), int(unavailable)));
        let (surge, unavailable) = rollout::bounds(&world.deployment);
        world.settle();
        let mut version = 0;
        for (what, index) in steps {
            match what {
                0 if index == 0 => { version += 1; world.image(&format!("v{}", version % 4)); }
                0..=2 => { world.pass(); }
                3 => world.pods_follow(index),
                _ => world.pod_becomes_available(index),
            }
            prop_assert!(world.told_to_have() <= replicas + surge, "{:?}", world.sizes());
            prop_assert!(world.really_available() >= replicas - unavailable, "{:?}", world.sizes());
        }
        world.settle();
        prop_assert!(world.complete());
        prop_assert_eq!(world.told_to_have(), replicas);
    }

    /// With changes of size in between it still ends where it should, and never grows past the bound.
    #[test]
    fn scaling_and_rolling_together_end_well(
        steps in proptest::collection::vec((0..7_u8, 0..4_usize), 0..120),
    ) {
        let mut world = World::new(deployment(4, int(1), int(1)));
        let mut version = 0;
        for (what, index) in steps {
            let before = world.told_to_have();
            match what {
                0 if index == 0 => { version += 1; world.image(&format!("v{}", version % 3)); }
                6 => { world.deployment.spec.replicas = Some(i32::try_from(index * 3).unwrap()); world.changed(); }
                0..=2 => { world.pass(); }
                3 => world.pods_follow(index),
                _ => world.pod_becomes_available(index),
            }
            let bound = world.deployment.spec.replicas.unwrap() + rollout::bounds(&world.deployment).0;
            prop_assert!(world.told_to_have() <= bound.max(before), "{:?}", world.sizes());
        }
        world.settle();
        prop_assert!(world.complete());
    }
}
