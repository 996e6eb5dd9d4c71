//! Counting finished pods exactly once. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::failure_policy::{Action, action};
use super::indexes::{self, Failures};
use crate::runtime::object::{deleting, phase, uid};

/// Holds a pod until it is counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// At most so many uids stand in a status.
const UNCOUNTED: usize = 500;

/// Whether a pod is held until it is counted.
pub(super) fn is_held(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

/// Whether a failed pod is replaced only when it has really ended.
pub(super) fn waits_for_failure(job: &Job) -> bool {
    let spec = job.spec.as_ref();
    spec.is_some_and(|s| {
        s.pod_replacement_policy.as_deref() == Some("Failed") || s.pod_failure_policy.is_some()
    })
}

/// Whether a pod counts as failed: also one that is deleted before it has ended.
pub(super) fn failed(job: &Job, pod: &Pod) -> bool {
    phase(pod) == "Failed"
        || (deleting(&pod.metadata) && phase(pod) != "Succeeded" && !waits_for_failure(job))
}

/// The number of completions if pods have indexes.
pub(super) fn indexed(job: &Job) -> Option<i32> {
    let spec = job.spec.as_ref()?;
    (spec.completion_mode.as_deref() == Some("Indexed")).then(|| spec.completions.unwrap_or(0))
}

/// How often each index may fail, if that is limited.
pub(super) fn limit_per_index(job: &Job) -> Option<i32> {
    job.spec.as_ref()?.backoff_limit_per_index
}

/// Zero counts and empty lists as the server shows them: absent.
pub(super) fn tidy(mut status: JobStatus) -> JobStatus {
    for count in [&mut status.active, &mut status.succeeded, &mut status.failed] {
        *count = count.filter(|n| *n != 0);
    }
    status.completed_indexes = status.completed_indexes.filter(|t| !t.is_empty());
    status.conditions = status.conditions.filter(|c| !c.is_empty());
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    uncounted.succeeded = uncounted.succeeded.take().filter(|l| !l.is_empty());
    uncounted.failed = uncounted.failed.take().filter(|l| !l.is_empty());
    status
}

/// The counts after this pass.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// All that have succeeded, counted or about to be.
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// For Jobs with indexes: those done, those given up, and the last failures of the others.
    pub(super) completed: BTreeSet<i32>,
    pub(super) given_up: BTreeSet<i32>,
    pub(super) last_failed: BTreeMap<i32, (Arc<Pod>, Failures)>,
    /// Why a failed pod ends the whole Job.
    pub(super) fail_job: Option<String>,
    /// Held pods that the status will know of: they may be released when it is written.
    pub(super) release: Vec<Arc<Pod>>,
}

/// Uids in a status that are not yet part of its numbers.
struct Listed {
    succeeded: BTreeSet<String>,
    failed: BTreeSet<String>,
}

impl Listed {
    /// Takes the lists out of a status; those whose pods are released become numbers.
    fn take(status: &mut JobStatus, pods: &[Arc<Pod>]) -> Self {
        let held: BTreeSet<&str> = pods.iter().filter(|p| is_held(p)).map(|p| uid(&p.metadata)).collect();
        let uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
        let settle = |list: Option<Vec<String>>, count: &mut Option<i32>| {
            let list: BTreeSet<String> = list.into_iter().flatten().collect();
            let (listed, done): (BTreeSet<_>, BTreeSet<_>) =
                list.into_iter().partition(|id| held.contains(id.as_str()));
            *count = Some(count.unwrap_or(0).saturating_add(size(&done)));
            listed
        };
        Self {
            succeeded: settle(uncounted.succeeded, &mut status.succeeded),
            failed: settle(uncounted.failed, &mut status.failed),
        }
    }

    fn is_full(&self) -> bool {
        self.succeeded.len() + self.failed.len() >= UNCOUNTED
    }
}

fn size<T>(set: &BTreeSet<T>) -> i32 {
    i32::try_from(set.len()).unwrap_or(i32::MAX)
}

