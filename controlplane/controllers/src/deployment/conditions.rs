//! The conditions of a Deployment: Available, Progressing, ReplicaFailure. Pure.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};

use super::rollout::Rollout;
use crate::runtime::object::time;

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";
pub(super) const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
pub(super) const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// A condition that is set now.
pub(super) fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_update_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}

/// The condition of that type.
pub(super) fn get<'c>(conditions: &'c [DeploymentCondition], kind: &str) -> Option<&'c DeploymentCondition> {
    conditions.iter().find(|c| c.type_.as_deref() == Some(kind))
}

/// Removes the condition of that type.
pub(super) fn remove(conditions: &mut Vec<DeploymentCondition>, kind: &str) {
    conditions.retain(|c| c.type_.as_deref() != Some(kind));
}

/// Sets a condition, unless its status and reason are there already.
pub(super) fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition) {
    let kind = new.type_.clone().unwrap_or_default();
    if let Some(old) = get(conditions, &kind) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove(conditions, &kind);
    conditions.push(new);
}

/// Whether a rollout of this Deployment can be late.
pub(super) fn has_deadline(deployment: &Deployment) -> bool {
    deployment.spec.progress_deadline_seconds.is_some_and(|s| s != i32::MAX)
}

/// Notes that the Deployment was paused or resumed, so that the deadline does not run meanwhile.
pub(super) fn pause(rollout: &mut Rollout<'_>) {
    let deployment = rollout.deployment();
    let reason = get(&rollout.conditions, PROGRESSING).and_then(|c| c.reason.as_deref());
    if !has_deadline(deployment) || reason == Some(TIMED_OUT) {
        return;
    }
    let (paused, known) = (deployment.spec.paused == Some(true), reason == Some(PAUSED));
    let (reason, text) = match (paused, known) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    let now = rollout.now();
    set(&mut rollout.conditions, condition(PROGRESSING, "Unknown", reason, text, now));
}

/// Notes that the wanted ReplicaSet was there already.
pub(super) fn found(rollout: &mut Rollout<'_>, name: &str) {
    if has_deadline(rollout.deployment()) && get(&rollout.conditions, PROGRESSING).is_none() {
        let text = format!("Found new replica set {name:?}");
        let now = rollout.now();
        set(&mut rollout.conditions, condition(PROGRESSING, "True", "FoundNewReplicaSet", text, now));
    }
}

/// Notes that a ReplicaSet is being made.
pub(super) fn created(rollout: &mut Rollout<'_>, name: &str) {
    if has_deadline(rollout.deployment()) {
        let text = format!("Created new replica set {name:?}");
        let now = rollout.now();
        set(&mut rollout.conditions, condition(PROGRESSING, "True", "NewReplicaSetCreated", text, now));
    }
}

/// The status that says why a ReplicaSet could not be made, if that is news.
pub(super) fn failed_create(
    deployment: &Deployment,
    message: &str,
    now: Timestamp,
) -> Option<DeploymentStatus> {
    if !has_deadline(deployment) {
        return None;
    }
    let mut status = deployment.status.clone().unwrap_or_default();
    let before = status.conditions.clone();
    let conditions = status.conditions.get_or_insert_default();
    set(conditions, condition(PROGRESSING, "False", "ReplicaSetCreateError", message, now));
    (status.conditions != before).then_some(status)
}
