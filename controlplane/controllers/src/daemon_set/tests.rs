//! Nodes and pods as short texts; then what is created and deleted.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::runtime::object::name;

fn set(strategy: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "d", "namespace": "ns", "uid": "D", "generation": 1},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "updateStrategy": strategy,
                 "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}], "nodeSelector": {"os": "linux"}}}},
    }))
    .unwrap()
}

/// `name [key:Effect]`
fn node(text: &str) -> Arc<Node> {
    let (name, taint) = text.split_once(' ').unwrap_or((text, ""));
    let taints: Vec<Value> = taint
        .split_once(':')
        .map(|(key, effect)| json!({"key": key, "effect": effect}))
        .into_iter()
        .collect();
    let os = if name.starts_with('w') { "windows" } else { "linux" };
    Arc::new(
        serde_json::from_value(
            json!({"metadata": {"name": name, "labels": {"os": os}}, "spec": {"taints": taints}}),
        )
        .unwrap(),
    )
}

/// `name node hash ready|unready|Failed|dying`
fn pod(text: &str) -> Arc<Pod> {
    let field: Vec<&str> = text.split_whitespace().collect();
    let mut pod = pods::pod(&set(json!(null)), field[1], field[2]);
    pod.metadata.name = Some(field[0].to_owned());
    pod.metadata.uid = Some(field[0].to_owned());
    pod.spec.as_mut().unwrap().node_name = Some(field[1].to_owned());
    if field[3] == "dying" {
        pod.metadata.deletion_timestamp = Some(crate::runtime::object::time(Timestamp::UNIX_EPOCH));
    }
    let phase = if field[3] == "Failed" { "Failed" } else { "Running" };
    pod.status = serde_json::from_value(json!({"phase": phase, "conditions": [
        {"type": "Ready", "status": if field[3] == "ready" { "True" } else { "False" }}]}))
    .unwrap();
    Arc::new(pod)
}

fn run(strategy: Value, nodes: &[&str], pods: &[Arc<Pod>]) -> (Vec<String>, Vec<String>) {
    let nodes: Vec<_> = nodes.iter().map(|n| node(n)).collect();
    let plan = plan::plan(&plan::Observed {
        set: &set(strategy),
        nodes: &nodes,
        pods,
        hash: "new",
        rest: &|_| None,
        now: Timestamp::from_second(1000).unwrap(),
    });
    let mut delete: Vec<String> = plan.delete.iter().map(|p| name(&p.metadata).to_owned()).collect();
    delete.sort();
    (plan.create, delete)
}

fn check(strategy: Value, nodes: &[&str], pods: &[&str], create: &[&str], delete: &[&str]) {
    let held: Vec<_> = pods.iter().map(|p| pod(p)).collect();
    let have = run(strategy, nodes, &held);
    let want =
        (create.iter().map(|s| s.to_string()).collect(), delete.iter().map(|s| s.to_string()).collect());
    assert_eq!(have, want, "{nodes:?} {pods:?}");
}

#[test]
fn presence() {
    let any = json!({"type": "OnDelete"});
    check(any.clone(), &["n1", "n2", "w1"], &["a n1 new ready"], &["n2"], &[]);
    // Pressure and cordons do not matter to daemons, foreign taints do.
    check(
        any.clone(),
        &["n1 node.kubernetes.io/unschedulable:NoSchedule", "n2 x:NoSchedule", "n3 x:NoExecute"],
        &["a n2 new ready", "b n3 new ready"],
        &["n1"],
        &["b"],
    );
    check(any.clone(), &["n1"], &["a n1 new ready", "b n1 new ready"], &[], &["b"]);
    check(any.clone(), &["n1"], &["a n1 new Failed"], &[], &["a"]);
    check(any.clone(), &["n1"], &["a n1 old dying"], &[], &[]);
    check(any, &["w1"], &["a w1 old ready"], &[], &["a"]);
}

#[test]
fn rolling_in_place() {
    let rolling = |n: i32| json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": n}});
    let nodes = ["n1", "n2", "n3"];
    let old = ["a n1 old ready", "b n2 old ready", "c n3 old ready"];
    check(rolling(1), &nodes, &old, &[], &["a"]);
    check(rolling(2), &nodes, &old, &[], &["a", "b"]);
    check(rolling(1), &nodes, &["a n1 new unready", old[1], old[2]], &[], &[]);
    check(rolling(1), &nodes, &["a n1 new ready", old[1], old[2]], &[], &["b"]);
    check(rolling(1), &nodes, &["a n1 old dying", old[1], old[2]], &[], &[]);
    // What is broken goes at once.
    check(rolling(1), &nodes, &["a n1 old unready", "b n2 old unready", old[2]], &[], &["a", "b"]);
}

#[test]
fn rolling_with_surge() {
    let surge = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let nodes = ["n1", "n2"];
    check(surge.clone(), &nodes, &["a n1 old ready", "b n2 old ready"], &["n1"], &[]);
    check(surge.clone(), &nodes, &["a n1 old ready", "x n1 new unready", "b n2 old ready"], &[], &[]);
    check(surge, &nodes, &["a n1 old ready", "x n1 new ready", "b n2 old ready"], &[], &["a"]);
}

#[test]
fn counts() {
    let nodes: Vec<_> = ["n1", "n2", "n3", "w1"].map(node).to_vec();
    let pods: Vec<_> = ["a n1 new ready", "b n2 old unready", "c w1 new ready"].map(pod).to_vec();
    let status = status::status(&set(json!(null)), &nodes, &pods, "new", Timestamp::from_second(9).unwrap());
    assert_eq!(
        (
            status.desired_number_scheduled,
            status.current_number_scheduled,
            status.number_ready,
            status.number_misscheduled
        ),
        (3, 2, 1, 1)
    );
    assert_eq!(
        (status.number_available, status.updated_number_scheduled, status.number_unavailable),
        (Some(1), Some(1), Some(2))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Nodes and readiness come and go, the update still keeps its bound and ends.
    #[test]
    fn an_update_never_takes_too_many(max in 1..4_i32, steps in proptest::collection::vec((0..3_u8, 0..6_usize), 0..80)) {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": max}});
        let nodes = ["n0", "n1", "n2", "n3", "n4", "n5"];
        let mut pods: Vec<String> = nodes.iter().map(|n| format!("{n}-old {n} old ready")).collect();
        let pass = |pods: &mut Vec<String>| {
            let held: Vec<_> = pods.iter().map(|p| pod(p)).collect();
            let (create, delete) = run(strategy.clone(), &nodes, &held);
            pods.retain(|p| !delete.iter().any(|d| p.starts_with(&format!("{d} "))));
            pods.extend(create.iter().map(|n| format!("{n}-new {n} new unready")));
        };
        let becomes_ready = |pods: &mut Vec<String>, index: usize| {
            if let Some(p) = pods.iter_mut().filter(|p| p.ends_with("unready")).nth(index) { *p = p.replace("unready", "ready"); }
        };
        for (what, index) in steps {
            if what == 0 { becomes_ready(&mut pods, index) } else { pass(&mut pods) }
            let ready = i32::try_from(pods.iter().filter(|p| p.ends_with(" ready")).count()).unwrap();
            prop_assert!(ready >= 6 - max, "{:?}", pods);
        }
        for _ in 0..20 {
            pass(&mut pods);
            (0..6).for_each(|_| becomes_ready(&mut pods, 0));
        }
        prop_assert!(pods.iter().all(|p| p.contains(" new ready")) && pods.len() == 6, "{:?}", pods);
    }
}
