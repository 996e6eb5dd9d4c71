//! PodTopologySpread: like pods are spread evenly over zones, nodes, or whatever domains a label makes.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};

use super::labels::Rule;
use super::{Candidate, Reason, node_affinity, taint_toleration};
use crate::node::NodeFacts;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// One constraint of a pod.
#[derive(Debug, Clone)]
pub(crate) struct Constraint {
    key: String,
    max_skew: i64,
    min_domains: usize,
    /// Keeps pods off rather than steering them.
    hard: bool,
    pods: Rule,
    honors_affinity: bool,
    honors_taints: bool,
    counts_itself: bool,
}

impl Constraint {
    /// The constraints of a pod.
    pub(crate) fn all(pod: &Pod) -> Vec<Self> {
        let listed = pod.spec.iter().flat_map(|s| s.topology_spread_constraints.iter().flatten());
        listed.map(|c| Self::new(pod, c)).collect()
    }

    fn new(pod: &Pod, constraint: &TopologySpreadConstraint) -> Self {
        let labels = pod.metadata.labels.as_ref();
        let mut pods = Rule::new(constraint.label_selector.as_ref());
        pods.with_keys(labels, constraint.match_label_keys.as_deref(), None);
        Self {
            key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: constraint.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
            counts_itself: pods.matches(labels),
            pods,
        }
    }

    /// Whether a node's domain counts for this pod.
    fn counts(&self, pod: &PodInfo, name: &str, facts: &NodeFacts) -> bool {
        (!self.honors_affinity || node_affinity::required(pod, name, &facts.labels))
            && (!self.honors_taints || taint_toleration::admitted(pod, facts))
    }
}

/// Matching pods by domain, per constraint.
#[derive(Debug, Default)]
pub(crate) struct State {
    counts: Vec<HashMap<String, i64>>,
    lowest: Vec<i64>,
}

/// Counts; nothing if the pod has no constraints.
pub(crate) fn prepare(pod: &PodInfo, snapshot: &Snapshot) -> Option<State> {
    let constraints = &pod.spread;
    if constraints.is_empty() {
        return None;
    }
    let hard: HashSet<&str> = constraints.iter().filter(|c| c.hard).map(|c| c.key.as_str()).collect();
    let mut counts = vec![HashMap::new(); constraints.len()];
    for node in snapshot.nodes() {
        let Some(facts) = &node.facts else { continue };
        // A node without one of the keys is in no domain at all.
        if hard.iter().any(|key| !facts.labels.contains_key(*key)) {
            continue;
        }
        for (constraint, counts) in constraints.iter().zip(&mut counts) {
            let Some(value) = facts.labels.get(&constraint.key) else { continue };
            if !constraint.counts(pod, &node.name, facts) {
                continue;
            }
            let here = node.pods.values().filter(|other| {
                !other.deleting
                    && other.key.namespace == pod.key.namespace
                    && constraint.pods.matches(Some(&other.labels))
            });
            *counts.entry(value.clone()).or_insert(0) += i64::try_from(here.count()).unwrap_or(i64::MAX);
        }
    }
    let lowest = constraints
        .iter()
        .zip(&counts)
        .map(|(constraint, counts)| {
            // With too few domains the missing ones count as empty.
            if counts.len() < constraint.min_domains {
                0
            } else {
                counts.values().copied().min().unwrap_or(0)
            }
        })
        .collect();
    Some(State { counts, lowest })
}

pub(crate) fn filter(pod: &PodInfo, state: &State, candidate: Candidate<'_>, reasons: &mut Vec<Reason>) {
    for (index, constraint) in pod.spread.iter().enumerate().filter(|(_, c)| c.hard) {
        let Some(value) = candidate.facts.labels.get(&constraint.key) else {
            let text = "node(s) didn't match pod topology spread constraints (missing required label)";
            reasons.push(Reason::lasting(text));
            return;
        };
        let here = state.counts[index].get(value).copied().unwrap_or(0);
        if here + i64::from(constraint.counts_itself) - state.lowest[index] > constraint.max_skew {
            reasons.push(Reason::passing("node(s) didn't match pod topology spread constraints"));
            return;
        }
    }
}

/// Matching pods in the node's domains, over the constraints that only steer.
pub(crate) fn score(pod: &PodInfo, state: &State, candidate: Candidate<'_>) -> i64 {
    let soft = pod.spread.iter().zip(&state.counts).filter(|(c, _)| !c.hard);
    soft.map(|(constraint, counts)| {
        let value = candidate.facts.labels.get(&constraint.key);
        // A node in no domain is worse than any domain.
        let most = || counts.values().copied().max().unwrap_or(0) + 1;
        value.and_then(|v| counts.get(v).copied()).unwrap_or_else(most)
    })
    .sum()
}
