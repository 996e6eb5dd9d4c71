//! The conditions of a Job. Pure.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};

use crate::runtime::object::time;

pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILED: &str = "Failed";
pub(super) const SUSPENDED: &str = "Suspended";
/// The Job will be complete when its pods have ended.
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// The Job will have failed when its pods have ended.
pub(super) const FAILURE_TARGET: &str = "FailureTarget";

/// The condition of that type, if it is True.
pub(super) fn holds<'s>(status: &'s JobStatus, kind: &str) -> Option<&'s JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

/// Whether nothing will happen to the Job any more.
pub(super) fn finished(status: &JobStatus) -> bool {
    holds(status, COMPLETE).is_some() || holds(status, FAILED).is_some()
}

/// Sets a condition; true if that is a change.
pub(super) fn set(
    status: &mut JobStatus,
    kind: &str,
    value: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let text = if value { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let held = conditions.iter().position(|c| c.type_ == kind);
    if held.is_some_and(|i| conditions[i].status == text) || (held.is_none() && !value) {
        return false;
    }
    let new = JobCondition {
        type_: kind.to_owned(),
        status: text.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    };
    match held {
        Some(index) => conditions[index] = new,
        None => conditions.push(new),
    }
    true
}
