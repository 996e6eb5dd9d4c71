//! The rules: filters say whether a pod can run on a node, scores say how well. One file per plugin, pure.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::NodeSelectorTerm;

use crate::node::{NodeFacts, NodeInfo};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

pub(crate) mod balanced_allocation;
pub(crate) mod inter_pod_affinity;
mod labels;
pub(crate) mod least_allocated;
pub(crate) mod node_affinity;
pub(crate) mod node_ports;
pub(crate) mod node_unschedulable;
pub(crate) mod resources_fit;
pub(crate) mod spread;
pub(crate) mod taint_toleration;
pub(crate) mod topology_spread;
pub(crate) mod volumes;

/// Why a node does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// In the words that users know.
    pub(crate) text: Cow<'static, str>,
    /// It would be so without the pods on the node too.
    pub(crate) lasting: bool,
}

impl Reason {
    /// The node itself is the reason.
    pub(crate) const fn lasting(text: &'static str) -> Self {
        Self { text: Cow::Borrowed(text), lasting: true }
    }

    /// Other pods are the reason.
    pub(crate) const fn passing(text: &'static str) -> Self {
        Self { text: Cow::Borrowed(text), lasting: false }
    }
}

/// A node under examination.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) node: &'a NodeInfo,
    pub(crate) facts: &'a NodeFacts,
}

/// Says why not, if not.
type Filter = fn(&PodInfo, Candidate<'_>, &mut Vec<Reason>);

/// The filters in their order: the first that objects ends the examination of a node.
const FILTERS: [Filter; 5] = [
    node_unschedulable::filter,
    taint_toleration::filter,
    node_affinity::filter,
    node_ports::filter,
    resources_fit::filter,
];

/// What the rest of the cluster says about one pod, summed up once per cycle.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    affinity: Option<inter_pod_affinity::State>,
    spread: Option<topology_spread::State>,
    reaches: Vec<Vec<NodeSelectorTerm>>,
}

/// Looks at the cluster for one pod; an error says why it can go nowhere at all.
pub(crate) fn prepare(pod: &PodInfo, snapshot: &Snapshot) -> Result<Prepared, String> {
    Ok(Prepared {
        reaches: volumes::prepare(pod, snapshot)?,
        affinity: inter_pod_affinity::prepare(pod, snapshot),
        spread: topology_spread::prepare(pod, snapshot),
    })
}

/// Whether a pod can run on a node, going by the node alone; if not, `reasons` says why.
pub(crate) fn fits_alone(pod: &PodInfo, candidate: Candidate<'_>, reasons: &mut Vec<Reason>) -> bool {
    reasons.clear();
    for filter in FILTERS {
        filter(pod, candidate, reasons);
        if !reasons.is_empty() {
            return false;
        }
    }
    true
}

/// Whether a pod can run on a node; if not, `reasons` says why.
pub(crate) fn fits(
    pod: &PodInfo,
    prepared: &Prepared,
    candidate: Candidate<'_>,
    reasons: &mut Vec<Reason>,
) -> bool {
    if !fits_alone(pod, candidate, reasons) {
        return false;
    }
    volumes::filter(&prepared.reaches, candidate, reasons);
    if let Some(state) = prepared.spread.as_ref().filter(|_| reasons.is_empty()) {
        topology_spread::filter(pod, state, candidate, reasons);
    }
    if let Some(state) = prepared.affinity.as_ref().filter(|_| reasons.is_empty()) {
        inter_pod_affinity::filter(pod, state, candidate, reasons);
    }
    reasons.is_empty()
}

/// A raw score per candidate; how it becomes 0 to 100 is its scale.
struct Score {
    weight: i64,
    raw: fn(&PodInfo, &Prepared, Candidate<'_>) -> i64,
    scale: Scale,
}

enum Scale {
    /// 0 to 100 already.
    Percent,
    /// The best candidate's becomes 100.
    Highest,
    /// The worst candidate's becomes 0, none at all 100.
    Lowest,
    /// The worst candidate's becomes 0, the best one's 100; all 0 if they are alike.
    Between,
}

const SCORES: [Score; 7] = [
    Score { weight: 3, raw: |pod, _, node| taint_toleration::score(pod, node), scale: Scale::Lowest },
    Score { weight: 2, raw: |pod, _, node| node_affinity::score(pod, node), scale: Scale::Highest },
    Score { weight: 2, raw: |pod, _, node| spread::score(pod, node), scale: Scale::Lowest },
    Score { weight: 1, raw: |pod, _, node| least_allocated::score(pod, node), scale: Scale::Percent },
    Score { weight: 1, raw: |pod, _, node| balanced_allocation::score(pod, node), scale: Scale::Percent },
    Score {
        weight: 2,
        raw: |pod, prepared, node| {
            prepared.spread.as_ref().map_or(0, |state| topology_spread::score(pod, state, node))
        },
        scale: Scale::Lowest,
    },
    Score {
        weight: 2,
        raw: |_, prepared, node| {
            prepared.affinity.as_ref().map_or(0, |state| inter_pod_affinity::score(state, node))
        },
        scale: Scale::Between,
    },
];

/// The weighted scores of the candidates, in their order.
pub(crate) fn scores(pod: &PodInfo, prepared: &Prepared, candidates: &[Candidate<'_>]) -> Vec<i64> {
    let mut totals = vec![0; candidates.len()];
    let mut raw = Vec::with_capacity(candidates.len());
    for score in &SCORES {
        raw.clear();
        raw.extend(candidates.iter().map(|c| (score.raw)(pod, prepared, *c)));
        let highest = raw.iter().copied().max().unwrap_or(0);
        let lowest = raw.iter().copied().min().unwrap_or(0);
        for (total, value) in totals.iter_mut().zip(&raw) {
            let scaled = match score.scale {
                Scale::Percent => *value,
                Scale::Highest if highest > 0 => value * 100 / highest,
                Scale::Highest => 0,
                Scale::Lowest if highest > 0 => 100 - value * 100 / highest,
                Scale::Lowest => 100,
                Scale::Between if highest > lowest => (value - lowest) * 100 / (highest - lowest),
                Scale::Between => 0,
            };
            *total += scaled * score.weight;
        }
    }
    totals
}
