//! Signs of life, taints, paces, evictions.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn node(name: &str, ready: &str, heartbeat: &str, extra: Value) -> Node {
    let mut conditions = vec![];
    if !ready.is_empty() {
        conditions.push(json!({
            "type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat, "lastTransitionTime": "2024-01-01T00:00:00Z",
        }));
    }
    conditions.extend(extra["conditions"].as_array().cloned().unwrap_or_default());
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "labels": {"topology.kubernetes.io/zone": extra["zone"].as_str().unwrap_or("z")}},
        "spec": {"taints": extra["taints"], "unschedulable": extra["unschedulable"].as_bool()},
        "status": {"conditions": conditions},
    }))
    .unwrap()
}

fn lease(renewed: &str) -> Lease {
    serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"renewTime": renewed}})).unwrap()
}

#[test]
fn silence() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let posted = node("n", "True", "2024-01-01T00:00:00Z", json!({}));
    let first = lease("2024-01-01T00:00:00.000000Z");
    let mut health = Health::default();
    assert_eq!(health.see(&posted, Some(&first), at(0)), (false, Duration::from_secs(50)));
    assert_eq!(health.see(&posted, Some(&first), at(30)), (false, Duration::from_secs(20)));
    // The lease was renewed meanwhile.
    let second = lease("2024-01-01T00:00:10.000000Z");
    assert_eq!(health.see(&posted, Some(&second), at(49)), (false, Duration::from_secs(50)));
    assert!(health.see(&posted, Some(&second), at(99)).0);
    // Our own verdict is no sign of life; a posted status is.
    let unknown = node("n", "Unknown", "2024-01-01T00:01:00Z", json!({}));
    assert!(health.see(&unknown, Some(&second), at(100)).0);
    let back = node("n", "True", "2024-01-01T00:02:00Z", json!({}));
    assert!(!health.see(&back, None, at(101)).0);
    // A node without any status gets a minute.
    let mut new = Health::default();
    let empty = node("m", "", "", json!({}));
    assert!(!new.see(&empty, None, at(0)).0);
    assert!(!new.see(&empty, None, at(59)).0);
    assert!(new.see(&empty, None, at(60)).0);
}

#[test]
fn conditions_of_a_lost_node() {
    let now = Timestamp::from_second(0).unwrap();
    let lost = node("n", "True", "2024-01-01T00:00:00Z", json!({}));
    let conditions = health::unknown_conditions(&lost, now).unwrap();
    assert_eq!(conditions[0]["reason"], "NodeStatusUnknown");
    assert_eq!(conditions[1]["reason"], "NodeStatusNeverUpdated");
    let all: Vec<Value> = ["MemoryPressure", "DiskPressure", "PIDPressure"]
        .map(|kind| json!({"type": kind, "status": "Unknown"}))
        .to_vec();
    let done = node("n", "Unknown", "2024-01-01T00:00:00Z", json!({"conditions": all}));
    assert_eq!(health::unknown_conditions(&done, now), None);
}

