//! InterPodAffinity: pods that want to be near, or away from, other pods.
//!
//! What other pods say about the incoming one counts as much as what it says about them. Everything is summed up
//! once per cycle by topology domain; a node then costs a few look-ups.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};

use super::labels::Rule;
use super::{Candidate, Reason};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// One term: which pods, and within what.
#[derive(Debug, Clone)]
pub(crate) struct Term {
    key: String,
    pods: Rule,
    namespaces: Vec<String>,
    namespace_rule: Option<Rule>,
    weight: i64,
}

/// All terms of a pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    near: Vec<Term>,
    away: Vec<Term>,
    /// Preferences; negative weights for away.
    preferred: Vec<Term>,
}

impl Terms {
    pub(crate) fn new(pod: &Pod) -> Self {
        let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else {
            return Self::default();
        };
        let hard = |terms: Option<&Vec<PodAffinityTerm>>| {
            terms.into_iter().flatten().map(|t| Term::new(pod, t, 0)).collect::<Vec<_>>()
        };
        let soft = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| {
            let terms = terms.into_iter().flatten();
            terms
                .map(|t| Term::new(pod, &t.pod_affinity_term, sign * i64::from(t.weight)))
                .collect::<Vec<_>>()
        };
        let (near, away) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        let mut preferred =
            soft(near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), 1);
        preferred.extend(soft(
            away.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            -1,
        ));
        Self {
            near: hard(near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            away: hard(away.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred,
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.near.is_empty() && self.away.is_empty() && self.preferred.is_empty()
    }
}

impl Term {
    fn new(pod: &Pod, term: &PodAffinityTerm, weight: i64) -> Self {
        let labels = pod.metadata.labels.as_ref();
        let mut pods = Rule::new(term.label_selector.as_ref());
        pods.with_keys(labels, term.match_label_keys.as_deref(), term.mismatch_label_keys.as_deref());
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.extend(pod.metadata.namespace.clone());
        }
        let namespace_rule = term.namespace_selector.as_ref().map(|s| Rule::new(Some(s)));
        Self { key: term.topology_key.clone(), pods, namespaces, namespace_rule, weight }
    }

    fn selects(&self, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        let by_name = self.namespaces.iter().any(|n| n == pod.namespace());
        let by_label = || {
            let rule = self.namespace_rule.as_ref();
            rule.is_some_and(|r| r.matches(snapshot.namespace_labels(pod.namespace())))
        };
        (by_name || by_label()) && self.pods.matches(Some(&pod.labels))
    }
}

/// Counts or weights by topology key and value.
type Domains = HashMap<(String, String), i64>;

/// What the cluster says about one incoming pod.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Domains closed by the terms of pods that are there.
    closed: Domains,
    /// Per required term of the incoming pod: matching pods by the value of its key.
    near: Vec<HashMap<String, i64>>,
    away: Vec<HashMap<String, i64>>,
    /// The incoming pod matches all its own affinity terms: the first of its kind may go anywhere.
    matches_itself: bool,
    weights: Domains,
}

/// Sums up; nothing if nobody has a term.
pub(crate) fn prepare(pod: &PodInfo, snapshot: &Snapshot) -> Option<State> {
    let terms = &pod.affinity_terms;
    if terms.is_empty() && snapshot.pods_with_terms() == 0 {
        return None;
    }
    let mut state = State {
        near: vec![HashMap::new(); terms.near.len()],
        away: vec![HashMap::new(); terms.away.len()],
        matches_itself: !terms.near.is_empty() && terms.near.iter().all(|t| t.selects(pod, snapshot)),
        ..State::default()
    };
    for node in snapshot.nodes() {
        let Some(facts) = &node.facts else { continue };
        let value = |key: &str| facts.labels.get(key);
        for other in node.with_terms.values() {
            for term in other.affinity_terms.away.iter().filter(|t| t.selects(pod, snapshot)) {
                if let Some(value) = value(&term.key) {
                    *state.closed.entry((term.key.clone(), value.clone())).or_default() += 1;
                }
            }
            // Whoever needs such pods near likes this one too, a little.
            let required = other.affinity_terms.near.iter().map(|t| (t, 1));
            let preferred = other.affinity_terms.preferred.iter().map(|t| (t, t.weight));
            for (term, weight) in required.chain(preferred).filter(|(t, _)| t.selects(pod, snapshot)) {
                if let Some(value) = value(&term.key) {
                    *state.weights.entry((term.key.clone(), value.clone())).or_default() += weight;
                }
            }
        }
        if terms.is_empty() {
            continue;
        }
        for other in node.pods.values() {
            for (terms, counts) in [(&terms.near, &mut state.near), (&terms.away, &mut state.away)] {
                for (term, counts) in terms.iter().zip(counts) {
                    if let Some(value) = value(&term.key).filter(|_| term.selects(other, snapshot)) {
                        *counts.entry(value.clone()).or_default() += 1;
                    }
                }
            }
            for term in terms.preferred.iter().filter(|t| t.selects(other, snapshot)) {
                if let Some(value) = value(&term.key) {
                    *state.weights.entry((term.key.clone(), value.clone())).or_default() += term.weight;
                }
            }
        }
    }
    Some(state)
}

pub(crate) fn filter(pod: &PodInfo, state: &State, candidate: Candidate<'_>, reasons: &mut Vec<Reason>) {
    let labels = &candidate.facts.labels;
    let terms = &pod.affinity_terms;
    if !near_enough(terms, state, labels) {
        reasons.push(Reason::lasting("node(s) didn't match pod affinity rules"));
        return;
    }
    let met = |(term, counts): (&Term, &HashMap<String, i64>)| {
        labels.get(&term.key).is_some_and(|value| counts.contains_key(value))
    };
    if terms.away.iter().zip(&state.away).any(met) {
        reasons.push(Reason::passing("node(s) didn't match pod anti-affinity rules"));
        return;
    }
    let closed = |(key, value): &(String, String)| labels.get(key) == Some(value);
    if state.closed.keys().any(closed) {
        reasons.push(Reason::passing("node(s) didn't satisfy existing pods anti-affinity rules"));
    }
}

fn near_enough(terms: &Terms, state: &State, labels: &std::collections::BTreeMap<String, String>) -> bool {
    let values: Option<Vec<&String>> = terms.near.iter().map(|t| labels.get(&t.key)).collect();
    let Some(values) = values else { return false };
    let all = values.iter().zip(&state.near).all(|(value, counts)| counts.contains_key(*value));
    all || (state.matches_itself && state.near.iter().all(HashMap::is_empty))
}

/// The sum of the weights of the node's domains.
pub(crate) fn score(state: &State, candidate: Candidate<'_>) -> i64 {
    let labels = &candidate.facts.labels;
    state
        .weights
        .iter()
        .filter(|((key, value), _)| labels.get(key) == Some(value))
        .map(|(_, weight)| *weight)
        .sum()
}
