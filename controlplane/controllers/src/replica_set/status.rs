//! The status of a set of pods. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;

use super::replicated::Replicated;
use crate::runtime::object::{active, available_at, deleting, finished, ready, time};

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Why pods could not be created or deleted.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Zero counts and empty lists as the server shows them: absent.
pub(super) fn tidy(mut status: ReplicaSetStatus) -> ReplicaSetStatus {
    for count in
        [&mut status.fully_labeled_replicas, &mut status.ready_replicas, &mut status.available_replicas]
    {
        *count = count.filter(|n| *n != 0);
    }
    status.conditions = status.conditions.filter(|c| !c.is_empty());
    status
}

/// What to report about `pods`, and when to look again for a pod that becomes available by time.
pub(super) fn status<S: Replicated + Resource>(
    set: &S,
    pods: &[Arc<Pod>],
    failure: Option<Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let selector = set.matcher();
    let mine = |pod: &&Arc<Pod>| selector.as_ref().is_some_and(|s| s.matches(&pod.metadata));
    let template = set.template().and_then(|t| t.metadata.as_ref()?.labels.as_ref());
    let (mut all, mut labeled, mut ready_count, mut available, mut terminating) = (0, 0, 0, 0, 0);
    let mut next: Option<Timestamp> = None;
    for pod in pods.iter().filter(mine) {
        if deleting(&pod.metadata) && !finished(pod) {
            terminating += 1;
        }
        if !active(pod) {
            continue;
        }
        all += 1;
        let labels = pod.metadata.labels.as_ref();
        if template.is_none_or(|t| t.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))) {
            labeled += 1;
        }
        if !ready(pod) {
            continue;
        }
        ready_count += 1;
        match available_at(pod, set.min_ready_seconds()) {
            Some(at) if at <= now => available += 1,
            Some(at) => next = Some(next.map_or(at, |n| n.min(at))),
            None => {}
        }
    }
    let before = set.status();
    let counts_terminating = before.terminating_replicas.is_some() || S::IDENTITY == "replicaset-controller";
    let status = ReplicaSetStatus {
        replicas: all,
        fully_labeled_replicas: Some(labeled),
        ready_replicas: Some(ready_count),
        available_replicas: Some(available),
        terminating_replicas: counts_terminating.then_some(terminating),
        observed_generation: set.meta().generation.or(before.observed_generation),
        conditions: Some(conditions(before.conditions.unwrap_or_default(), failure, now)),
    };
    let wait = next.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    (tidy(status), wait)
}

fn conditions(
    mut conditions: Vec<ReplicaSetCondition>,
    failure: Option<Failure>,
    now: Timestamp,
) -> Vec<ReplicaSetCondition> {
    let Some(failure) = failure else {
        conditions.retain(|c| c.type_.as_deref() != Some(REPLICA_FAILURE));
        return conditions;
    };
    if conditions.iter().any(|c| c.type_.as_deref() == Some(REPLICA_FAILURE)) {
        return conditions;
    }
    conditions.push(ReplicaSetCondition {
        type_: Some(REPLICA_FAILURE.to_owned()),
        status: Some("True".to_owned()),
        reason: Some(failure.reason.to_owned()),
        message: Some(failure.message),
        last_transition_time: Some(time(now)),
    });
    conditions
}
