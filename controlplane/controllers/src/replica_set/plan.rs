//! How many pods to create and which to delete. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::replicated::Replicated;
use crate::runtime::pods::BURST;
use crate::runtime::rank::deletion_order;

/// What to do to the pods of a set.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// So many new pods.
    pub(super) create: usize,
    /// These are too many.
    pub(super) delete: Vec<Arc<Pod>>,
}

/// The number of pods that the set asks for.
pub(super) fn wanted<S: Replicated>(set: &S) -> usize {
    usize::try_from(set.replicas()).unwrap_or(0)
}

/// Compares the active pods with the number wanted. `related` counts pods of the same family per node.
pub(super) fn plan(
    wanted: usize,
    pods: &[Arc<Pod>],
    related: &BTreeMap<String, usize>,
    now: Timestamp,
) -> Plan {
    if pods.len() <= wanted {
        return Plan { create: (wanted - pods.len()).min(BURST), delete: Vec::new() };
    }
    let surplus = (pods.len() - wanted).min(BURST);
    let mut order = pods.to_vec();
    if wanted > 0 {
        order.sort_by_cached_key(|pod| deletion_order(pod, related, now));
    }
    order.truncate(surplus);
    Plan { create: 0, delete: order }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::object::name;

    fn pod(text: &str) -> Arc<Pod> {
        // name node phase ready|- cost restarts age-in-seconds
        let field: Vec<&str> = text.split_whitespace().collect();
        let at = Timestamp::from_second(1_000_000 - field[6].parse::<i64>().unwrap()).unwrap();
        let value = serde_json::json!({
            "metadata": {
                "name": field[0], "uid": field[0], "creationTimestamp": at.to_string(),
                "annotations": {"controller.kubernetes.io/pod-deletion-cost": field[4]},
            },
            "spec": {"containers": [], "nodeName": if field[1] == "-" { "" } else { field[1] }},
            "status": {
                "phase": field[2],
                "conditions": [{
                    "type": "Ready", "status": if field[3] == "ready" { "True" } else { "False" },
                    "lastTransitionTime": at.to_string(),
                }],
                "containerStatuses": [{
                    "name": "c", "image": "", "imageID": "", "ready": true,
                    "restartCount": field[5].parse::<i32>().unwrap(),
                }],
            },
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn check(wanted: usize, pods: &[&str], create: usize, delete: &[&str]) {
        let pods: Vec<_> = pods.iter().map(|p| pod(p)).collect();
        let related = crate::runtime::pods::per_node(pods.iter().map(|p| &**p));
        let plan = plan(wanted, &pods, &related, Timestamp::from_second(1_000_000).unwrap());
        assert_eq!(plan.create, create);
        assert_eq!(plan.delete.iter().map(|p| name(&p.metadata)).collect::<Vec<_>>(), delete);
    }

    #[test]
    fn counts() {
        check(3, &[], 3, &[]);
        check(2, &["a n1 Running ready 0 0 9", "b n1 Running ready 0 0 9"], 0, &[]);
        check(900, &[], 500, &[]);
    }

    #[test]
    fn who_goes_first() {
        // Unassigned before assigned.
        check(1, &["a n1 Pending - 0 0 9", "b - Pending - 0 0 9"], 0, &["b"]);
        // Pending before running.
        check(1, &["a n1 Running - 0 0 9", "b n2 Pending - 0 0 9"], 0, &["b"]);
        // Not ready before ready.
        check(1, &["a n1 Running ready 0 0 9", "b n2 Running - 0 0 9"], 0, &["b"]);
        // Cheap before dear.
        check(1, &["a n1 Running ready -5 0 9", "b n2 Running ready 3 0 9"], 0, &["a"]);
        // Crowded node first.
        check(
            2,
            &["a n1 Running ready 0 0 9", "b n2 Running ready 0 0 5000", "c n2 Running ready 0 0 5000"],
            0,
            &["b"],
        );
        // Young before old, by powers of two.
        check(1, &["a n1 Running ready 0 0 900", "b n2 Running ready 0 0 2"], 0, &["b"]);
        // More restarts first, when the ages are alike.
        check(1, &["a n1 Running - 0 1 9", "b n2 Running - 0 7 9"], 0, &["b"]);
    }
}
