//! How long a Job waits before it replaces a failed pod: 10 s, doubled with each failure in a row. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::indexes::Failures;
use super::tracking::failed;
use crate::runtime::object::{after_seconds, created, phase, pod_condition};

const FIRST: i64 = 10;
const LONGEST: i64 = 600;

/// When a pod ended, as far as it tells.
fn ended(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let containers = status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let finished =
        containers.filter_map(|c| Some(c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    let by_condition = || pod_condition(pod, "Ready")?.last_transition_time.as_ref().map(|t| t.0);
    let by_deletion = || pod.metadata.deletion_timestamp.as_ref().map(|t| t.0);
    finished.max().or_else(by_condition).or_else(by_deletion).unwrap_or_else(|| created(&pod.metadata))
}

/// The time left until so many failures in a row, the last at `last`, may be followed by another pod.
fn rest(failures: usize, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let doublings = u32::try_from(failures.checked_sub(1)?).unwrap_or(u32::MAX).min(16);
    let due = after_seconds(last, (FIRST << doublings).min(LONGEST));
    Duration::try_from(due.duration_since(now)).ok().filter(|d| !d.is_zero())
}

/// The time left before another pod may be made.
pub(super) fn left(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let success = pods.iter().filter(|p| phase(p) == "Succeeded").map(|p| ended(p)).max();
    let failures: Vec<Timestamp> = (pods.iter())
        .filter(|p| failed(job, p))
        .map(|p| ended(p))
        .filter(|at| success.is_none_or(|s| *at > s))
        .collect();
    rest(failures.len(), *failures.iter().max()?, now)
}

/// The time left before another pod may be made for an index whose last pod was this.
pub(super) fn left_for_index(last: &Pod, failures: Failures, now: Timestamp) -> Option<Duration> {
    rest(usize::try_from(failures.total()).unwrap_or(0), ended(last), now)
}
