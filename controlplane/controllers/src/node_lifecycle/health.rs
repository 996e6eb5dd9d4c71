//! When a node was last heard of, and what its status says when that is too long ago. Pure but for what it
//! remembers.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use serde_json::{Value, json};

use crate::runtime::object::{created, deleting, finished, pod_condition, seconds_since, uid};

/// A node that is silent for so long is given up.
const GRACE: Duration = Duration::from_secs(50);
/// A node that has never posted a status gets more time.
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// The conditions that become unknown with the node.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The last signs of life.
#[derive(Debug, Default)]
pub(super) struct Health {
    renewed: Option<Timestamp>,
    posted: Option<Timestamp>,
    heard: Option<Instant>,
}

/// A node's condition.
pub(super) fn condition<'n>(node: &'n Node, kind: &str) -> Option<&'n NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// The status of the Ready condition; empty if there is none.
pub(super) fn ready_status(node: &Node) -> &str {
    condition(node, "Ready").map_or("", |c| c.status.as_str())
}

impl Health {
    /// Takes in a lease as it is now.
    pub(super) fn hear(&mut self, lease: Option<&Lease>, now: Instant) {
        let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.as_ref().map(|t| t.0));
        if renewed > self.renewed {
            self.renewed = renewed;
            self.heard = Some(now);
        }
    }

    /// Takes in what is seen now. Says whether the node has been silent for too long, and when to look again.
    pub(super) fn see(&mut self, node: &Node, lease: Option<&Lease>, now: Instant) -> (bool, Duration) {
        self.hear(lease, now);
        // What this controller writes is no sign of life.
        let posted = condition(node, "Ready")
            .filter(|c| c.status != "Unknown")
            .and_then(|c| c.last_heartbeat_time.as_ref().map(|t| t.0));
        if posted > self.posted {
            self.posted = posted;
            self.heard = Some(now);
        }
        let heard = *self.heard.get_or_insert(now);
        let grace = if condition(node, "Ready").is_some() { GRACE } else { STARTUP_GRACE };
        let silence = now.saturating_duration_since(heard);
        if silence >= grace { (true, grace) } else { (false, grace - silence) }
    }
}

/// The conditions of a node that is given up; `None` if they are there already.
pub(super) fn unknown_conditions(node: &Node, now: Timestamp) -> Option<Value> {
    let mut conditions = Vec::new();
    for kind in CONDITIONS {
        let stamp = now.to_string();
        match condition(node, kind) {
            Some(held) if held.status == "Unknown" => {}
            Some(_) => conditions.push(json!({
                "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.", "lastTransitionTime": stamp,
            })),
            None => conditions.push(json!({
                "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.", "lastHeartbeatTime": created(&node.metadata).to_string(),
                "lastTransitionTime": stamp,
            })),
        }
    }
    (!conditions.is_empty()).then_some(Value::Array(conditions))
}

/// The change to the status of a pod that was ready when its node ceased to be; `None` if there is none to make.
/// What the node itself has said of the pod since then stands.
pub(super) fn unready_patch(node: &Node, pod: &Pod, now: Timestamp) -> Option<Value> {
    let lost = condition(node, "Ready").filter(|c| c.status != "True")?;
    let since = lost.last_transition_time.as_ref()?.0;
    let ready = pod_condition(pod, "Ready").filter(|c| c.status == "True")?;
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    if seconds_since(changed, since) < 0 || deleting(&pod.metadata) || finished(pod) {
        return None;
    }
    Some(json!({
        "metadata": {"uid": uid(&pod.metadata)},
        "status": {"conditions": [{
            "type": "Ready", "status": "False", "reason": "NodeNotReady", "message": null,
            "lastTransitionTime": now.to_string(),
        }]},
    }))
}
