//! Pods as short texts; then what is created and deleted, and a set that is brought through its life.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::runtime::object::{ready, time};

fn set(replicas: i32, extra: Value) -> StatefulSet {
    let mut spec = json!({
        "replicas": replicas, "serviceName": "svc", "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
    });
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(
        json!({"metadata": {"name": "web", "namespace": "ns", "uid": "S", "generation": 1}, "spec": spec}),
    )
    .unwrap()
}

/// `ordinal revision ready|unready|pending|Failed [dying]`
fn pod(text: &str) -> Arc<Pod> {
    let field: Vec<&str> = text.split_whitespace().collect();
    let set = set(0, json!({}));
    let mut pod = identity::pod(&set, &set.spec.template, field[0].parse().unwrap(), field[1]);
    pod.metadata.uid = pod.metadata.name.clone();
    if field.get(3) == Some(&"dying") {
        pod.metadata.deletion_timestamp = Some(time(Timestamp::UNIX_EPOCH));
    }
    let phase = match field[2] {
        "pending" => "Pending",
        "Failed" => "Failed",
        _ => "Running",
    };
    pod.status = serde_json::from_value(json!({"phase": phase, "conditions": [
        {"type": "Ready", "status": if field[2] == "ready" { "True" } else { "False" }}]}))
    .unwrap();
    Arc::new(pod)
}

fn run(set: &StatefulSet, pods: &[Arc<Pod>]) -> Plan {
    run_blocked(set, pods, &|_| false)
}

fn run_blocked(set: &StatefulSet, pods: &[Arc<Pod>], blocked: &dyn Fn(i32) -> bool) -> Plan {
    let now = Timestamp::from_second(1000).unwrap();
    plan::plan(&Observed { set, pods, current: "old", update: "new", blocked, now })
}

fn check(set: &StatefulSet, pods: &[&str], create: &[(i32, &str)], delete: &[&str]) {
    let held: Vec<_> = pods.iter().map(|p| pod(p)).collect();
    let plan = run(set, &held);
    let created: Vec<(i32, &str)> = plan.create.iter().map(|(o, r)| (*o, r.as_str())).collect();
    let deleted: Vec<&str> = plan.delete.iter().map(|p| name(&p.metadata)).collect();
    assert_eq!((created.as_slice(), deleted.as_slice()), (create, delete), "{pods:?}");
}

#[test]
fn in_order() {
    let three = set(3, json!({}));
    check(&three, &[], &[(0, "new")], &[]);
    check(&three, &["0 new unready"], &[], &[]);
    check(&three, &["0 new ready"], &[(1, "new")], &[]);
    check(&three, &["0 new ready", "2 new ready"], &[(1, "new")], &[]);
    check(&three, &["0 new ready dying", "1 new ready"], &[], &[]);
    check(&three, &["0 new Failed", "1 new ready"], &[], &["web-0"]);
    // Down from the top, one at a time, and not while another is in trouble.
    let one = set(1, json!({}));
    check(&one, &["0 new ready", "1 new ready", "2 new ready"], &[], &["web-2"]);
    check(&one, &["0 new ready", "1 new ready", "2 new ready dying"], &[], &[]);
    check(&one, &["0 new ready", "1 new unready", "2 new ready"], &[], &["web-2"]);
    check(&one, &["0 new unready", "1 new ready", "2 new ready"], &[], &[]);
    check(&one, &["0 new ready", "1 new unready", "2 new unready"], &[], &[]);
    check(&one, &["0 new ready", "1 new unready"], &[], &["web-1"]);
}

#[test]
fn all_at_once() {
    let parallel = set(3, json!({"podManagementPolicy": "Parallel"}));
    check(&parallel, &[], &[(0, "new"), (1, "new"), (2, "new")], &[]);
    check(
        &parallel,
        &["1 new unready", "4 new ready", "3 new ready"],
        &[(0, "new"), (2, "new")],
        &["web-4", "web-3"],
    );
    let shifted = set(2, json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}));
    check(&shifted, &["0 new ready"], &[(5, "new"), (6, "new")], &["web-0"]);
}

