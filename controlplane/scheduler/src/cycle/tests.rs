//! Rows: nodes, pods, decision; and a cluster that fills up.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::node::NodeFacts;

fn node(snapshot: &mut Snapshot, name: &str, cpu: &str, memory: &str, extra: Value) {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": "110", "ephemeral-storage": "10Gi"}},
    });
    merge(&mut value, extra);
    snapshot.set_node(name, NodeFacts::new(&serde_json::from_value(value).unwrap()));
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn pod(name: &str, cpu: &str, extra: Value) -> PodInfo {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    });
    merge(&mut value, extra);
    PodInfo::new(&serde_json::from_value(value).unwrap())
}

fn on(node: &str, name: &str, cpu: &str, extra: Value) -> Arc<PodInfo> {
    let mut pod = pod(name, cpu, extra);
    pod.node = node.to_owned();
    Arc::new(pod)
}

fn decide(snapshot: &Snapshot, pod: &PodInfo) -> Decision {
    match full(snapshot, pod) {
        Decision::Nowhere(text) => {
            nowhere(text.split_once(" preemption: ").map_or(text.as_str(), |(reasons, _)| reasons))
        }
        node => node,
    }
}

/// A refusal, without what it says of preemption.
fn nowhere(text: &str) -> Decision {
    Decision::Nowhere(text.to_owned())
}

fn full(snapshot: &Snapshot, pod: &PodInfo) -> Decision {
    schedule(pod, snapshot, 0).0
}

#[test]
fn messages_say_why() {
    let mut snapshot = Snapshot::default();
    assert_eq!(decide(&snapshot, &pod("p", "1", json!({}))), nowhere("no nodes available to schedule pods"));
    node(&mut snapshot, "a", "1", "1Gi", json!({}));
    node(&mut snapshot, "b", "4", "1Gi", json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}));
    node(&mut snapshot, "c", "4", "1Gi", json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}));
    assert_eq!(
        decide(&snapshot, &pod("p", "2", json!({}))),
        nowhere("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).")
    );
    node(&mut snapshot, "d", "8", "1Gi", json!({"spec": {"unschedulable": true}}));
    assert_eq!(
        decide(&snapshot, &pod("p", "2", json!({"spec": {"nodeSelector": {"x": "y"}}}))),
        nowhere(
            "0/4 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) were \
             unschedulable, 2 node(s) had untolerated taint(s)."
        )
    );
    assert_eq!(
        decide(
            &snapshot,
            &pod(
                "p",
                "2",
                json!({"spec": {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"kubernetes.io/hostname": "d"}}})
            )
        ),
        Decision::Node("d".to_owned())
    );
}

#[test]
fn messages_say_what_preemption_could_do() {
    let check = |snapshot: &Snapshot, pod: &PodInfo, expected: &str| {
        let Decision::Nowhere(text) = full(snapshot, pod) else { panic!("it fits") };
        let (_, said) = text.split_once(" preemption: ").expect("something is said of preemption");
        assert_eq!(said, expected);
    };
    let mut snapshot = Snapshot::default();
    node(&mut snapshot, "a", "2", "1Gi", json!({}));
    node(&mut snapshot, "b", "2", "1Gi", json!({}));
    node(&mut snapshot, "c", "2", "1Gi", json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}));
    for (name, priority) in [("a", 5), ("b", 0)] {
        snapshot.add_pod(on(name, &format!("on-{name}"), "2", json!({"spec": {"priority": priority}})));
    }
    let of = |priority: i32, cpu: &str| pod("p", cpu, json!({"spec": {"priority": priority}}));
    check(
        &snapshot,
        &of(0, "1"),
        "0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found \
         for incoming pod.",
    );
    check(
        &snapshot,
        &of(5, "1"),
        "0/3 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for \
         scheduling, 1 node(s) have pods of lower priority, which this scheduler does not preempt yet.",
    );
    // More than a whole node.
    let none = "0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    check(&snapshot, &of(9, "3"), none);
    let claim = json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    check(&snapshot, &pod("p", "1m", claim), none);
    let never = json!({"spec": {"priority": 9, "preemptionPolicy": "Never"}});
    check(&snapshot, &pod("p", "1", never), "not eligible due to preemptionPolicy=Never.");
}

