//! Counting finished pods exactly once. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::indexes;
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
    /// For Jobs with indexes: those done.
    pub(super) completed: BTreeSet<i32>,
    /// Held pods that the status will know of: they may be released when it is written.
    pub(super) release: Vec<Arc<Pod>>,
}

/// Moves finished pods one step on: from held to listed, from listed and released to counted. `all` also takes those
/// that are still running, because the Job is over.
pub(super) fn track(job: &Job, pods: &[Arc<Pod>], status: &mut JobStatus, all: bool) -> Counts {
    let held = |id: &String| pods.iter().any(|p| uid(&p.metadata) == id && is_held(p));
    let uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let settle = |list: Option<Vec<String>>, count: &mut Option<i32>| {
        let (listed, done): (BTreeSet<String>, BTreeSet<String>) =
            list.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().partition(held);
        *count = Some(count.unwrap_or(0) + i32::try_from(done.len()).unwrap_or(i32::MAX));
        listed
    };
    let mut succeeded = settle(uncounted.succeeded, &mut status.succeeded);
    let mut failed_uids = settle(uncounted.failed, &mut status.failed);
    let completions = indexed(job);
    let mut counts = Counts {
        completed: completions
            .map(|n| indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), n))
            .unwrap_or_default(),
        ..Counts::default()
    };
    for pod in pods.iter().filter(|p| is_held(p)) {
        let id = uid(&pod.metadata).to_owned();
        if succeeded.contains(&id) || failed_uids.contains(&id) {
            counts.release.push(pod.clone());
            continue;
        }
        if succeeded.len() + failed_uids.len() >= UNCOUNTED {
            continue;
        }
        if phase(pod) == "Succeeded" {
            match completions {
                Some(n) => counts.completed.extend(indexes::of(pod).filter(|i| (0..n).contains(i))),
                None => {
                    succeeded.insert(id);
                }
            }
            counts.release.push(pod.clone());
        } else if failed(job, pod) || all {
            failed_uids.insert(id);
            counts.release.push(pod.clone());
        }
    }
    if completions.is_some() {
        status.succeeded = i32::try_from(counts.completed.len()).ok();
        status.completed_indexes = Some(indexes::format(&counts.completed));
    }
    let total = |count: Option<i32>, listed: &BTreeSet<String>| {
        count.unwrap_or(0) + i32::try_from(listed.len()).unwrap_or(i32::MAX)
    };
    counts.succeeded = total(status.succeeded, &succeeded);
    counts.failed = total(status.failed, &failed_uids);
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
        succeeded: Some(succeeded.into_iter().collect()),
        failed: Some(failed_uids.into_iter().collect()),
    });
    counts
}
