//! What to do about a Job. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use super::conditions::{self, COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED, holds};
use super::tracking::{self, Counts, indexed, tidy, track, waits_for_failure};
use super::{backoff, indexes};
use crate::runtime::object::{active, after_seconds, deleting, finished, ready, time};
use crate::runtime::pods::{BURST, per_node};
use crate::runtime::rank::deletion_order;
use crate::runtime::recorder::Note;

/// What to do, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Too many: released uncounted, then deleted.
    pub(super) retire: Vec<Arc<Pod>>,
    /// Deleted because the Job is over; counted when they have ended.
    pub(super) stop: Vec<Arc<Pod>>,
    /// New pods, by index if there are indexes.
    pub(super) create: Vec<Option<i32>>,
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
    let suspended = job.spec.as_ref().and_then(|s| s.suspend) == Some(true);
    if plan.status.start_time.is_none() && !suspended {
        plan.status.start_time = Some(time(now));
    }
    let over = holds(&plan.status, FAILURE_TARGET).is_some();
    let counts = track(job, pods, &mut plan.status, false);
    plan.counted.clone_from(&counts.release);
    let running: Vec<Arc<Pod>> = pods.iter().filter(|p| active(p)).cloned().collect();
    let work = Work { job, pods, running: &running, counts: &counts, now };
    if !over && let Some((reason, message)) = work.failure(&plan.status) {
        conditions::set(&mut plan.status, FAILURE_TARGET, true, reason, &message, now);
    }
    if holds(&plan.status, FAILURE_TARGET).is_some() {
        plan.stop = running.iter().filter(|p| !deleting(&p.metadata)).cloned().collect();
    } else if holds(&plan.status, SUCCESS_CRITERIA_MET).is_some() || work.done() {
        let text = "Reached expected number of succeeded pods";
        conditions::set(&mut plan.status, SUCCESS_CRITERIA_MET, true, "CompletionsReached", text, now);
        plan.retire.clone_from(&running);
    } else if suspended {
        plan.retire.clone_from(&running);
        if conditions::set(&mut plan.status, SUSPENDED, true, "JobSuspended", "Job suspended", now) {
            plan.notes.push(Note::normal("Suspended", "Job suspended"));
            plan.status.start_time = None;
        }
    } else {
        if conditions::set(&mut plan.status, SUSPENDED, false, "JobResumed", "Job resumed", now) {
            plan.notes.push(Note::normal("Resumed", "Job resumed"));
            plan.status.start_time = Some(time(now));
        }
        if !deleting(&job.metadata) {
            work.scale(&mut plan);
        }
    }
    count_active(&mut plan.status, pods);
    finish(&mut plan, now);
    plan.again = plan.again.into_iter().chain(work.deadline(&plan.status)).min();
    plan.status = tidy(plan.status);
    plan
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
    if let Some(target) = holds(status, FAILURE_TARGET).cloned() {
        let reason = target.reason.unwrap_or_default();
        let message = target.message.unwrap_or_default();
        conditions::set(status, FAILED, true, &reason, &message, now);
        let reason = match reason.as_str() {
            "BackoffLimitExceeded" => "BackoffLimitExceeded",
            "DeadlineExceeded" => "DeadlineExceeded",
            _ => "Failed",
        };
        plan.notes.push(Note::warning(reason, message));
    } else if holds(status, SUCCESS_CRITERIA_MET).is_some() {
        let text = "Reached expected number of succeeded pods";
        conditions::set(status, COMPLETE, true, "CompletionsReached", text, now);
        status.completion_time = Some(time(now));
        plan.notes.push(Note::normal("Completed", "Job completed"));
    }
}

struct Work<'a> {
    job: &'a Job,
    pods: &'a [Arc<Pod>],
    running: &'a [Arc<Pod>],
    counts: &'a Counts,
    now: Timestamp,
}

