//! What to do about a Job. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use super::conditions::{self, COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED, holds};
use super::pods::New;
use super::scale::Work;
use super::success_policy;
use super::tracking::{self, tidy, track};
use crate::runtime::object::{active, after_seconds, deleting, finished, ready, time};
use crate::runtime::recorder::Note;

const COMPLETIONS: &str = "Reached expected number of succeeded pods";

/// What to do, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Too many: released uncounted, then deleted.
    pub(super) retire: Vec<Arc<Pod>>,
    /// Deleted because the Job is over; counted when they have ended.
    pub(super) stop: Vec<Arc<Pod>>,
    pub(super) create: Vec<New>,
    pub(super) status: JobStatus,
    pub(super) notes: Vec<Note>,
    /// Released once the status is written.
    pub(super) counted: Vec<Arc<Pod>>,
    pub(super) again: Option<Duration>,
}

/// Writes the counts of pods that are not finished.
pub(super) fn count_active(status: &mut JobStatus, pods: &[Arc<Pod>]) {
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(pods.iter().filter(|p| test(p)).count()).unwrap_or(i32::MAX)
    };
    status.active = Some(count(&active)).filter(|n| *n > 0);
    status.ready = Some(count(&|p| active(p) && ready(p)));
    status.terminating = Some(count(&|p| deleting(&p.metadata) && !finished(p)));
}

/// Plans one pass.
pub(super) fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut plan = Plan { status: job.status.clone().unwrap_or_default(), ..Plan::default() };
    if conditions::finished(&plan.status) {
        // All counting is done; whatever is still held is to be let go.
        plan.counted = pods.iter().filter(|p| tracking::is_held(p)).cloned().collect();
        plan.status = tidy(plan.status);
        return plan;
    }
    if plan.status.start_time.is_none() && !suspended(job) {
        plan.status.start_time = Some(time(now));
    }
    let over = holds(&plan.status, FAILURE_TARGET).is_some();
    let counts = track(job, pods, &mut plan.status, over);
    plan.counted.clone_from(&counts.release);
    let running: Vec<Arc<Pod>> = pods.iter().filter(|p| active(p)).cloned().collect();
    let work = Work { job, pods, running: &running, counts: &counts, now };
    decide(&work, &mut plan);
    count_active(&mut plan.status, pods);
    finish(&mut plan, now);
    plan.again = plan.again.into_iter().chain(deadline(job, &plan.status, now)).min();
    plan.status = tidy(plan.status);
    plan
}

/// Whether the Job has failed, has succeeded, rests, or goes on.
fn decide(work: &Work<'_>, plan: &mut Plan) {
    let (job, now) = (work.job, work.now);
    if holds(&plan.status, FAILURE_TARGET).is_none() && holds(&plan.status, SUCCESS_CRITERIA_MET).is_none() {
        if let Some((reason, message)) = failure(work, &plan.status) {
            conditions::set(&mut plan.status, FAILURE_TARGET, true, reason, &message, now);
        } else if let Some(rule) = success_policy::met(job, &work.counts.completed) {
            let text = format!("Matched rules at index {rule}");
            conditions::set(&mut plan.status, SUCCESS_CRITERIA_MET, true, "SuccessPolicy", &text, now);
        } else if work.done() {
            let reason = "CompletionsReached";
            conditions::set(&mut plan.status, SUCCESS_CRITERIA_MET, true, reason, COMPLETIONS, now);
        }
    }
    let over = [FAILURE_TARGET, SUCCESS_CRITERIA_MET].iter().any(|kind| holds(&plan.status, kind).is_some());
    if over {
        plan.stop = work.running.to_vec();
    } else if suspended(job) {
        plan.retire = work.running.to_vec();
        if conditions::set(&mut plan.status, SUSPENDED, true, "JobSuspended", "Job suspended", now) {
            plan.notes.push(Note::normal("Suspended", "Job suspended"));
        }
    } else {
        if conditions::set(&mut plan.status, SUSPENDED, false, "JobResumed", "Job resumed", now) {
            plan.notes.push(Note::normal("Resumed", "Job resumed"));
            plan.status.start_time = Some(time(now));
        }
        if !deleting(&job.metadata) {
            let scale = work.scale();
            (plan.retire, plan.create, plan.again) = (scale.retire, scale.create, scale.again);
        }
    }
}

