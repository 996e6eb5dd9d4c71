//! The difference of two statuses as a strategic merge patch. Must not know what the fields mean beyond how they merge.

use serde_json::{Map, Value, json};

use super::conditions::OURS;

/// Fields that we write; one that is gone from the wanted status is removed.
const FIELDS: [&str; 14] = [
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "qosClass",
    "observedGeneration",
    "conditions",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
];

/// The patch of the status that takes the API server from `reported` to `wanted`; `None` if they are the same.
pub fn patch(reported: &Value, wanted: &Value) -> Option<Value> {
    let mut out = Map::new();
    for field in FIELDS {
        let (old, new) = (&reported[field], &wanted[field]);
        if same(old, new) {
            continue;
        }
        match field {
            "conditions" => {
                if let Some(changed) = changed_conditions(old, new) {
                    out.insert(field.into(), changed);
                }
            }
            // These merge by address: without the directive an old address would stay.
            "podIPs" | "hostIPs" if old.as_array().is_some_and(|old| !old.is_empty()) => {
                let mut entries = new.as_array().cloned().unwrap_or_default();
                entries.push(json!({"$patch": "replace"}));
                out.insert(field.into(), entries.into());
            }
            _ => {
                out.insert(field.into(), new.clone());
            }
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// Our conditions that changed; they merge by type.
fn changed_conditions(old: &Value, new: &Value) -> Option<Value> {
    let old = old.as_array().map_or(&[][..], Vec::as_slice);
    let new = new.as_array().map_or(&[][..], Vec::as_slice);
    let ours = new.iter().filter(|condition| OURS.iter().any(|kind| condition["type"] == *kind));
    let changed: Vec<Value> = ours
        .filter(|condition| {
            let before = old.iter().find(|before| before["type"] == condition["type"]);
            before.is_none_or(|before| !same(before, condition))
        })
        .map(|condition| {
            let mut condition = condition.clone();
            // What is no longer said must be taken back: a merge would keep it.
            for key in ["reason", "message"] {
                if condition[key].is_null() {
                    condition[key] = Value::Null;
                }
            }
            condition
        })
        .collect();
    (!changed.is_empty()).then(|| changed.into())
}

/// Equal, where null and absent and empty are the same.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let covered = |a: &Map<String, Value>, b: &Map<String, Value>| {
                a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
            };
            covered(a, b) && covered(b, a)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Null, other) | (other, Value::Null) => is_nothing(other),
        (a, b) => a == b,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.values().all(is_nothing),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed() {
        let old = json!({"phase": "Pending", "qosClass": "BestEffort", "podIPs": [],
            "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastProbeTime": null},
                {"type": "Other", "status": "True"}]});
        assert_eq!(patch(&old, &old), None);
        let new = json!({"phase": "Running", "qosClass": "BestEffort", "podIP": "1.1.1.1", "podIPs": [{"ip": "1.1.1.1"}],
            "conditions": [{"type": "Other", "status": "True"}, {"type": "Ready", "status": "True", "lastProbeTime": null}]});
        assert_eq!(
            patch(&old, &new),
            Some(json!({"phase": "Running", "podIP": "1.1.1.1", "podIPs": [{"ip": "1.1.1.1"}],
                "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null, "reason": null, "message": null}]}))
        );
    }

    #[test]
    fn addresses_replace() {
        let old = json!({"podIPs": [{"ip": "1.1.1.1"}]});
        let new = json!({"podIPs": [{"ip": "2.2.2.2"}]});
        assert_eq!(patch(&old, &new), Some(json!({"podIPs": [{"ip": "2.2.2.2"}, {"$patch": "replace"}]})));
    }

    #[test]
    fn null_absent_and_empty_are_the_same() {
        assert_eq!(
            patch(
                &json!({"containerStatuses": [{"name": "a", "lastState": {}}]}),
                &json!({"containerStatuses": [{"name": "a"}], "reason": null})
            ),
            None
        );
        assert_eq!(patch(&json!({"reason": "x"}), &json!({})), Some(json!({"reason": null})));
    }
}