impl Work<'_> {
    fn parallelism(&self) -> i32 {
        self.job.spec.as_ref().and_then(|s| s.parallelism).unwrap_or(1)
    }

    fn completions(&self) -> Option<i32> {
        self.job.spec.as_ref().and_then(|s| s.completions)
    }

    fn active(&self) -> i32 {
        i32::try_from(self.running.len()).unwrap_or(i32::MAX)
    }

    /// Why the Job has failed, if it has.
    fn failure(&self, status: &JobStatus) -> Option<(&'static str, String)> {
        let limit = self.job.spec.as_ref().and_then(|s| s.backoff_limit).unwrap_or(6);
        if self.counts.failed > limit || self.restarted_too_often(limit) {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".to_owned()));
        }
        let due = self.due(status)?;
        (due <= self.now)
            .then(|| ("DeadlineExceeded", "Job was active longer than specified deadline".to_owned()))
    }

    /// Pods that are restarted in place count by their restarts.
    fn restarted_too_often(&self, limit: i32) -> bool {
        let spec = self.job.spec.as_ref().and_then(|s| s.template.spec.as_ref());
        if spec.and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let restarts: i32 = (self.running.iter())
            .filter_map(|p| p.status.as_ref())
            .flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten())
            .map(|c| c.restart_count)
            .sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn due(&self, status: &JobStatus) -> Option<Timestamp> {
        let spec = self.job.spec.as_ref()?;
        let seconds = spec.active_deadline_seconds.filter(|_| spec.suspend != Some(true))?;
        Some(after_seconds(status.start_time.as_ref()?.0, seconds))
    }

    fn deadline(&self, status: &JobStatus) -> Option<Duration> {
        let due = self.due(status)?;
        Duration::try_from(due.duration_since(self.now)).ok().filter(|d| !d.is_zero())
    }

    /// Whether enough pods have succeeded.
    fn done(&self) -> bool {
        match self.completions() {
            Some(completions) => self.counts.succeeded >= completions,
            // Without a number the first success says that the work is done; the others finish theirs.
            None => self.counts.succeeded > 0 && self.running.is_empty(),
        }
    }

    fn wanted(&self) -> i32 {
        match self.completions() {
            Some(completions) => self.parallelism().min(completions - self.counts.succeeded).max(0),
            None if self.counts.succeeded > 0 => self.active(),
            None => self.parallelism(),
        }
    }

    fn scale(&self, plan: &mut Plan) {
        let (retire, kept) = self.superfluous();
        plan.retire = retire;
        let kept_count = i32::try_from(kept.len()).unwrap_or(i32::MAX);
        let wanted = self.wanted();
        if kept_count > wanted {
            let surplus = usize::try_from(kept_count - wanted).unwrap_or(0);
            let crowd = per_node(kept.iter().map(|p| &**p));
            let mut order = kept;
            order.sort_by_cached_key(|p| deletion_order(p, &crowd, self.now));
            plan.retire.extend(order.into_iter().take(surplus));
            return;
        }
        let mut missing = wanted - kept_count;
        if waits_for_failure(self.job) {
            let ending = self.pods.iter().filter(|p| deleting(&p.metadata) && !finished(p)).count();
            missing -= i32::try_from(ending).unwrap_or(i32::MAX);
        }
        if missing <= 0 {
            return;
        }
        if let Some(left) = backoff::left(self.job, self.pods, self.now) {
            plan.again = Some(left);
            return;
        }
        let count = usize::try_from(missing).unwrap_or(0).min(BURST);
        plan.create = match indexed(self.job) {
            None => vec![None; count],
            Some(completions) => {
                let taken: BTreeSet<i32> = kept.iter().filter_map(|p| indexes::of(p)).collect();
                let free =
                    (0..completions).filter(|i| !taken.contains(i) && !self.counts.completed.contains(i));
                free.take(count).map(Some).collect()
            }
        };
    }

    /// Active pods that serve no index, or one that is done or already served; and the others.
    fn superfluous(&self) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
        let Some(completions) = indexed(self.job) else { return (Vec::new(), self.running.to_vec()) };
        let mut first: BTreeMap<i32, ()> = BTreeMap::new();
        self.running.iter().cloned().partition(|pod| {
            let index = indexes::of(pod).filter(|i| (0..completions).contains(i));
            index.is_none_or(|i| self.counts.completed.contains(&i) || first.insert(i, ()).is_some())
        })
    }
}
