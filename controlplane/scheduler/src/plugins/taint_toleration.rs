//! TaintToleration: taints keep pods away that do not tolerate them; soft ones only push them to other nodes.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Candidate, Reason};
use crate::node::NodeFacts;
use crate::pod::PodInfo;

/// Whether the pod tolerates every hard taint of a node.
pub(crate) fn admitted(pod: &PodInfo, facts: &NodeFacts) -> bool {
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    facts.taints.iter().filter(hard).all(|taint| tolerated(taint, &pod.tolerations))
}

pub(crate) fn filter(pod: &PodInfo, candidate: Candidate<'_>, reasons: &mut Vec<Reason>) {
    if !admitted(pod, candidate.facts) {
        reasons.push(Reason::lasting("node(s) had untolerated taint(s)"));
    }
}

/// Counts the soft taints that the pod does not tolerate.
pub(crate) fn score(pod: &PodInfo, candidate: Candidate<'_>) -> i64 {
    let soft = |taint: &&Taint| taint.effect == "PreferNoSchedule";
    let count =
        candidate.facts.taints.iter().filter(soft).filter(|t| !tolerated(t, &pod.tolerations)).count();
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Whether some toleration covers a taint.
pub(crate) fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| covers(toleration, taint))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let (mine, theirs) = (text(&toleration.value), text(&taint.value));
    let numbers = || Some((mine.parse::<i64>().ok()?, theirs.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && mine == theirs,
        "Lt" => numbers().is_some_and(|(mine, theirs)| theirs < mine),
        "Gt" => numbers().is_some_and(|(mine, theirs)| theirs > mine),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn toleration_rules() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "k", "value": "5", "effect": "NoSchedule"})).unwrap();
        let rows: [(Value, bool); 9] = [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "x", "operator": "Exists"}), false),
            (json!({"key": "k", "value": "5"}), true),
            (json!({"key": "k", "value": "6"}), false),
            (json!({"value": "5"}), false),
            (json!({"key": "k", "operator": "Lt", "value": "6"}), true),
            (json!({"key": "k", "operator": "Gt", "value": "6"}), false),
        ];
        for (toleration, expected) in rows {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerated(&taint, &[parsed]), expected, "{toleration}");
        }
    }
}
