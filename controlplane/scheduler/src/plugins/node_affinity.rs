//! NodeAffinity: node selectors, and required and preferred node affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm};

use super::{Candidate, Reason};
use crate::pod::PodInfo;

/// What a pod demands of its node's name and labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Required {
    labels: BTreeMap<String, String>,
    /// One of these terms must match, if there are any.
    terms: Option<Vec<NodeSelectorTerm>>,
    /// The only nodes that can match, where that can be told from the terms alone.
    pub(crate) only: Option<Vec<String>>,
}

impl Required {
    pub(crate) fn new(selector: Option<&BTreeMap<String, String>>, affinity: Option<&NodeAffinity>) -> Self {
        let terms = affinity
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
            .map(|s| s.node_selector_terms.clone());
        let only = terms.as_ref().and_then(|terms| {
            let names = terms.iter().map(named).collect::<Option<Vec<_>>>()?;
            Some(names.concat()).filter(|n| !n.is_empty())
        });
        Self { labels: selector.cloned().unwrap_or_default(), terms, only }
    }
}

/// The nodes that a term names.
fn named(term: &NodeSelectorTerm) -> Option<Vec<String>> {
    let field =
        term.match_fields.iter().flatten().find(|f| f.key == "metadata.name" && f.operator == "In")?;
    field.values.clone()
}

/// Whether a node has what the pod demands.
pub(crate) fn required(pod: &PodInfo, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let terms = pod.required.terms.as_ref();
    pod.required.labels.iter().all(|(k, v)| labels.get(k) == Some(v))
        && terms.is_none_or(|terms| terms.iter().any(|t| matches(t, name, labels)))
}

pub(crate) fn filter(pod: &PodInfo, candidate: Candidate<'_>, reasons: &mut Vec<Reason>) {
    if !required(pod, &candidate.node.name, &candidate.facts.labels) {
        reasons.push(Reason::lasting("node(s) didn't match Pod's node affinity/selector"));
    }
}

/// The weights of the preferred terms that match.
pub(crate) fn score(pod: &PodInfo, candidate: Candidate<'_>) -> i64 {
    let preferred = pod.affinity.iter();
    preferred
        .flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten())
        .filter(|p| {
            let none = p.preference.match_expressions.iter().flatten().next().is_none()
                && p.preference.match_fields.iter().flatten().next().is_none();
            // Here an empty term prefers every node, that is, none.
            none || matches(&p.preference, &candidate.node.name, &candidate.facts.labels)
        })
        .map(|p| i64::from(p.weight))
        .sum()
}

/// Whether a term matches a node. An empty term matches nothing.
pub(crate) fn matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let mut rules = 0;
    for rule in term.match_expressions.iter().flatten() {
        rules += 1;
        if !holds(rule, labels.get(&rule.key).map(String::as_str)) {
            return false;
        }
    }
    for rule in term.match_fields.iter().flatten() {
        rules += 1;
        if !holds(rule, (rule.key == "metadata.name").then_some(name)) {
            return false;
        }
    }
    rules > 0
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn terms() {
        let labels =
            BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())]);
        let rows: [(Value, bool); 11] = [
            (json!({}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}), true),
            (json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}), false),
            (json!({"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["a"]}]}), true),
            (json!({"matchExpressions": [{"key": "disk", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]}), true),
            (json!({"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}), true),
            (json!({"matchExpressions": [{"key": "cores", "operator": "Lt", "values": ["8"]}]}), false),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}), true),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}), false),
            (
                json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}],
                       "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}),
                false,
            ),
        ];
        for (term, expected) in rows {
            let parsed: NodeSelectorTerm = serde_json::from_value(term.clone()).unwrap();
            assert_eq!(matches(&parsed, "n1", &labels), expected, "{term}");
        }
    }

    #[test]
    fn named_nodes() {
        let affinity = |terms: Value| -> NodeAffinity {
            serde_json::from_value(
                json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}),
            )
            .unwrap()
        };
        let by_name = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]});
        let by_label = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
        let only = |terms| Required::new(None, Some(&affinity(terms))).only;
        assert_eq!(only(json!([by_name])), Some(vec!["n1".to_owned()]));
        assert_eq!(only(json!([by_name, by_label])), None);
    }
}