#[test]
fn several_shortages_count_together() {
    let mut snapshot = Snapshot::default();
    node(&mut snapshot, "a", "1", "1Ki", json!({"status": {"allocatable": {"pods": "0"}}}));
    let hungry = json!({"spec": {"containers": [{"name": "c", "resources": {"requests":
        {"cpu": "2", "memory": "1Mi", "ephemeral-storage": "20Gi", "x.io/gpu": "1"}}}]}});
    assert_eq!(
        decide(&snapshot, &pod("p", "2", hungry)),
        nowhere(
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient ephemeral-storage, 1 Insufficient \
             memory, 1 Insufficient x.io/gpu, 1 Too many pods."
        )
    );
}

#[test]
fn host_ports_are_exclusive() {
    let mut snapshot = Snapshot::default();
    node(&mut snapshot, "a", "4", "4Gi", json!({}));
    let with_port = |port: Value| json!({"spec": {"containers": [{"name": "c", "ports": [port]}]}});
    snapshot.add_pod(on(
        "a",
        "q",
        "1",
        with_port(json!({"containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.1"})),
    ));
    for (port, free) in [
        (json!({"containerPort": 1, "hostPort": 80}), false),
        (json!({"containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.2"}), true),
        (json!({"containerPort": 1, "hostPort": 80, "protocol": "UDP"}), true),
        (json!({"containerPort": 80}), true),
    ] {
        let decision = decide(&snapshot, &pod("p", "1", with_port(port.clone())));
        assert_eq!(decision == Decision::Node("a".to_owned()), free, "{port}");
    }
}

#[test]
fn preferences() {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b"] {
        node(&mut snapshot, name, "4", "4Gi", json!({}));
    }
    // The emptier node.
    snapshot.add_pod(on("a", "q", "2", json!({})));
    assert_eq!(decide(&snapshot, &pod("p", "1", json!({}))), Decision::Node("b".to_owned()));
    // A preferred label outweighs that.
    let affinity = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]}},
    ]}}}});
    assert_eq!(decide(&snapshot, &pod("p", "1", affinity)), Decision::Node("a".to_owned()));
    // A soft taint pushes away.
    node(
        &mut snapshot,
        "b",
        "4",
        "4Gi",
        json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}}),
    );
    assert_eq!(decide(&snapshot, &pod("p", "1", json!({}))), Decision::Node("a".to_owned()));
}

#[test]
fn pods_of_one_controller_spread() {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b", "c"] {
        node(&mut snapshot, name, "4", "4Gi", json!({}));
    }
    let owned = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "R", "controller": true}]}});
    for index in 0..6 {
        let pod = pod(&format!("p{index}"), "10m", owned.clone());
        let Decision::Node(place) = decide(&snapshot, &pod) else { panic!("must fit") };
        snapshot.add_pod(Arc::new(PodInfo { node: place, ..pod }));
    }
    for name in ["a", "b", "c"] {
        assert_eq!(snapshot.node(name).unwrap().pods.len(), 2);
    }
}

#[test]
fn named_nodes_are_examined_alone() {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b", "c"] {
        node(&mut snapshot, name, "4", "4Gi", json!({}));
    }
    let only = |name: &str, cpu: &str| {
        pod(
            "p",
            cpu,
            json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]}}}}}),
        )
    };
    assert_eq!(decide(&snapshot, &only("b", "1")), Decision::Node("b".to_owned()));
    assert_eq!(
        decide(&snapshot, &only("b", "9")),
        nowhere(
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
        )
    );
}