#[test]
fn updates() {
    let three = set(3, json!({}));
    check(&three, &["0 old ready", "1 old ready", "2 old ready"], &[], &["web-2"]);
    check(&three, &["0 old ready", "1 old ready", "2 new unready"], &[], &[]);
    check(&three, &["0 old ready", "1 old ready", "2 new ready"], &[], &["web-1"]);
    check(&three, &["0 old ready", "1 old ready"], &[(2, "new")], &[]);
    let part =
        set(3, json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}));
    check(&part, &["0 old ready", "1 old ready", "2 old ready"], &[], &["web-2"]);
    check(&part, &["0 old ready", "1 old ready", "2 new ready"], &[], &[]);
    check(&part, &["0 old ready", "2 new ready"], &[(1, "old")], &[]);
    let manual = set(3, json!({"updateStrategy": {"type": "OnDelete"}}));
    check(&manual, &["0 old ready", "1 old ready", "2 old ready"], &[], &[]);
    let two = set(
        4,
        json!({"podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}}),
    );
    check(&two, &["0 old ready", "1 old ready", "2 old ready", "3 old ready"], &[], &["web-3", "web-2"]);
    check(&two, &["0 old ready", "1 old ready", "2 old ready", "3 new unready"], &[], &["web-2"]);
}

#[test]
fn names_and_claims() {
    let set = set(
        1,
        json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}}),
    );
    let made = pod("0 new ready");
    let spec = made.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-0"), Some("svc")));
    let volume = &spec.volumes.as_ref().unwrap()[0];
    assert_eq!(volume.persistent_volume_claim.as_ref().unwrap().claim_name, "data-web-0");
    let claim = &identity::claims(&set, 0)[0];
    assert_eq!(name(&claim.metadata), "data-web-0");
    let owner = |pod: &str| {
        let pod = self::pod(pod);
        let owners = claims::with_owners(&set, &pod, claim)?.metadata.owner_references?;
        owners.first().map(|o| o.kind.clone())
    };
    assert_eq!(owner("0 new ready").as_deref(), Some("StatefulSet"));
    assert_eq!(owner("1 new ready").as_deref(), Some("Pod"));
    for (text, expected) in [
        ("web-3", Some(3)),
        ("web-03", None),
        ("web-0", Some(0)),
        ("web-", None),
        ("web-99999999999", None),
        ("web-x", None),
        ("other-3", None),
        ("web", None),
    ] {
        let mut pod = (*made).clone();
        pod.metadata.name = Some(text.to_owned());
        assert_eq!(ordinal(&set, &pod), expected, "{text}");
    }
}

#[test]
fn counts_and_the_end_of_an_update() {
    let now = Timestamp::from_second(1000).unwrap();
    let status = |pods: &[&str]| {
        let pods: Vec<_> = pods.iter().map(|p| pod(p)).collect();
        status::status(&set(2, json!({})), &pods, "old", "new", now)
    };
    let half = status(&["0 old ready", "1 new ready"]);
    assert_eq!(
        (half.current_replicas, half.updated_replicas, half.current_revision.as_deref()),
        (Some(1), Some(1), Some("old"))
    );
    let done = status(&["0 new ready", "1 new ready"]);
    assert_eq!((done.current_replicas, done.current_revision.as_deref()), (Some(2), Some("new")));
}

#[test]
fn what_never_worked_is_replaced() {
    let parallel = set(3, json!({"podManagementPolicy": "Parallel"}));
    check(&parallel, &["0 old unready", "1 old pending", "2 old unready"], &[], &["web-2", "web-1", "web-0"]);
    check(&parallel, &["0 old ready", "1 old unready", "2 old ready"], &[], &["web-1"]);
    check(&parallel, &["0 old ready", "1 new unready", "2 old ready"], &[], &[]);
    check(&parallel, &["0 old ready", "1 old ready dying", "2 old ready"], &[], &[]);
}

#[test]
fn ordinals_without_end() {
    let many = set(i32::MAX, json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 7}}));
    let plan = run(&many, &[pod("8 new ready")]);
    assert_eq!(plan.create.len(), 500);
    assert!(plan.create.iter().all(|(ordinal, _)| *ordinal != 8));
    assert!(plan.delete.is_empty());
}

#[test]
fn claims_of_the_pod_before() {
    let in_order = set(2, json!({}));
    assert!(run_blocked(&in_order, &[], &|o| o == 0).create.is_empty());
    let parallel = set(3, json!({"podManagementPolicy": "Parallel"}));
    let created: Vec<i32> =
        run_blocked(&parallel, &[], &|o| o == 1).create.into_iter().map(|(o, _)| o).collect();
    assert_eq!(created, [0, 2]);

    let claim =
        |meta: Value| -> PersistentVolumeClaim { serde_json::from_value(json!({"metadata": meta})).unwrap() };
    let owner =
        |kind: &str, name: &str| json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "U"}]);
    for (meta, expected) in [
        (json!({}), false),
        (json!({"deletionTimestamp": "1970-01-01T00:00:00Z"}), true),
        (json!({"ownerReferences": owner("Pod", "web-1")}), true),
        (json!({"ownerReferences": owner("Pod", "other")}), false),
        (json!({"ownerReferences": owner("Thing", "web-1")}), false),
    ] {
        assert_eq!(claims::on_its_way_out(&claim(meta.clone()), "web-1"), expected, "{meta}");
    }
    for (name, expected) in
        [("data-web-1", true), ("data-web", false), ("data-other-1", false), ("x-web-1", false)]
    {
        assert_eq!(identity::may_claim(&in_order, name), expected, "{name}");
    }
}

