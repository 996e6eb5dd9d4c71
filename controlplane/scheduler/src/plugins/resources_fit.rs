//! NodeResourcesFit: what pods ask for must not exceed what a node has.

use super::{Candidate, Reason};
use crate::pod::PodInfo;

pub(crate) fn filter(pod: &PodInfo, candidate: Candidate<'_>, reasons: &mut Vec<Reason>) {
    let (node, have) = (candidate.node, &candidate.facts.allocatable);
    let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
    if pods + 1 > candidate.facts.pod_limit {
        reasons.push(Reason::passing("Too many pods"));
    }
    let (wants, taken) = (&pod.requests, &node.requested);
    let mut compare = |name: &str, want: i64, taken: i64, have: i64| {
        if want > 0 && want > have - taken {
            // What is more than the whole node will not fit however empty the node is.
            reasons.push(Reason { text: format!("Insufficient {name}").into(), lasting: want > have });
        }
    };
    compare("cpu", wants.milli_cpu, taken.milli_cpu, have.milli_cpu);
    compare("memory", wants.memory, taken.memory, have.memory);
    compare("ephemeral-storage", wants.ephemeral, taken.ephemeral, have.ephemeral);
    for (name, want) in &wants.other {
        let amount = |list: &std::collections::BTreeMap<String, i64>| list.get(name).copied().unwrap_or(0);
        compare(name, *want, amount(&taken.other), amount(&have.other));
    }
}
