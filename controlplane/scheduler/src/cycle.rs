//! One decision: which node a pod goes to, or why to none. Pure.

mod preemption;

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::plugins::{Candidate, Prepared, fits, prepare, scores};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use preemption::Objections;

/// Below so many feasible nodes the search never stops early.
const ENOUGH_AT_LEAST: usize = 100;

/// What came out of a cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The pod goes to this node.
    Node(String),
    /// No node does; the message says why.
    Nowhere(String),
}

/// Decides about one pod. `start` is where the search begins among the nodes, so that in a large cluster, where not
/// all are examined, all get their turn; the second value is where the next search shall begin.
pub(crate) fn schedule(pod: &PodInfo, snapshot: &Snapshot, start: usize) -> (Decision, usize) {
    if snapshot.len() == 0 {
        return (Decision::Nowhere("no nodes available to schedule pods".to_owned()), start);
    }
    let mut objections = Objections::default();
    let prepared = match prepare(pod, snapshot) {
        Ok(prepared) => prepared,
        Err(why) => return (Decision::Nowhere(preemption::hopeless(pod, snapshot.len(), &why)), start),
    };
    let (feasible, next) = feasible(pod, &prepared, snapshot, start, &mut objections);
    if feasible.is_empty() {
        return (Decision::Nowhere(objections.message(pod, snapshot.len())), next);
    }
    (Decision::Node(best(pod, &prepared, &feasible).node.name.clone()), next)
}

/// The nodes that do, until there are enough of them.
fn feasible<'s>(
    pod: &PodInfo,
    prepared: &Prepared,
    snapshot: &'s Snapshot,
    start: usize,
    objections: &mut Objections,
) -> (Vec<Candidate<'s>>, usize) {
    let nodes = snapshot.nodes();
    let mut found = Vec::new();
    let mut reasons = Vec::new();
    let mut examine = |node: &'s crate::node::NodeInfo, found: &mut Vec<Candidate<'s>>| {
        let Some(facts) = &node.facts else { return };
        let candidate = Candidate { node, facts };
        if fits(pod, prepared, candidate, &mut reasons) {
            found.push(candidate);
        } else {
            objections.add(pod, candidate, reasons.drain(..));
        }
    };
    if let Some(only) = &pod.required.only {
        let mut known = 0;
        for node in only.iter().filter_map(|name| snapshot.node(name)) {
            known += 1;
            examine(node, &mut found);
        }
        let others = snapshot.len().saturating_sub(known);
        if others > 0 && found.is_empty() {
            objections.add_unexamined("node(s) didn't satisfy plugin(s) [NodeAffinity]", others);
        }
        return (found, start);
    }
    let enough = enough(snapshot.len());
    for step in 0..nodes.len() {
        let index = (start + step) % nodes.len();
        examine(&nodes[index], &mut found);
        if found.len() >= enough {
            return (found, (index + 1) % nodes.len());
        }
    }
    (found, start)
}

/// How many feasible nodes are enough to choose among: in large clusters a share of all.
fn enough(nodes: usize) -> usize {
    if nodes < ENOUGH_AT_LEAST {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(ENOUGH_AT_LEAST)
}

/// The candidate with the highest score; among equals the pod's uid picks, so that equal pods do not pile up.
fn best<'s>(pod: &PodInfo, prepared: &Prepared, candidates: &[Candidate<'s>]) -> Candidate<'s> {
    if let [only] = candidates {
        return *only;
    }
    let scores = scores(pod, prepared, candidates);
    let highest = scores.iter().copied().max().unwrap_or(0);
    let mut hasher = DefaultHasher::new();
    pod.uid.hash(&mut hasher);
    let ties: Vec<usize> = (0..scores.len()).filter(|i| scores[*i] == highest).collect();
    let pick = usize::try_from(hasher.finish() % ties.len() as u64).unwrap_or(0);
    candidates[ties[pick]]
}

#[cfg(test)]
mod tests;
