//! The status of a DaemonSet. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::fit::fit;
use super::plan::by_node;
use crate::runtime::object::{available_at, label, name, ready};
use crate::runtime::revisions::REVISION_HASH;

/// Zero counts and empty lists as the server shows them: absent.
pub(super) fn tidy(mut status: DaemonSetStatus) -> DaemonSetStatus {
    for count in
        [&mut status.number_available, &mut status.number_unavailable, &mut status.updated_number_scheduled]
    {
        *count = count.filter(|n| *n != 0);
    }
    status.conditions = status.conditions.filter(|c| !c.is_empty());
    status
}

/// Counts nodes by what they should have and have.
pub(super) fn status(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    hash: &str,
    now: Timestamp,
) -> DaemonSetStatus {
    let by_node = by_node(pods);
    let before = set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        collision_count: before.collision_count,
        conditions: before.conditions,
        observed_generation: set.metadata.generation,
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for node in nodes {
        let here = by_node.get(name(&node.metadata)).and_then(|pods| pods.first());
        if !fit(set, node).run {
            status.number_misscheduled += i32::from(here.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = here else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(ready(pod));
        let since = available_at(pod, set.spec.min_ready_seconds.unwrap_or(0));
        available += i32::from(since.is_some_and(|at| at <= now));
        updated += i32::from(label(&pod.metadata, REVISION_HASH) == Some(hash));
    }
    status.number_available = Some(available);
    status.updated_number_scheduled = Some(updated);
    status.number_unavailable = Some(status.desired_number_scheduled - available);
    tidy(status)
}
