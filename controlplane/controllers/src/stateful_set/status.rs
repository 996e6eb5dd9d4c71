//! The status of a StatefulSet. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::plan::on_delete;
use crate::runtime::object::{available_at, deleting, label, phase, ready};
use crate::runtime::revisions::REVISION_HASH;

/// Zero counts and empty lists as the server shows them: absent.
pub(super) fn tidy(mut status: StatefulSetStatus) -> StatefulSetStatus {
    for count in [&mut status.current_replicas, &mut status.ready_replicas, &mut status.updated_replicas] {
        *count = count.filter(|n| *n != 0);
    }
    status.available_replicas = Some(status.available_replicas.unwrap_or(0));
    status.collision_count = Some(status.collision_count.unwrap_or(0));
    status.conditions = status.conditions.filter(|c| !c.is_empty());
    status
}

/// Counts pods by readiness and revision.
pub(super) fn status(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    current: &str,
    update: &str,
    now: Timestamp,
) -> StatefulSetStatus {
    let before = set.status.clone().unwrap_or_default();
    let (mut ready_count, mut available, mut at_current, mut at_update) = (0, 0, 0, 0);
    for pod in pods {
        let running = phase(pod) == "Running" && ready(pod);
        ready_count += i32::from(running);
        let since = available_at(pod, set.spec.min_ready_seconds.unwrap_or(0));
        available += i32::from(running && since.is_some_and(|at| at <= now));
        if !deleting(&pod.metadata) {
            let revision = label(&pod.metadata, REVISION_HASH);
            at_current += i32::from(revision == Some(current));
            at_update += i32::from(revision == Some(update));
        }
    }
    let total = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let wanted = set.spec.replicas.unwrap_or(1);
    // When the last pod is of the new revision, that revision is the current one.
    let updated = !on_delete(set) && at_update == total && ready_count == total && total == wanted;
    tidy(StatefulSetStatus {
        replicas: total,
        ready_replicas: Some(ready_count),
        available_replicas: Some(available),
        current_replicas: Some(if updated { at_update } else { at_current }),
        updated_replicas: Some(at_update),
        current_revision: Some(if updated { update } else { current }.to_owned()),
        update_revision: Some(update.to_owned()),
        observed_generation: set.metadata.generation,
        collision_count: before.collision_count,
        conditions: before.conditions,
    })
}