/// Ends the Job once nothing of it runs and everything is counted.
fn finish(plan: &mut Plan, now: Timestamp) {
    let status = &mut plan.status;
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let listed = uncounted.succeeded.iter().chain(&uncounted.failed).flatten().count();
    let quiet = status.active.is_none() && status.terminating.unwrap_or(0) == 0 && listed == 0;
    if !quiet {
        return;
    }
    let target = [FAILURE_TARGET, SUCCESS_CRITERIA_MET].iter().find_map(|kind| holds(status, kind)).cloned();
    let Some(target) = target else { return };
    let reason = target.reason.unwrap_or_default();
    let message = target.message.unwrap_or_default();
    if target.type_ == FAILURE_TARGET {
        conditions::set(status, FAILED, true, &reason, &message, now);
        plan.notes.push(Note::warning(event_reason(&reason), message));
    } else {
        conditions::set(status, COMPLETE, true, &reason, &message, now);
        status.completion_time = Some(time(now));
        plan.notes.push(Note::normal("Completed", "Job completed"));
    }
}

const REASONS: [&str; 5] = [
    "PodFailurePolicy",
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "MaxFailedIndexesExceeded",
    "FailedIndexes",
];

/// The reason of a condition, which may be somebody else's, as that of an event.
fn event_reason(reason: &str) -> &'static str {
    REASONS.into_iter().find(|known| *known == reason).unwrap_or("JobFailed")
}

fn suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.suspend) == Some(true)
}

/// Why the Job has failed, if it has.
fn failure(work: &Work<'_>, status: &JobStatus) -> Option<(&'static str, String)> {
    let spec = work.job.spec.as_ref()?;
    let counts = work.counts;
    if let Some(message) = &counts.fail_job {
        return Some(("PodFailurePolicy", message.clone()));
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    let size = |set: &std::collections::BTreeSet<i32>| i32::try_from(set.len()).unwrap_or(i32::MAX);
    let given_up = size(&counts.given_up);
    let (reason, message) = if counts.failed > limit || restarted_too_often(work, limit) {
        ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    } else if due(work.job, status).is_some_and(|due| due <= work.now) {
        ("DeadlineExceeded", "Job was active longer than specified deadline")
    } else if spec.max_failed_indexes.is_some_and(|most| given_up > most) {
        ("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes")
    } else if given_up > 0 && given_up + size(&counts.completed) >= spec.completions.unwrap_or(0) {
        ("FailedIndexes", "Job has failed indexes")
    } else {
        return None;
    };
    Some((reason, message.to_owned()))
}

/// Pods that are restarted in place count by their restarts.
fn restarted_too_often(work: &Work<'_>, limit: i32) -> bool {
    let spec = work.job.spec.as_ref().and_then(|s| s.template.spec.as_ref());
    if spec.and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let restarts: i32 = (work.running.iter())
        .filter_map(|p| p.status.as_ref())
        .flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten())
        .map(|c| c.restart_count)
        .sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// When the Job's time is up.
fn due(job: &Job, status: &JobStatus) -> Option<Timestamp> {
    let seconds = job.spec.as_ref()?.active_deadline_seconds.filter(|_| !suspended(job))?;
    Some(after_seconds(status.start_time.as_ref()?.0, seconds))
}

fn deadline(job: &Job, status: &JobStatus, now: Timestamp) -> Option<Duration> {
    let due = due(job, status)?;
    Duration::try_from(due.duration_since(now)).ok().filter(|d| !d.is_zero())
}
