//! The rules: filters say whether a pod can run on a node, scores say how well. One file per plugin, pure.

use std::borrow::Cow;

use crate::node::{NodeFacts, NodeInfo};
use crate::pod::PodInfo;

pub(crate) mod balanced_allocation;
pub(crate) mod least_allocated;
pub(crate) mod node_affinity;
pub(crate) mod node_ports;
pub(crate) mod node_unschedulable;
pub(crate) mod resources_fit;
pub(crate) mod spread;
pub(crate) mod taint_toleration;

/// Why a node does not do, in the words that users know.
pub(crate) type Reason = Cow<'static, str>;

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

/// Whether a pod can run on a node; if not, `reasons` says why.
pub(crate) fn fits(pod: &PodInfo, candidate: Candidate<'_>, reasons: &mut Vec<Reason>) -> bool {
    reasons.clear();
    for filter in FILTERS {
        filter(pod, candidate, reasons);
        if !reasons.is_empty() {
            return false;
        }
    }
    true
}

/// A raw score per candidate; `Reverse` ones count what is bad.
struct Score {
    weight: i64,
    raw: fn(&PodInfo, Candidate<'_>) -> i64,
    scale: Scale,
}

enum Scale {
    /// 0 to 100 already.
    Percent,
    /// The best candidate's becomes 100.
    Highest,
    /// The worst candidate's becomes 0, none at all 100.
    Lowest,
}

const SCORES: [Score; 5] = [
    Score { weight: 3, raw: taint_toleration::score, scale: Scale::Lowest },
    Score { weight: 2, raw: node_affinity::score, scale: Scale::Highest },
    Score { weight: 2, raw: spread::score, scale: Scale::Lowest },
    Score { weight: 1, raw: least_allocated::score, scale: Scale::Percent },
    Score { weight: 1, raw: balanced_allocation::score, scale: Scale::Percent },
];

/// The weighted scores of the candidates, in their order.
pub(crate) fn scores(pod: &PodInfo, candidates: &[Candidate<'_>]) -> Vec<i64> {
    let mut totals = vec![0; candidates.len()];
    let mut raw = Vec::with_capacity(candidates.len());
    for score in &SCORES {
        raw.clear();
        raw.extend(candidates.iter().map(|c| (score.raw)(pod, *c)));
        let highest = raw.iter().copied().max().unwrap_or(0);
        for (total, value) in totals.iter_mut().zip(&raw) {
            let scaled = match score.scale {
                Scale::Percent => *value,
                Scale::Highest if highest > 0 => value * 100 / highest,
                Scale::Highest => 0,
                Scale::Lowest if highest > 0 => 100 - value * 100 / highest,
                Scale::Lowest => 100,
            };
            *total += scaled * score.weight;
        }
    }
    totals
}
