//! Spreading by default: pods of one controller prefer nodes with few of their kind.

use super::Candidate;
use crate::pod::PodInfo;

/// Counts the pods of the same controller on the node.
pub(crate) fn score(pod: &PodInfo, candidate: Candidate<'_>) -> i64 {
    let owner = pod.owner.as_ref();
    let count = owner.and_then(|o| candidate.node.owners.get(o)).copied().unwrap_or(0);
    i64::try_from(count).unwrap_or(i64::MAX)
}
