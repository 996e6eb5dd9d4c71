//! What a refusal says: why each node does not do, and whether the departure of pods of lower priority would help.
//!
//! Nobody is made to depart: preemption is not there yet. The message says so where it would help. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::plugins::{Candidate, Reason};
use crate::pod::PodInfo;

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NOT_DONE: &str = "node(s) have pods of lower priority, which this scheduler does not preempt yet";

type Counts = BTreeMap<Cow<'static, str>, usize>;

/// Nodes by why they do not do, and by what preemption could do about it.
#[derive(Debug, Default)]
pub(super) struct Objections {
    reasons: Counts,
    preemption: Counts,
}

impl Objections {
    /// A node that was examined does not do.
    pub(super) fn add(
        &mut self,
        pod: &PodInfo,
        candidate: Candidate<'_>,
        reasons: impl Iterator<Item = Reason>,
    ) {
        let mut lasting = false;
        for reason in reasons {
            lasting |= reason.lasting;
            *self.reasons.entry(reason.text).or_default() += 1;
        }
        let lower = || candidate.node.pods.values().any(|other| other.priority < pod.priority);
        let prospect = match lasting {
            true => NOT_HELPFUL,
            false if lower() => NOT_DONE,
            false => NO_VICTIMS,
        };
        *self.preemption.entry(prospect.into()).or_default() += 1;
    }

    /// So many nodes were ruled out without a look at them.
    pub(super) fn add_unexamined(&mut self, reason: &'static str, nodes: usize) {
        *self.reasons.entry(reason.into()).or_default() += nodes;
        *self.preemption.entry(NOT_HELPFUL.into()).or_default() += nodes;
    }

    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: 0/3 ...`
    pub(super) fn message(&self, pod: &PodInfo, nodes: usize) -> String {
        with_preemption(pod, &available(nodes, &self.reasons), &available(nodes, &self.preemption))
    }
}

/// The message for a pod that can go to no node at all, for one reason.
pub(super) fn hopeless(pod: &PodInfo, nodes: usize, why: &str) -> String {
    let message = format!("0/{nodes} nodes are available: {why}.");
    let none = Counts::from([(NOT_HELPFUL.into(), nodes)]);
    with_preemption(pod, &message, &available(nodes, &none))
}

fn with_preemption(pod: &PodInfo, message: &str, prospect: &str) -> String {
    if pod.never_preempts {
        return format!("{message} preemption: not eligible due to preemptionPolicy=Never.");
    }
    format!("{message} preemption: {prospect}")
}

fn available(nodes: usize, counts: &Counts) -> String {
    let mut parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}
