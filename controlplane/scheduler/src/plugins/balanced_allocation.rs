//! NodeResourcesBalancedAllocation: prefers nodes whose CPU and memory are used alike.

use super::Candidate;
use crate::pod::PodInfo;

pub(crate) fn score(pod: &PodInfo, candidate: Candidate<'_>) -> i64 {
    let (node, have) = (candidate.node, &candidate.facts.allocatable);
    // In parts of 10000; a node without the resource counts as full.
    let used = |wanted: i64, have: i64| {
        if have <= 0 { 10_000 } else { (wanted.saturating_mul(10_000) / have).min(10_000) }
    };
    let cpu = used(node.requested.milli_cpu + pod.requests.milli_cpu, have.milli_cpu);
    let memory = used(node.requested.memory + pod.requests.memory, have.memory);
    // Half the difference is the standard deviation of two values.
    (10_000 - (cpu - memory).abs() / 2) / 100
}
