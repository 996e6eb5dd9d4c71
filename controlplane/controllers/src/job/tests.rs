//! A Job in a simulated cluster: pods run, end, are deleted; statuses are written or lost.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::runtime::object::{name, phase, time};

struct World {
    job: Job,
    pods: BTreeMap<String, Pod>,
    clock: i64,
    made: usize,
    notes: Vec<&'static str>,
    again: Option<std::time::Duration>,
}

fn world(spec: Value) -> World {
    let mut full = json!({
        "selector": {"matchLabels": {"job": "j"}}, "parallelism": 1, "backoffLimit": 6,
        "template": {"metadata": {"labels": {"job": "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}},
    });
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    let job = json!({"metadata": {"name": "j", "namespace": "ns", "uid": "J"}, "spec": full});
    World {
        job: serde_json::from_value(job).unwrap(),
        pods: BTreeMap::new(),
        clock: 1_000_000,
        made: 0,
        notes: Vec::new(),
        again: None,
    }
}

impl World {
    /// One pass; `written` says whether the status arrives.
    fn pass_with(&mut self, written: bool) {
        self.clock += 1;
        let now = Timestamp::from_second(self.clock).unwrap();
        let pods: Vec<_> = self.pods.values().cloned().map(Arc::new).collect();
        let plan = plan::plan(&self.job, &pods, now);
        for pod in &plan.retire {
            self.release(uid(&pod.metadata));
            self.delete(uid(&pod.metadata).to_owned());
        }
        for pod in &plan.stop {
            self.delete(uid(&pod.metadata).to_owned());
        }
        for index in plan.create {
            let mut pod = pods::pod(&self.job, index);
            let id = format!("p{:03}", self.made);
            self.made += 1;
            pod.metadata.name = Some(id.clone());
            pod.metadata.uid = Some(id.clone());
            pod.metadata.creation_timestamp = Some(time(now));
            self.pods.insert(id, pod);
        }
        self.again = plan.again;
        if !written {
            return;
        }
        self.job.status = Some(plan.status);
        self.notes.extend(plan.notes.iter().map(|n| n.reason));
        for pod in &plan.counted {
            self.release(uid(&pod.metadata));
        }
    }

    fn pass(&mut self) {
        self.pass_with(true);
    }

    fn release(&mut self, id: &str) {
        if let Some(pod) = self.pods.get_mut(id) {
            pod.metadata.finalizers = None;
            if deleting(&pod.metadata) && phase(pod) != "Pending" {
                self.pods.remove(id);
            }
        }
    }

    fn delete(&mut self, id: String) {
        if let Some(pod) = self.pods.get_mut(&id) {
            pod.metadata.deletion_timestamp = Some(time(Timestamp::from_second(self.clock).unwrap()));
            pod.metadata.deletion_grace_period_seconds = Some(1);
        }
    }

    /// The node ends a pod.
    fn end(&mut self, id: &str, phase: &str) {
        let now = Timestamp::from_second(self.clock).unwrap().to_string();
        let Some(pod) = self.pods.get_mut(id) else { return };
        pod.status = serde_json::from_value(json!({"phase": phase, "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": 0, "finishedAt": now}}}]}))
        .unwrap();
        if deleting(&pod.metadata) && !tracking::is_held(pod) {
            self.pods.remove(id);
        }
    }

    /// The running pod of an index.
    fn of_index(&self, index: i32) -> Option<String> {
        self.running().into_iter().find(|id| indexes::of(&self.pods[id]) == Some(index))
    }

    /// Ends the pod of an index, and lets the Job take note and its back-off pass.
    fn end_index(&mut self, index: i32, phase: &str) {
        let id = self.of_index(index).unwrap_or_else(|| panic!("no pod of index {index} runs"));
        self.end(&id, phase);
        (0..3).for_each(|_| self.pass());
        self.clock += 600;
        (0..3).for_each(|_| self.pass());
    }

    fn running(&self) -> Vec<String> {
        let alive = |p: &&Pod| crate::runtime::object::active(p);
        self.pods.values().filter(alive).map(|p| name(&p.metadata).to_owned()).collect()
    }

    fn status(&self) -> k8s_openapi::api::batch::v1::JobStatus {
        self.job.status.clone().unwrap()
    }

    fn counts(&self) -> (i32, i32, i32) {
        let status = self.status();
        (status.active.unwrap_or(0), status.succeeded.unwrap_or(0), status.failed.unwrap_or(0))
    }

    fn is(&self, condition: &str) -> bool {
        conditions::holds(&self.status(), condition).is_some()
    }
}