#[test]
fn a_node_that_left_keeps_its_pods_in_the_books() {
    let mut snapshot = Snapshot::default();
    node(&mut snapshot, "a", "1", "1Gi", json!({}));
    snapshot.add_pod(on("a", "q", "1", json!({})));
    snapshot.remove_node("a");
    assert_eq!(snapshot.len(), 0);
    node(&mut snapshot, "a", "1", "1Gi", json!({}));
    assert_eq!(
        decide(&snapshot, &pod("p", "1", json!({}))),
        nowhere("0/1 nodes are available: 1 Insufficient cpu.")
    );
    assert_eq!(snapshot.remove_pod("q").as_deref(), Some("a"));
    assert_eq!(decide(&snapshot, &pod("p", "1", json!({}))), Decision::Node("a".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes and goes, no node is given more than it has, and the sums are those of its pods.
    #[test]
    fn never_overcommits(
        sizes in proptest::collection::vec(1..8_i64, 1..6),
        steps in proptest::collection::vec((0..3000_i64, any::<bool>(), 0..50_usize), 1..150),
    ) {
        let mut snapshot = Snapshot::default();
        for (index, cores) in sizes.iter().enumerate() {
            node(&mut snapshot, &format!("n{index}"), &cores.to_string(), "64Gi", json!({}));
        }
        let mut placed: Vec<String> = Vec::new();
        let mut start = 0;
        for (index, (milli, leave, pick)) in steps.into_iter().enumerate() {
            if leave && !placed.is_empty() {
                let gone = placed.swap_remove(pick % placed.len());
                snapshot.remove_pod(&gone);
            }
            let pod = pod(&format!("p{index}"), &format!("{milli}m"), json!({}));
            let fits_somewhere = snapshot.nodes().iter().any(|n| {
                n.facts.as_ref().is_some_and(|f| f.allocatable.milli_cpu - n.requested.milli_cpu >= milli)
            });
            let (decision, next) = schedule(&pod, &snapshot, start);
            start = next;
            match decision {
                Decision::Node(node) => {
                    placed.push(pod.uid.clone());
                    snapshot.add_pod(Arc::new(PodInfo { node, ..pod }));
                }
                Decision::Nowhere(_) => prop_assert!(!fits_somewhere),
            }
            for node in snapshot.nodes() {
                let sum: i64 = node.pods.values().map(|p| p.requests.milli_cpu).sum();
                prop_assert_eq!(sum, node.requested.milli_cpu);
                prop_assert!(sum <= node.facts.as_ref().unwrap().allocatable.milli_cpu);
            }
        }
    }
}

fn labeled(name: &str, label: &str, extra: Value) -> PodInfo {
    let mut value = json!({"metadata": {"labels": {"app": label}}});
    merge(&mut value, extra);
    pod(name, "1m", value)
}

fn cluster_of_zones() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        node(&mut snapshot, name, "4", "4Gi", json!({"metadata": {"labels": {"zone": zone}}}));
    }
    snapshot
}

fn put(snapshot: &mut Snapshot, node: &str, pod: PodInfo) {
    snapshot.add_pod(Arc::new(PodInfo { node: node.to_owned(), ..pod }));
}

fn term(kind: &str, label: &str, key: &str) -> Value {
    json!({"spec": {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": key, "labelSelector": {"matchLabels": {"app": label}}}]}}}})
}

#[test]
fn affinity_between_pods() {
    let mut snapshot = cluster_of_zones();
    put(&mut snapshot, "b1", labeled("db", "db", json!({})));
    let near = labeled("web", "web", term("podAffinity", "db", "zone"));
    assert_eq!(decide(&snapshot, &near), Decision::Node("b1".to_owned()));
    let away = labeled("web", "web", term("podAntiAffinity", "db", "zone"));
    assert!(matches!(decide(&snapshot, &away), Decision::Node(n) if n.starts_with('a')));
    let nobody = labeled("web", "web", term("podAffinity", "nobody", "zone"));
    assert_eq!(
        decide(&snapshot, &nobody),
        nowhere("0/3 nodes are available: 3 node(s) didn't match pod affinity rules.")
    );
    // The first of a group that wants to be together may go anywhere, the next must follow.
    let first = labeled("g1", "g", term("podAffinity", "g", "kubernetes.io/hostname"));
    assert!(matches!(decide(&snapshot, &first), Decision::Node(_)));
    put(&mut snapshot, "a2", first);
    let second = labeled("g2", "g", term("podAffinity", "g", "kubernetes.io/hostname"));
    assert_eq!(decide(&snapshot, &second), Decision::Node("a2".to_owned()));
}

#[test]
fn pods_that_are_there_have_a_say() {
    let mut snapshot = cluster_of_zones();
    put(&mut snapshot, "a1", labeled("shy", "shy", term("podAntiAffinity", "web", "zone")));
    assert_eq!(decide(&snapshot, &labeled("web", "web", json!({}))), Decision::Node("b1".to_owned()));
    put(&mut snapshot, "b1", labeled("shy2", "shy", term("podAntiAffinity", "web", "zone")));
    assert_eq!(
        decide(&snapshot, &labeled("web", "web", json!({}))),
        nowhere("0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules.")
    );
    // Not in another namespace, unless the term says so.
    let mut elsewhere = labeled("web", "web", json!({}));
    elsewhere.key.namespace = Some("other".to_owned());
    assert!(matches!(decide(&snapshot, &elsewhere), Decision::Node(_)));
    snapshot.remove_pod("shy");
    snapshot.remove_pod("shy2");
    assert_eq!(snapshot.pods_with_terms(), 0);
    let everywhere = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "namespaceSelector": {"matchLabels": {"team": "x"}}, "labelSelector": {}}]}}}});
    put(&mut snapshot, "a1", labeled("shy", "shy", everywhere));
    snapshot.set_namespace("other", [("team".to_owned(), "x".to_owned())].into());
    assert_eq!(decide(&snapshot, &elsewhere), Decision::Node("b1".to_owned()));
}

