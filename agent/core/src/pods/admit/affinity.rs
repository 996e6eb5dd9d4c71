//! Whether a node is one that a pod wants to be on. Must not know where labels come from.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Rejection;
use crate::pods::spec::PodSpec;

/// Labels of a node.
pub type Labels = BTreeMap<String, String>;

/// Whether the answer depends on the node's labels, and not on its name alone.
pub fn asks_for_labels(spec: &PodSpec) -> bool {
    !spec.node_selector.is_empty()
        || required(spec)
            .is_some_and(|terms| terms.iter().any(|term| !list(&term["matchExpressions"]).is_empty()))
}

/// Why this node is none that the pod wants to be on; `None` if it is one.
pub fn check(spec: &PodSpec, name: &str, labels: &Labels) -> Option<Rejection> {
    let selected = spec.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value));
    // Any of the terms will do; an empty list, and a term that asks for nothing, fit no node.
    let wanted = required(spec).is_none_or(|terms| terms.iter().any(|term| fits(term, name, labels)));
    (!(selected && wanted)).then(|| Rejection {
        reason: "NodeAffinity".into(),
        message: "Pod was rejected: Predicate NodeAffinity failed: \
                  node(s) didn't match Pod's node affinity/selector"
            .into(),
    })
}

fn required(spec: &PodSpec) -> Option<&[Value]> {
    let wanted = &spec.affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    wanted.is_object().then(|| list(&wanted["nodeSelectorTerms"]))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn fits(term: &Value, name: &str, labels: &Labels) -> bool {
    let (expressions, fields) = (list(&term["matchExpressions"]), list(&term["matchFields"]));
    let field = |key: &str| (key == "metadata.name").then_some(name);
    let label = |key: &str| labels.get(key).map(String::as_str);
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|wanted| holds(wanted, label))
        && fields.iter().all(|wanted| holds(wanted, field))
}

/// Whether one requirement holds. One that cannot be read does not.
fn holds<'a>(wanted: &Value, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
    let found = lookup(wanted["key"].as_str().unwrap_or_default());
    let values = list(&wanted["values"]);
    let listed = |found: &str| values.iter().any(|value| value == found);
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = values.first().and_then(Value::as_str).and_then(number);
    let compared = || found.and_then(number).zip(bound);
    match wanted["operator"].as_str().unwrap_or_default() {
        "In" => found.is_some_and(listed),
        "NotIn" => !found.is_some_and(listed),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared().is_some_and(|(found, bound)| found > bound),
        "Lt" => compared().is_some_and(|(found, bound)| found < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(spec: Value) -> PodSpec {
        serde_json::from_value(spec).expect("a spec")
    }

    #[track_caller]
    fn node(wanted: Value, expected: bool) {
        let labels = [("zone", "a"), ("cores", "8")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let rejection = check(&spec(wanted.clone()), "n1", &Labels::from(labels));
        assert_eq!(rejection.is_none(), expected, "{wanted}");
    }

    fn terms(terms: Value) -> Value {
        let wanted = json!({"nodeSelectorTerms": terms});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": wanted}}})
    }

    fn label(key: &str, operator: &str, values: &[&str]) -> Value {
        terms(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
    }

    #[test]
    fn selectors() {
        node(json!({}), true);
        node(json!({"nodeSelector": {"zone": "a"}}), true);
        node(json!({"nodeSelector": {"zone": "a", "cores": "4"}}), false);
        node(json!({"nodeSelector": {"disk": ""}}), false);
    }

    #[test]
    fn affinities() {
        node(label("zone", "In", &["b", "a"]), true);
        node(label("zone", "In", &["b"]), false);
        node(label("zone", "NotIn", &["a"]), false);
        node(label("disk", "NotIn", &["a"]), true);
        node(label("zone", "Exists", &[]), true);
        node(label("zone", "DoesNotExist", &[]), false);
        node(label("cores", "Gt", &["7"]), true);
        node(label("cores", "Lt", &["8"]), false);
        node(label("zone", "Gt", &["1"]), false);
        node(label("zone", "Like", &["a"]), false);
        node(terms(json!([])), false);
        node(terms(json!([{}])), false);
        node(
            terms(
                json!([{}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
            ),
            true,
        );
        node(
            terms(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}])),
            false,
        );
        let preferred =
            json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}});
        node(json!({"affinity": preferred}), true);
    }

    #[test]
    fn the_name_is_known_without_asking() {
        let by_name =
            terms(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]));
        assert!(!asks_for_labels(&spec(json!({}))) && !asks_for_labels(&spec(by_name)));
        assert!(asks_for_labels(&spec(label("zone", "Exists", &[]))));
        assert!(asks_for_labels(&spec(json!({"nodeSelector": {"zone": "a"}}))));
    }
}