#[test]
fn taints_follow_conditions() {
    let now = Timestamp::from_second(0).unwrap();
    let check = |node: Node, expected: Option<&[&str]>| {
        let wanted = taints::wanted(&node);
        let merged = taints::merged(&node, &wanted.keep_off, wanted.evict.as_ref(), now);
        let shown =
            merged.map(|list| list.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect::<Vec<_>>());
        assert_eq!(
            shown.as_deref(),
            expected.map(|e| e.iter().map(|s| s.to_string()).collect::<Vec<_>>()).as_deref()
        );
    };
    check(node("n", "True", "2024-01-01T00:00:00Z", json!({})), None);
    check(
        node(
            "n",
            "False",
            "2024-01-01T00:00:00Z",
            json!({"taints": [{"key": "mine", "effect": "NoSchedule"}]}),
        ),
        Some(&[
            "mine:NoSchedule",
            "node.kubernetes.io/not-ready:NoExecute",
            "node.kubernetes.io/not-ready:NoSchedule",
        ]),
    );
    check(
        node(
            "n",
            "Unknown",
            "2024-01-01T00:00:00Z",
            json!({"taints": [
                {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"},
                {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
            ]}),
        ),
        Some(&["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]),
    );
    check(
        node(
            "n",
            "True",
            "2024-01-01T00:00:00Z",
            json!({"unschedulable": true,
            "conditions": [{"type": "DiskPressure", "status": "True"}],
            "taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}),
        ),
        Some(&["node.kubernetes.io/disk-pressure:NoSchedule", "node.kubernetes.io/unschedulable:NoSchedule"]),
    );
}

#[test]
fn pace_of_evictions() {
    let start = Instant::now();
    let zone = |down: usize, up: usize, name: &str| -> Vec<Arc<Node>> {
        (0..down + up)
            .map(|i| {
                let ready = if i < down { "Unknown" } else { "True" };
                Arc::new(node(&format!("{name}{i}"), ready, "2024-01-01T00:00:00Z", json!({"zone": name})))
            })
            .collect()
    };
    let seconds = |n| Some(Duration::from_secs(n));
    // One of two: at once; the second within ten seconds waits.
    let nodes = zone(2, 2, "a");
    let mut zones = Zones::default();
    assert_eq!(zones.admit(&nodes[0], &nodes, false, start), (true, None));
    let later = start + Duration::from_secs(4);
    assert_eq!(zones.admit(&nodes[1], &nodes, false, later), (false, seconds(6)));
    assert_eq!(zones.admit(&nodes[0], &nodes, true, later), (true, None), "it has it already");
    assert_eq!(zones.admit(&nodes[1], &nodes, false, start + Duration::from_secs(10)), (true, None));
    // Everything lost: nothing is driven out, and what was begun is taken back. Another zone alive: it is.
    let mut nodes = zone(2, 0, "a");
    for held in [false, true] {
        assert_eq!(Zones::default().admit(&nodes[0], &nodes, held, start), (false, seconds(5)));
    }
    nodes.extend(zone(0, 1, "b"));
    assert_eq!(Zones::default().admit(&nodes[0], &nodes, false, start), (true, None));
    // Most of a small zone lost: nothing.
    let nodes = zone(4, 2, "a");
    assert_eq!(Zones::default().admit(&nodes[0], &nodes, false, start), (false, seconds(5)));
}

#[test]
fn when_pods_must_go() {
    let now = Timestamp::from_second(1_000_000).unwrap();
    let added = Timestamp::from_second(999_900).unwrap().to_string();
    let taint: k8s_openapi::api::core::v1::Taint =
        serde_json::from_value(json!({"key": "k", "effect": "NoExecute", "timeAdded": added})).unwrap();
    let pod = |tolerations: Value| -> Pod {
        serde_json::from_value(
            json!({"metadata": {}, "spec": {"containers": [], "tolerations": tolerations}}),
        )
        .unwrap()
    };
    for (tolerations, expected) in [
        (json!([]), Some(1_000_000)),
        (json!([{"key": "k", "operator": "Exists"}]), None),
        (json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]), Some(1_000_200)),
        (
            json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}, {"operator": "Exists", "tolerationSeconds": 60}]),
            Some(999_960),
        ),
        (json!([{"key": "other", "operator": "Exists"}]), Some(1_000_000)),
    ] {
        let due = eviction::evict_at(&pod(tolerations.clone()), std::slice::from_ref(&taint), now);
        assert_eq!(due.map(|d| d.as_second()), expected, "{tolerations}");
    }
    assert_eq!(eviction::evict_at(&pod(json!([])), &[], now), None);
    // A pod that came to the node long after the taint has its full time: else its successors would never live.
    let mut late = pod(json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 60}]));
    late.metadata.creation_timestamp =
        Some(crate::runtime::object::time(Timestamp::from_second(999_970).unwrap()));
    let due = |pod: &Pod| eviction::evict_at(pod, std::slice::from_ref(&taint), now).map(|d| d.as_second());
    assert_eq!(due(&late), Some(1_000_030));
    late.status = serde_json::from_value(json!({"conditions": [{"type": "PodScheduled", "status": "True",
        "lastTransitionTime": Timestamp::from_second(999_990).unwrap().to_string()}]}))
    .unwrap();
    assert_eq!(due(&late), Some(1_000_050));
}

#[test]
fn pods_of_a_lost_node() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let pod = |status: &str, since: &str| -> Pod {
        serde_json::from_value(
            json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": status, "lastTransitionTime": since}]}}),
        )
        .unwrap()
    };
    let lost = node("n", "Unknown", "2024-01-01T00:00:00Z", json!({}));
    assert!(health::unready_patch(&lost, &pod("True", "2023-12-31T00:00:00Z"), now).is_some());
    assert!(health::unready_patch(&lost, &pod("False", "2023-12-31T00:00:00Z"), now).is_none());
    assert!(health::unready_patch(&lost, &pod("True", "2024-01-01T00:00:05Z"), now).is_none());
    let fine = node("n", "True", "2024-01-01T00:00:00Z", json!({}));
    assert!(health::unready_patch(&fine, &pod("True", "2023-12-31T00:00:00Z"), now).is_none());
}
