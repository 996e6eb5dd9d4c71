//! NodeResourcesFit: what pods ask for must not exceed what a node has.

use super::{Candidate, Reason};
use crate::pod::PodInfo;

pub(crate) fn filter(pod: &PodInfo, candidate: Candidate<'_>, reasons: &mut Vec<Reason>) {
    let (node, have) = (candidate.node, &candidate.facts.allocatable);
    let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
    if pods + 1 > candidate.facts.pod_limit {
        reasons.push("Too many pods".into());
    }
    let (wants, taken) = (&pod.requests, &node.requested);
    let short = |want: i64, taken: i64, have: i64| want > 0 && want > have - taken;
    if short(wants.milli_cpu, taken.milli_cpu, have.milli_cpu) {
        reasons.push("Insufficient cpu".into());
    }
    if short(wants.memory, taken.memory, have.memory) {
        reasons.push("Insufficient memory".into());
    }
    if short(wants.ephemeral, taken.ephemeral, have.ephemeral) {
        reasons.push("Insufficient ephemeral-storage".into());
    }
    for (name, want) in &wants.other {
        let amount = |list: &std::collections::BTreeMap<String, i64>| list.get(name).copied().unwrap_or(0);
        if short(*want, amount(&taken.other), amount(&have.other)) {
            reasons.push(format!("Insufficient {name}").into());
        }
    }
}