#[test]
fn completions_and_parallelism() {
    let mut world = world(json!({"completions": 3, "parallelism": 2}));
    world.pass();
    assert_eq!(world.running().len(), 2);
    world.pass();
    assert_eq!((world.running().len(), world.counts()), (2, (2, 0, 0)));
    world.end("p000", "Succeeded");
    (0..3).for_each(|_| world.pass());
    assert_eq!((world.running(), world.counts()), (vec!["p001".into(), "p002".into()], (2, 1, 0)));
    world.end("p001", "Succeeded");
    world.end("p002", "Succeeded");
    (0..3).for_each(|_| world.pass());
    assert!(world.is("Complete") && world.is("SuccessCriteriaMet"));
    assert_eq!(world.counts(), (0, 3, 0));
    assert!(world.status().completion_time.is_some());
    assert!(world.pods.values().all(|p| !tracking::is_held(p)));
    assert_eq!(world.notes, ["Completed"]);
}

#[test]
fn failures_back_off_and_end_the_job() {
    let mut world = world(json!({"completions": 1, "backoffLimit": 2}));
    world.pass();
    let mut waits = Vec::new();
    for number in 0..3 {
        world.end(&format!("p{number:03}"), "Failed");
        (0..3).for_each(|_| world.pass());
        if let Some(wait) = world.again {
            waits.push(wait.as_secs());
            assert!(world.running().is_empty());
            world.clock += i64::try_from(wait.as_secs()).unwrap();
            world.pass();
        }
    }
    assert_eq!(waits, [7, 17]);
    assert!(world.is("Failed") && world.is("FailureTarget"));
    assert_eq!(world.counts(), (0, 0, 3));
    assert_eq!(world.notes, ["BackoffLimitExceeded"]);
}

#[test]
fn deadline() {
    let mut world = world(json!({"completions": 1, "activeDeadlineSeconds": 30}));
    world.pass();
    assert_eq!(world.again.map(|d| d.as_secs()), Some(30));
    world.clock += 30;
    world.pass();
    assert!(world.is("FailureTarget") && !world.is("Failed"), "the pod is still ending");
    world.end("p000", "Failed");
    (0..3).for_each(|_| world.pass());
    assert!(world.is("Failed"));
    assert_eq!(world.notes, ["DeadlineExceeded"]);
}

#[test]
fn suspend_and_resume() {
    let mut world = world(json!({"completions": 2, "parallelism": 2, "suspend": true}));
    world.pass();
    assert!(world.running().is_empty() && world.is("Suspended") && world.status().start_time.is_none());
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.pass();
    assert!(!world.is("Suspended") && world.status().start_time.is_some());
    assert_eq!(world.running().len(), 2);
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.pass();
    world.end("p000", "Failed");
    world.end("p001", "Failed");
    (0..3).for_each(|_| world.pass());
    assert_eq!(world.counts(), (0, 0, 0), "pods stopped by a suspension are no failures");
    assert_eq!(world.notes, ["Suspended", "Resumed", "Suspended"]);
}

#[test]
fn indexes_complete_one_by_one() {
    let mut world = world(json!({"completions": 4, "parallelism": 3, "completionMode": "Indexed"}));
    world.pass();
    let pod = &world.pods["p001"];
    assert_eq!(indexes::of(pod), Some(1));
    assert_eq!(pod.spec.as_ref().unwrap().hostname.as_deref(), Some("j-1"));
    assert_eq!(
        pod.spec.as_ref().unwrap().containers[0].env.as_ref().unwrap()[0].name,
        "JOB_COMPLETION_INDEX"
    );
    world.end("p000", "Succeeded");
    world.end("p002", "Succeeded");
    (0..3).for_each(|_| world.pass());
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0,2"));
    assert_eq!(indexes::of(&world.pods["p003"]), Some(3));
    world.end("p001", "Succeeded");
    world.end("p003", "Succeeded");
    (0..3).for_each(|_| world.pass());
    assert_eq!((world.status().completed_indexes.as_deref(), world.counts()), (Some("0-3"), (0, 4, 0)));
    assert!(world.is("Complete"));
}

#[test]
fn work_queue_ends_with_the_first_success() {
    let mut world = world(json!({"parallelism": 3}));
    world.pass();
    world.end("p001", "Succeeded");
    (0..3).for_each(|_| world.pass());
    assert_eq!(world.running().len(), 2, "no new pod, and the others finish");
    world.end("p000", "Succeeded");
    world.end("p002", "Succeeded");
    (0..3).for_each(|_| world.pass());
    assert!(world.is("Complete"));
    assert_eq!(world.counts(), (0, 3, 0));
}