/// Moves finished pods one step on: from held to listed, from listed and released to counted. `over` also takes
/// those that are still running, because the Job has failed.
pub(super) fn track(job: &Job, pods: &[Arc<Pod>], status: &mut JobStatus, over: bool) -> Counts {
    let mut listed = Listed::take(status, pods);
    let completions = indexed(job);
    let parse = |text: &Option<String>| {
        completions.map(|n| indexes::parse(text.as_deref().unwrap_or_default(), n)).unwrap_or_default()
    };
    let mut counts = Counts {
        completed: parse(&status.completed_indexes),
        given_up: parse(&status.failed_indexes),
        ..Counts::default()
    };
    let mut candidates = Vec::new();
    for pod in pods.iter().filter(|p| is_held(p)) {
        if judge(job, pod, &mut listed, &mut counts, over) || deleting(&job.metadata) {
            candidates.push(pod.clone());
        }
    }
    counts.given_up.retain(|index| !counts.completed.contains(index));
    counts.release = match limit_per_index(job) {
        Some(_) if !over && !deleting(&job.metadata) => {
            candidates.into_iter().filter(|pod| !is_remembered(pod, pods, &counts)).collect()
        }
        _ => candidates,
    };
    if completions.is_some() {
        status.succeeded = Some(size(&counts.completed));
        status.completed_indexes = Some(indexes::format(&counts.completed));
    }
    if limit_per_index(job).is_some() {
        status.failed_indexes = Some(indexes::format(&counts.given_up));
    }
    counts.succeeded = status.succeeded.unwrap_or(0).saturating_add(size(&listed.succeeded));
    counts.failed = status.failed.unwrap_or(0).saturating_add(size(&listed.failed));
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
        succeeded: Some(listed.succeeded.into_iter().collect()),
        failed: Some(listed.failed.into_iter().collect()),
    });
    counts
}

/// Judges a held pod. True if it need not be held once the status is written.
fn judge(job: &Job, pod: &Arc<Pod>, listed: &mut Listed, counts: &mut Counts, over: bool) -> bool {
    let id = uid(&pod.metadata);
    let completions = indexed(job);
    let index = indexes::of(pod).filter(|i| completions.is_some_and(|n| (0..n).contains(i)));
    if listed.succeeded.contains(id) {
        return true;
    }
    let known = listed.failed.contains(id);
    if !known && phase(pod) == "Succeeded" {
        match completions {
            // The index is enough: it is done once, however many pods say so.
            Some(_) => counts.completed.extend(index),
            None if listed.is_full() => return false,
            None => {
                listed.succeeded.insert(id.to_owned());
            }
        }
        return true;
    }
    if !known && !over && !failed(job, pod) {
        return false;
    }
    let action = action(job, pod);
    if let Action::FailJob(message) = &action {
        counts.fail_job.get_or_insert_with(|| message.clone());
    }
    if let (Some(index), Some(limit)) = (index, limit_per_index(job)) {
        let failures = Failures::after(pod, &action);
        if action == Action::FailIndex || failures.counted > limit {
            counts.given_up.insert(index);
        }
        let last = counts.last_failed.entry(index).or_insert_with(|| (pod.clone(), failures));
        if failures.total() >= last.1.total() {
            *last = (pod.clone(), failures);
        }
    }
    // A pod of an index that the Job no longer has is no failure.
    if !known && action != Action::Ignore && (completions.is_none() || index.is_some()) {
        if listed.is_full() {
            return false;
        }
        listed.failed.insert(id.to_owned());
    }
    true
}

/// The last failed pod of an index remembers how often the index has failed: it stays until its successor is there.
fn is_remembered(pod: &Pod, pods: &[Arc<Pod>], counts: &Counts) -> bool {
    let Some(index) = indexes::of(pod) else { return false };
    let Some((last, failures)) = counts.last_failed.get(&index) else { return false };
    let settled = counts.completed.contains(&index) || counts.given_up.contains(&index);
    let successor = |other: &&Arc<Pod>| {
        indexes::of(other) == Some(index) && Failures::before(other).total() >= failures.total()
    };
    last.metadata.uid == pod.metadata.uid && !settled && !pods.iter().any(|p| successor(&p))
}
