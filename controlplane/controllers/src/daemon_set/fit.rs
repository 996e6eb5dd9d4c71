//! Whether a DaemonSet's pod should be on a node, going by the node's name, labels and taints. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm};

use super::pods::tolerations;
use crate::node_lifecycle::eviction::tolerates;
use crate::runtime::object::name;

/// Whether a pod belongs on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fit {
    /// A pod should be started there.
    pub(super) run: bool,
    /// A pod that is there may stay.
    pub(super) stay: bool,
}

const NO: Fit = Fit { run: false, stay: false };

/// Decides for a node.
pub(super) fn fit(set: &DaemonSet, node: &Node) -> Fit {
    let Some(spec) = &set.spec.template.spec else { return NO };
    let named = spec.node_name.as_deref().filter(|n| !n.is_empty());
    if named.is_some_and(|named| named != name(&node.metadata)) || !selected(set, node) {
        return NO;
    }
    let tolerations = tolerations(spec);
    let untolerated = |effects: &[&str]| {
        let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        let mut hard = taints.filter(|t| effects.contains(&t.effect.as_str()));
        hard.any(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
    };
    Fit { run: !untolerated(&["NoSchedule", "NoExecute"]), stay: !untolerated(&["NoExecute"]) }
}

fn selected(set: &DaemonSet, node: &Node) -> bool {
    let Some(spec) = &set.spec.template.spec else { return false };
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    if !spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|r| r.node_selector_terms.iter().any(|t| matches(t, name(&node.metadata), labels)))
}

fn matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|r| holds(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| holds(r, (r.key == "metadata.name").then_some(name)))
}

fn holds(rule: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = rule.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|v| values.iter().any(|l| l == v));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match rule.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(have, limit)| have > limit),
        "Lt" => numbers().is_some_and(|(have, limit)| have < limit),
        _ => false,
    }
}