#[test]
fn fewer_parallel_pods_are_no_failure() {
    let mut world = world(json!({"completions": 9, "parallelism": 4}));
    world.pass();
    world.job.spec.as_mut().unwrap().parallelism = Some(1);
    world.pass();
    assert_eq!(world.running().len(), 1);
    world.pass();
    assert_eq!(world.counts(), (1, 0, 0));
}

#[test]
fn each_index_has_its_own_limit() {
    let mut world = world(json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1}));
    world.pass();
    assert_eq!(world.status().failed_indexes.as_deref(), Some(""));
    world.end("p001", "Failed");
    (0..3).for_each(|_| world.pass());
    assert_eq!((world.running().len(), world.of_index(1)), (2, None), "the index rests");
    assert!(tracking::is_held(&world.pods["p001"]), "the last failure is remembered");
    assert_eq!(world.again.map(|d| d.as_secs()), Some(7));
    world.clock += 7;
    (0..3).for_each(|_| world.pass());
    let second = world.of_index(1).unwrap();
    assert_eq!(world.pods[&second].metadata.annotations.as_ref().unwrap()[indexes::FAILURES], "1");
    assert!(!tracking::is_held(&world.pods["p001"]), "its successor remembers");
    world.end_index(1, "Failed");
    assert_eq!((world.of_index(1), world.status().failed_indexes.as_deref()), (None, Some("1")));
    world.end_index(0, "Succeeded");
    assert!(!world.is("FailureTarget"));
    world.end_index(2, "Succeeded");
    assert!(world.is("Failed"));
    assert_eq!((world.notes.as_slice(), world.counts()), (["FailedIndexes"].as_slice(), (0, 2, 2)));
    assert!(world.pods.values().all(|p| !tracking::is_held(p)));
}

#[test]
fn too_many_failed_indexes() {
    let mut world = world(json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed",
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1}));
    world.pass();
    world.end_index(3, "Failed");
    assert!(!world.is("FailureTarget"));
    world.end_index(0, "Failed");
    assert!(world.is("FailureTarget"));
    for id in ["p001", "p002"] {
        world.end(id, "Failed");
    }
    (0..3).for_each(|_| world.pass());
    assert_eq!(
        (world.notes.as_slice(), world.counts()),
        (["MaxFailedIndexesExceeded"].as_slice(), (0, 0, 4))
    );
}

