//! What to do about one of the cluster's own objects, given what is stored. Pure.
//!
//! Administrators may extend roles and bindings and may opt out of their upkeep; what was taken away comes back.

use serde_json::{Map, Value, json};

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// It is right as it is.
    Nothing,
    /// It is not there.
    Create,
    /// It lacks something; this is the stored object with it.
    Update(Value),
    /// A part that cannot change is wrong.
    Replace,
}

const RBAC_UPKEEP: &str = "rbac.authorization.kubernetes.io/autoupdate";
const FLOW_UPKEEP: &str = "apf.kubernetes.io/autoupdate-spec";

/// Compares; `None` is nothing stored.
pub(super) fn plan(stored: Option<&Value>, wanted: &Value) -> Action {
    let Some(stored) = stored else { return Action::Create };
    let mut object = stored.clone();
    match wanted.get("kind").and_then(Value::as_str).unwrap_or_default() {
        "ClusterRole" | "Role" if keeps(stored, RBAC_UPKEEP) => {
            add_metadata(&mut object, wanted);
            add_missing(&mut object, wanted, "rules");
            if let (Some(wanted), Some(rule)) =
                (wanted.get("aggregationRule"), object.get_mut("aggregationRule"))
            {
                add_missing(rule, wanted, "clusterRoleSelectors");
            } else if let Some(rule) = wanted.get("aggregationRule") {
                object["aggregationRule"] = rule.clone();
            }
        }
        "ClusterRoleBinding" | "RoleBinding" if keeps(stored, RBAC_UPKEEP) => {
            if stored.get("roleRef") != wanted.get("roleRef") {
                return Action::Replace;
            }
            add_metadata(&mut object, wanted);
            add_missing(&mut object, wanted, "subjects");
        }
        "FlowSchema" | "PriorityLevelConfiguration" if keeps(stored, FLOW_UPKEEP) => {
            add_metadata(&mut object, wanted);
            put_over(&mut object, wanted, "spec");
        }
        "APIService" => put_over(&mut object, wanted, "spec"),
        // The ports and where they lead follow the server; addresses stay. The cluster's DNS is the administrator's once it
        // is there: DNS servers in pods may take its place.
        "Service" if wanted.pointer("/metadata/name") == Some(&json!("kube-dns")) => {}
        "Service" => {
            if let (Some(wanted), Some(spec)) = (wanted.get("spec"), object.get_mut("spec")) {
                put_over(spec, wanted, "ports");
            }
        }
        "Endpoints" => put_over(&mut object, wanted, "subsets"),
        "EndpointSlice" if stored.get("addressType") != wanted.get("addressType") => return Action::Replace,
        "EndpointSlice" => {
            put_over(&mut object, wanted, "endpoints");
            put_over(&mut object, wanted, "ports");
        }
        "ConfigMap" => put_over(&mut object, wanted, "data"),
        _ => {}
    }
    if object == *stored { Action::Nothing } else { Action::Update(object) }
}

/// Whether the object's upkeep has not been opted out of.
fn keeps(stored: &Value, annotation: &str) -> bool {
    let given = stored.pointer("/metadata/annotations").and_then(|annotations| annotations.get(annotation));
    given == Some(&json!("true"))
}

/// Adds labels and annotations that are not there.
fn add_metadata(object: &mut Value, wanted: &Value) {
    for field in ["labels", "annotations"] {
        let Some(wanted) = wanted.pointer(&format!("/metadata/{field}")).and_then(Value::as_object) else {
            continue;
        };
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        let map = metadata.entry(field).or_insert_with(|| Value::Object(Map::new()));
        if let Some(map) = map.as_object_mut() {
            for (key, value) in wanted {
                map.entry(key).or_insert_with(|| value.clone());
            }
        }
    }
}

/// Adds the items of a list that are not there.
fn add_missing(object: &mut Value, wanted: &Value, field: &str) {
    let Some(wanted) = wanted.get(field).and_then(Value::as_array) else { return };
    let mut items = object.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let missing: Vec<Value> =
        wanted.iter().filter(|item| !items.iter().any(|stored| contains(stored, item))).cloned().collect();
    if !missing.is_empty() {
        items.extend(missing);
        object[field] = Value::Array(items);
    }
}

/// Replaces a field unless what is stored says everything that is wanted (defaults may have been added).
fn put_over(object: &mut Value, wanted: &Value, field: &str) {
    let Some(wanted) = wanted.get(field) else { return };
    if !object.get(field).is_some_and(|stored| contains(stored, wanted)) {
        object[field] = wanted.clone();
    }
}

/// Whether everything wanted is stored; maps may hold more.
fn contains(stored: &Value, wanted: &Value) -> bool {
    match (stored, wanted) {
        (Value::Object(stored), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| stored.get(key).is_some_and(|s| contains(s, value)))
        }
        (Value::Array(stored), Value::Array(wanted)) => {
            stored.len() == wanted.len() && stored.iter().zip(wanted).all(|(s, w)| contains(s, w))
        }
        _ => stored == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(upkeep: &str, rules: Value) -> Value {
        json!({"kind": "ClusterRole", "metadata": {"name": "r", "annotations": {RBAC_UPKEEP: upkeep}}, "rules": rules})
    }

    #[test]
    fn plans() {
        let (a, b) = (json!({"verbs": ["get"]}), json!({"verbs": ["list"]}));
        let binding = |role: &str, subjects: Value| {
            json!({"kind": "ClusterRoleBinding", "metadata": {"annotations": {RBAC_UPKEEP: "true"}},
                   "roleRef": {"name": role}, "subjects": subjects})
        };
        let slice = |address: &str| json!({"kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [{"addresses": [address]}], "ports": []});
        let rows = [
            ("missing", None, role("true", json!([a])), Action::Create),
            ("same", Some(role("true", json!([a]))), role("true", json!([a])), Action::Nothing),
            ("more stays", Some(role("true", json!([b, a]))), role("true", json!([a])), Action::Nothing),
            (
                "less is filled",
                Some(role("true", json!([b]))),
                role("true", json!([a])),
                Action::Update(role("true", json!([b, a]))),
            ),
            (
                "null is filled",
                Some(role("true", Value::Null)),
                role("true", json!([a])),
                Action::Update(role("true", json!([a]))),
            ),
            ("left alone", Some(role("false", json!([]))), role("true", json!([a])), Action::Nothing),
            ("other role", Some(binding("x", json!([a]))), binding("y", json!([a])), Action::Replace),
            (
                "subjects",
                Some(binding("x", json!([a]))),
                binding("x", json!([b])),
                Action::Update(binding("x", json!([a, b]))),
            ),
            ("moved", Some(slice("192.0.2.1")), slice("192.0.2.2"), Action::Update(slice("192.0.2.2"))),
            (
                "namespace",
                Some(json!({"kind": "Namespace", "x": 1})),
                json!({"kind": "Namespace"}),
                Action::Nothing,
            ),
        ];
        for (name, stored, wanted, action) in rows {
            assert_eq!(plan(stored.as_ref(), &wanted), action, "{name}");
        }
    }
}