#[test]
fn preferences_between_pods() {
    let mut snapshot = cluster_of_zones();
    put(&mut snapshot, "a1", labeled("db", "db", json!({})));
    let prefer = |kind: &str| {
        labeled(
            "web",
            "web",
            json!({"spec": {"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}}]}}}}),
        )
    };
    assert_eq!(decide(&snapshot, &prefer("podAffinity")), Decision::Node("a1".to_owned()));
    assert_ne!(decide(&snapshot, &prefer("podAntiAffinity")), Decision::Node("a1".to_owned()));
}

#[test]
fn spread_over_zones() {
    let spread = |skew: i64, hard: bool, extra: Value| {
        let when = if hard { "DoNotSchedule" } else { "ScheduleAnyway" };
        let mut constraint = json!({"maxSkew": skew, "topologyKey": "zone", "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "web"}}});
        merge(&mut constraint, extra);
        labeled("new", "web", json!({"spec": {"topologySpreadConstraints": [constraint]}}))
    };
    let mut snapshot = cluster_of_zones();
    put(&mut snapshot, "a1", labeled("w1", "web", json!({})));
    assert_eq!(decide(&snapshot, &spread(1, true, json!({}))), Decision::Node("b1".to_owned()));
    assert_eq!(decide(&snapshot, &spread(1, false, json!({}))), Decision::Node("b1".to_owned()));
    put(&mut snapshot, "a2", labeled("w2", "web", json!({})));
    node(
        &mut snapshot,
        "b1",
        "4",
        "4Gi",
        json!({"metadata": {"labels": {"zone": "b"}}, "spec": {"unschedulable": true}}),
    );
    assert_eq!(
        decide(&snapshot, &spread(1, true, json!({}))),
        nowhere(
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread \
             constraints."
        )
    );
    assert!(
        matches!(decide(&snapshot, &spread(5, true, json!({}))), Decision::Node(n) if n.starts_with('a'))
    );
    // Two domains where three are asked for: the missing one counts as empty.
    assert!(matches!(decide(&snapshot, &spread(2, true, json!({"minDomains": 3}))), Decision::Nowhere(_)));
    assert!(matches!(
        decide(&snapshot, &spread(1, true, json!({"topologyKey": "rack"}))),
        Decision::Nowhere(text) if text.contains("(missing required label)")
    ));
}

#[test]
fn claims_must_be_bound_and_volumes_in_reach() {
    use crate::plugins::volumes;
    let mut snapshot = cluster_of_zones();
    let wants = pod(
        "p",
        "1m",
        json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}),
    );
    assert_eq!(
        decide(&snapshot, &wants),
        nowhere("0/3 nodes are available: persistentvolumeclaim \"c\" not found.")
    );
    let set_claim = |snapshot: &mut Snapshot, phase: &str| {
        let claim =
            json!({"metadata": {"name": "c"}, "spec": {"volumeName": "pv"}, "status": {"phase": phase}});
        let info = volumes::claim(&serde_json::from_value(claim).unwrap());
        snapshot.claims.insert(pagurus_controlplane_api::key::ObjectKey::namespaced("ns", "c"), info);
    };
    set_claim(&mut snapshot, "Pending");
    assert_eq!(
        decide(&snapshot, &wants),
        nowhere("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.")
    );
    set_claim(&mut snapshot, "Bound");
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}]}}}});
    snapshot.volumes.insert("pv".to_owned(), volumes::reach(&serde_json::from_value(volume).unwrap()));
    assert_eq!(decide(&snapshot, &wants), Decision::Node("b1".to_owned()));
    node(&mut snapshot, "b1", "0", "4Gi", json!({"metadata": {"labels": {"zone": "b"}}}));
    assert_eq!(
        decide(&snapshot, &wants),
        nowhere("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had volume node affinity conflict.")
    );
}