#[test]
fn failures_that_do_not_count_and_failures_that_end_all() {
    let mut world =
        world(json!({"completions": 2, "parallelism": 2, "backoffLimit": 0, "podFailurePolicy": {"rules": [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}}));
    let exit = |world: &mut World, id: &str, code: i32| {
        world.end(id, "Failed");
        let status = world.pods.get_mut(id).unwrap().status.as_mut().unwrap();
        let state = status.container_statuses.as_mut().unwrap()[0].state.as_mut().unwrap();
        state.terminated.as_mut().unwrap().exit_code = code;
        world.clock += 600;
        (0..3).for_each(|_| world.pass());
    };
    world.pass();
    exit(&mut world, "p000", 7);
    assert_eq!((world.running(), world.counts()), (vec!["p001".into(), "p002".into()], (2, 0, 0)));
    exit(&mut world, "p001", 42);
    assert!(world.is("FailureTarget"));
    let target = conditions::holds(&world.status(), conditions::FAILURE_TARGET).cloned().unwrap();
    assert_eq!(target.reason.as_deref(), Some("PodFailurePolicy"));
    let text = "Container c for pod ns/p001 failed with exit code 42 matching FailJob rule at index 1";
    assert_eq!(target.message.as_deref(), Some(text));
    world.end("p002", "Failed");
    (0..3).for_each(|_| world.pass());
    assert_eq!((world.notes.as_slice(), world.counts()), (["PodFailurePolicy"].as_slice(), (0, 0, 2)));
}

#[test]
fn some_indexes_are_enough() {
    let mut world = world(json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0", "succeededCount": 1}]}}));
    world.pass();
    world.end_index(2, "Succeeded");
    assert!(!world.is("SuccessCriteriaMet"));
    world.end_index(0, "Succeeded");
    assert!(world.is("SuccessCriteriaMet") && !world.is("Complete"));
    for id in ["p001", "p003"] {
        world.end(id, "Failed");
    }
    (0..3).for_each(|_| world.pass());
    assert!(world.is("Complete"));
    let status = world.status();
    let complete = conditions::holds(&status, conditions::COMPLETE).unwrap();
    assert_eq!(complete.reason.as_deref(), Some("SuccessPolicy"));
    assert_eq!(status.completed_indexes.as_deref(), Some("0,2"));
}

#[test]
fn a_pod_that_is_ending_keeps_its_index() {
    let mut world = world(json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed",
        "podReplacementPolicy": "Failed"}));
    world.pass();
    world.delete("p000".into());
    (0..3).for_each(|_| world.pass());
    assert_eq!(
        (world.running(), world.counts(), world.status().terminating),
        (vec!["p001".into()], (1, 0, 0), Some(1))
    );
    world.end("p000", "Failed");
    (0..3).for_each(|_| world.pass());
    world.clock += 600;
    (0..3).for_each(|_| world.pass());
    assert_eq!((world.of_index(0), world.counts()), (Some("p002".into()), (2, 0, 1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Pods end, statuses get lost, pods are deleted from outside: each is counted once, and never too many run.
    #[test]
    fn every_pod_counts_once(
        indexed in any::<bool>(), parallelism in 1..4_i32,
        steps in proptest::collection::vec((0..7_u8, 0..4_usize), 0..80),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let mut world = world(json!({
            "completions": 5, "parallelism": parallelism, "completionMode": mode, "backoffLimit": 1000,
        }));
        let (mut succeeded, mut failed) = (0, 0);
        let go_on = |world: &World| world.job.status.as_ref().is_none_or(|s| !conditions::finished(s));
        for (what, index) in steps {
            let pick = world.running().get(index).cloned();
            match (what, pick) {
                (0, Some(id)) if succeeded < 5 => { world.end(&id, "Succeeded"); succeeded += 1; }
                (1, Some(id)) => { world.end(&id, "Failed"); failed += 1; }
                (2, _) => world.pass_with(false),
                (3, _) => world.clock += 600,
                _ => world.pass(),
            }
            prop_assert!(i32::try_from(world.running().len()).unwrap() <= parallelism);
        }
        for _ in 0..40 {
            if !go_on(&world) { break; }
            world.clock += 600;
            (0..3).for_each(|_| world.pass());
            if let Some(id) = world.running().first().cloned() { world.end(&id, "Succeeded"); succeeded += 1; }
        }
        prop_assert!(world.is("Complete"));
        world.pass();
        let (active, done, lost) = world.counts();
        prop_assert_eq!((active, lost), (0, failed));
        prop_assert_eq!(done, if indexed { 5 } else { succeeded });
        prop_assert!(world.pods.values().all(|p| !tracking::is_held(p)));
    }

    /// With a limit for each index: no index fails more often than it may, whatever statuses get lost, and the Job
    /// ends as its indexes did.
    #[test]
    fn every_index_has_its_chances(
        limit in 0..3_i32, steps in proptest::collection::vec((0..6_u8, 0..4_usize), 0..80),
        luck in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let mut world = world(json!({"completions": 4, "parallelism": 3, "completionMode": "Indexed",
            "backoffLimit": i32::MAX, "backoffLimitPerIndex": limit}));
        let mut failures = [0; 4];
        let mut end = |world: &mut World, id: String, good: bool| {
            let index = usize::try_from(indexes::of(&world.pods[&id]).unwrap()).unwrap();
            failures[index] += i32::from(!good);
            assert!(failures[index] <= limit + 1, "index {index}");
            world.end(&id, if good { "Succeeded" } else { "Failed" });
        };
        for (what, pick) in steps {
            match (what, world.running().get(pick).cloned()) {
                (0, Some(id)) => end(&mut world, id, true),
                (1, Some(id)) => end(&mut world, id, false),
                (2, _) => world.pass_with(false),
                (3, _) => world.clock += 600,
                _ => world.pass(),
            }
            prop_assert!(world.running().len() <= 3);
        }
        let ended = |world: &World| world.job.status.as_ref().is_some_and(conditions::finished);
        for good in luck {
            if ended(&world) { break; }
            world.clock += 600;
            (0..3).for_each(|_| world.pass());
            if let Some(id) = world.running().first().cloned() { end(&mut world, id, good); }
        }
        (0..3).for_each(|_| world.pass());
        prop_assert!(ended(&world));
        let given_up = failures.iter().filter(|n| **n > limit).count();
        prop_assert_eq!(world.is("Failed"), given_up > 0);
        prop_assert_eq!(world.counts(), (0, i32::try_from(4 - given_up).unwrap(), failures.iter().sum()));
        prop_assert!(world.pods.values().all(|p| !tracking::is_held(p)));
    }
}