#[test]
fn adopted_pods_are_told_who_they_are() {
    let mut stray = (*pod("0 new ready")).clone();
    stray.metadata.labels.as_mut().unwrap().retain(|key, _| key == "a");
    let one = set(1, json!({}));
    assert_eq!(run(&one, &[pod("0 new ready")]).relabel.len(), 0);
    assert_eq!(run(&one, &[Arc::new(stray.clone())]).relabel.len(), 1);
    let labels = identity::missing_labels(&one, &stray);
    let expected = [("statefulset.kubernetes.io/pod-name", "web-0"), ("apps.kubernetes.io/pod-index", "0")];
    assert_eq!(labels.iter().map(|(k, v)| (*k, v.as_str())).collect::<Vec<_>>(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// In order: never more than one pod is missing or in trouble on our account, whatever happens in between.
    #[test]
    fn one_at_a_time(steps in proptest::collection::vec((0..5_u8, 0..4_usize), 1..100)) {
        let mut pods: Vec<String> = (0..4).map(|i| format!("{i} old ready")).collect();
        let set = set(4, json!({}));
        for (what, index) in steps {
            match what {
                0 => if let Some(p) = pods.iter_mut().filter(|p| p.contains("unready")).nth(index) { *p = p.replace("unready", "ready") },
                1 => pods.retain(|p| !p.ends_with("dying")),
                _ => {
                    let held: Vec<_> = pods.iter().map(|p| pod(p)).collect();
                    let plan = run(&set, &held);
                    prop_assert!(plan.create.len() + plan.delete.len() <= 1);
                    for (ordinal, revision) in plan.create { pods.push(format!("{ordinal} {revision} unready")); }
                    for gone in plan.delete {
                        let text = format!("{} ", name(&gone.metadata).trim_start_matches("web-"));
                        pods.iter_mut().filter(|p| p.starts_with(&text)).for_each(|p| p.push_str(" dying"));
                    }
                }
            }
            let well = pods.iter().filter(|p| p.ends_with(" ready")).count();
            prop_assert!(well >= 3, "{:?}", pods);
        }
        for _ in 0..30 {
            let held: Vec<_> = pods.iter().map(|p| pod(p)).collect();
            let plan = run(&set, &held);
            for (ordinal, revision) in plan.create { pods.push(format!("{ordinal} {revision} ready")); }
            for gone in plan.delete {
                let text = format!("{} ", name(&gone.metadata).trim_start_matches("web-"));
                pods.retain(|p| !p.starts_with(&text));
            }
            pods.retain(|p| !p.ends_with("dying"));
            pods.iter_mut().for_each(|p| *p = p.replace("unready", "ready"));
        }
        pods.sort();
        prop_assert_eq!(pods, ["0 new ready", "1 new ready", "2 new ready", "3 new ready"]);
    }

    /// All at once: an update takes no more down than it may, whatever else is down, and comes to its end.
    #[test]
    fn as_many_as_may_fall(
        limit in 1..4_usize, partition in 0..3_i32, steps in proptest::collection::vec((0..6_u8, 0..5_usize), 1..80),
    ) {
        let mut pods: Vec<String> = (0..5).map(|i| format!("{i} old ready")).collect();
        let set = set(5, json!({"podManagementPolicy": "Parallel", "updateStrategy":
            {"type": "RollingUpdate", "rollingUpdate": {"partition": partition, "maxUnavailable": limit}}}));
        let turn = |pods: &mut Vec<String>, state: &str| {
            let up = pods.iter().filter(|p| p.ends_with(" ready")).count();
            let held: Vec<_> = pods.iter().map(|p| pod(p)).collect();
            let plan = run(&set, &held);
            let healthy_gone = plan.delete.iter().filter(|p| ready(p)).count();
            assert!(healthy_gone == 0 || up - healthy_gone >= 5 - limit, "{pods:?}");
            for (ordinal, revision) in plan.create {
                assert_eq!(revision, if ordinal < partition { "old" } else { "new" });
                pods.push(format!("{ordinal} {revision} {state}"));
            }
            for gone in plan.delete {
                let text = format!("{} ", name(&gone.metadata).trim_start_matches("web-"));
                pods.iter_mut().filter(|p| p.starts_with(&text)).for_each(|p| p.push_str(" dying"));
            }
        };
        for (what, index) in steps {
            match what {
                0 => if let Some(p) = pods.iter_mut().filter(|p| p.contains("unready")).nth(index) { *p = p.replace("unready", "ready") },
                1 => pods.retain(|p| !p.ends_with("dying")),
                2 => if let Some(p) = pods.get_mut(index) && p.ends_with(" ready") { *p = p.replace("ready", "unready") },
                _ => turn(&mut pods, "unready"),
            }
        }
        for _ in 0..20 {
            pods.iter_mut().for_each(|p| *p = p.replace("unready", "ready"));
            pods.retain(|p| !p.ends_with("dying"));
            turn(&mut pods, "ready");
        }
        pods.sort();
        let end: Vec<String> = (0..5).map(|i| format!("{i} {} ready", if i < partition { "old" } else { "new" })).collect();
        prop_assert_eq!(pods, end);
    }
}
