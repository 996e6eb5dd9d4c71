//! `matchLabelKeys` and `mismatchLabelKeys`: keys whose values come from the new Pod's own labels. They become part of the label
//! selectors when the Pod is made, so that nobody who reads the selectors later needs to know of them.

use serde_json::{Value, json};

use crate::resources::fields::{Fields, existing, items_mut};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Works the keys of all terms and constraints into their selectors.
pub(super) fn merge(pod: &mut Value) {
    let labels = pod.at("metadata.labels").clone();
    let Some(spec) = existing(pod, "spec") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = existing(spec, "affinity").and_then(|a| existing(a, kind)) else { continue };
        for term in items_mut(affinity, REQUIRED) {
            selector(term, &labels);
        }
        for weighted in items_mut(affinity, PREFERRED) {
            if let Some(term) = existing(weighted, "podAffinityTerm") {
                selector(term, &labels);
            }
        }
    }
    for constraint in items_mut(spec, "topologySpreadConstraints") {
        selector(constraint, &labels);
    }
}

fn selector(term: &mut Value, labels: &Value) {
    if !term.has("labelSelector") {
        return;
    }
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys: Vec<String> = term.texts(field).map(str::to_owned).collect();
        for key in keys {
            let Some(value) = labels.get(&key) else { continue };
            let entry = json!({"key": key, "operator": operator, "values": [value]});
            match term["labelSelector"].get_mut("matchExpressions").and_then(Value::as_array_mut) {
                Some(list) => list.push(entry),
                None => term["labelSelector"]["matchExpressions"] = json!([entry]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_expressions() {
        let mut pod = json!({
            "metadata": {"labels": {"rev": "7"}},
            "spec": {
                "affinity": {"podAntiAffinity": {(REQUIRED): [
                    {"labelSelector": {}, "mismatchLabelKeys": ["rev", "other"]}]}},
                "topologySpreadConstraints": [
                    {"labelSelector": {"matchLabels": {"a": "b"}}, "matchLabelKeys": ["rev"]},
                    {"matchLabelKeys": ["rev"]}],
            },
        });
        merge(&mut pod);
        assert_eq!(
            *pod.at("spec.affinity.podAntiAffinity").at(REQUIRED),
            json!([{"labelSelector": {"matchExpressions": [{"key": "rev", "operator": "NotIn", "values": ["7"]}]},
                "mismatchLabelKeys": ["rev", "other"]}])
        );
        assert_eq!(
            pod.items("spec.topologySpreadConstraints")[0]["labelSelector"],
            json!({"matchLabels": {"a": "b"},
                "matchExpressions": [{"key": "rev", "operator": "In", "values": ["7"]}]})
        );
        assert!(!pod.items("spec.topologySpreadConstraints")[1].has("labelSelector"));
    }
}
