//! The order in which surplus pods are deleted: first those whose loss is felt least. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::object::{annotation, created, node_name, phase, pod_condition, ready, uid};

/// The annotation that says how dear a pod is.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts ascending: the smallest is deleted first.
pub type DeletionOrder = (bool, u8, bool, i32, Reverse<usize>, i32, Reverse<i32>, i32, String);

/// Where a pod stands in the order.
pub fn deletion_order(pod: &Pod, related: &BTreeMap<String, usize>, now: Timestamp) -> DeletionOrder {
    let phase = match phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let cost = annotation(&pod.metadata, COST).and_then(|c| c.parse().ok()).unwrap_or(0);
    let crowd = related.get(node_name(pod)).copied().unwrap_or(0);
    let restarts = (pod.status.iter())
        .flat_map(|s| s.container_statuses.iter().flatten())
        .map(|c| c.restart_count)
        .max()
        .unwrap_or(0);
    let is_ready = ready(pod);
    let ready_for = if is_ready { age_class(ready_since(pod), now) } else { 0 };
    (
        !node_name(pod).is_empty(),
        phase,
        is_ready,
        cost,
        Reverse(crowd),
        ready_for,
        Reverse(restarts),
        age_class(Some(created(&pod.metadata)), now),
        uid(&pod.metadata).to_owned(),
    )
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    Some(pod_condition(pod, "Ready")?.last_transition_time.as_ref()?.0)
}

/// Ages count by powers of two, so that of many pods of like age not always the youngest goes.
fn age_class(since: Option<Timestamp>, now: Timestamp) -> i32 {
    let Some(since) = since else { return -2 };
    let age = now.duration_since(since).as_nanos();
    if age <= 0 { -1 } else { i32::try_from(age.ilog2()).unwrap_or(i32::MAX) }
}
