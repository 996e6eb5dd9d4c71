//! The status of a Deployment, and whether its rollout is complete, moving or late. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};

use super::conditions::{
    AVAILABLE, NEW_SET_AVAILABLE, PROGRESSING, REPLICA_FAILURE, TIMED_OUT, condition, get, has_deadline,
    remove, set,
};
use super::rollout::{Rollout, Set, bounds, desired};
use crate::runtime::object::{after_seconds, name};

/// Zero counts and empty lists as the server shows them: absent.
pub(super) fn tidy(mut status: DeploymentStatus) -> DeploymentStatus {
    for count in [
        &mut status.replicas,
        &mut status.updated_replicas,
        &mut status.ready_replicas,
        &mut status.available_replicas,
        &mut status.unavailable_replicas,
    ] {
        *count = count.filter(|n| *n != 0);
    }
    status.conditions = status.conditions.filter(|c| !c.is_empty());
    status
}

/// Counts and availability.
pub(super) fn plain(rollout: &Rollout<'_>) -> DeploymentStatus {
    let deployment = rollout.deployment();
    let sum = |of: fn(&Set) -> i32| rollout.sets.iter().map(of).sum::<i32>();
    let (total, available) = (sum(Set::actual), sum(Set::available));
    let mut conditions = rollout.conditions.clone();
    let (status, reason, text) = if available >= desired(deployment) - bounds(deployment).1 {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, condition(AVAILABLE, status, reason, text, rollout.now()));
    tidy(DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(total),
        updated_replicas: Some(rollout.newest().map_or(0, Set::actual)),
        ready_replicas: Some(sum(|s| s.now.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((total - available).max(0)),
        terminating_replicas: Some(sum(|s| {
            s.now.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0)
        })),
        collision_count: deployment.status.as_ref().and_then(|s| s.collision_count),
        conditions: Some(conditions),
    })
}

/// Whether all pods are new and available and no old one is left.
pub(super) fn complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = desired(deployment);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn moving(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let count = |n: Option<i32>| n.unwrap_or(0);
    let old = |s: &DeploymentStatus| count(s.replicas) - count(s.updated_replicas);
    count(now.updated_replicas) > count(before.updated_replicas)
        || old(now) < old(before)
        || count(now.ready_replicas) > count(before.ready_replicas)
        || count(now.available_replicas) > count(before.available_replicas)
}

/// When the rollout is late, going by the last progress.
fn due(deployment: &Deployment, progress: &DeploymentCondition) -> Option<Timestamp> {
    let seconds = deployment.spec.progress_deadline_seconds?;
    Some(after_seconds(progress.last_update_time.as_ref()?.0, i64::from(seconds)))
}

/// The status during a rollout, and when to look whether it is late.
pub(super) fn rolling(rollout: &Rollout<'_>) -> (DeploymentStatus, Option<Duration>) {
    let deployment = rollout.deployment();
    let mut status = plain(rollout);
    let mut conditions = status.conditions.take().unwrap_or_default();
    if !has_deadline(deployment) {
        remove(&mut conditions, PROGRESSING);
    }
    let current = get(&conditions, PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|c| c.reason.as_deref());
    let done = status.replicas == status.updated_replicas && reason == Some(NEW_SET_AVAILABLE);
    if has_deadline(deployment) && !done {
        progress(rollout, &status, &mut conditions, current.as_ref());
    }
    match failure(rollout) {
        Some(failure) => set(&mut conditions, failure),
        None => remove(&mut conditions, REPLICA_FAILURE),
    }
    // A rollout that has come to its end, well or not, cannot be late any more.
    let ended = |c: &DeploymentCondition| matches!(c.reason.as_deref(), Some(TIMED_OUT | NEW_SET_AVAILABLE));
    let again = get(&conditions, PROGRESSING)
        .filter(|c| !complete(deployment, &status) && !ended(c))
        .and_then(|c| due(deployment, c))
        .map(|due| {
            let wait = Duration::try_from(due.duration_since(rollout.now())).unwrap_or_default();
            wait + Duration::from_secs(1)
        });
    status.conditions = Some(conditions);
    (tidy(status), again)
}

fn progress(
    rollout: &Rollout<'_>,
    status: &DeploymentStatus,
    conditions: &mut Vec<DeploymentCondition>,
    current: Option<&DeploymentCondition>,
) {
    let (deployment, now) = (rollout.deployment(), rollout.now());
    let what = match rollout.newest() {
        Some(set) => format!("ReplicaSet {:?}", name(&set.now.metadata)),
        None => format!("Deployment {:?}", name(&deployment.metadata)),
    };
    let before = deployment.status.clone().unwrap_or_default();
    if complete(deployment, status) {
        let text = format!("{what} has successfully progressed.");
        set(conditions, condition(PROGRESSING, "True", NEW_SET_AVAILABLE, text, now));
    } else if moving(&before, status) {
        let text = format!("{what} is progressing.");
        let mut new = condition(PROGRESSING, "True", "ReplicaSetUpdated", text, now);
        if let Some(current) = current.filter(|c| c.status.as_deref() == Some("True")) {
            new.last_transition_time = current.last_transition_time.clone();
        }
        // The time of the last progress moves even if nothing else does.
        remove(conditions, PROGRESSING);
        conditions.push(new);
    } else if let Some(current) = current {
        let reason = current.reason.as_deref();
        let late = reason != Some(NEW_SET_AVAILABLE)
            && reason != Some(TIMED_OUT)
            && due(deployment, current).is_some_and(|due| due < now);
        if late {
            let text = format!("{what} has timed out progressing.");
            set(conditions, condition(PROGRESSING, "False", TIMED_OUT, text, now));
        }
    }
}

/// The newest set's failure to make pods, else any old set's.
fn failure(rollout: &Rollout<'_>) -> Option<DeploymentCondition> {
    let of = |set: &Set| {
        let conditions = set.now.status.as_ref()?.conditions.as_ref()?;
        let failure = conditions.iter().find(|c| c.type_.as_deref() == Some(REPLICA_FAILURE))?;
        Some(DeploymentCondition {
            type_: failure.type_.clone(),
            status: failure.status.clone(),
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            last_update_time: failure.last_transition_time.clone(),
            last_transition_time: failure.last_transition_time.clone(),
        })
    };
    rollout.newest().and_then(of).or_else(|| rollout.old().find_map(of))
}
