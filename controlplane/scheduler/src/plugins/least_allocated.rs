//! The least-allocated strategy: prefers nodes with much left.

use super::Candidate;
use crate::pod::PodInfo;

pub(crate) fn score(pod: &PodInfo, candidate: Candidate<'_>) -> i64 {
    let (node, have) = (candidate.node, &candidate.facts.allocatable);
    let left = |wanted: i64, have: i64| {
        if have <= 0 || wanted > have { 0 } else { (have - wanted).saturating_mul(100) / have }
    };
    let cpu = left(node.scored.milli_cpu + pod.scored.milli_cpu, have.milli_cpu);
    let memory = left(node.scored.memory + pod.scored.memory, have.memory);
    i64::midpoint(cpu, memory)
}
