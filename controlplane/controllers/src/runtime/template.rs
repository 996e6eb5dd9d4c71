//! Pod templates: telling them apart and hashing them. Pure.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// The label that tells the pods of one Deployment template from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";

/// A template without what is absent or empty, and without our own label: equal texts are equal templates.
fn canonical(template: &PodTemplateSpec) -> String {
    let mut value = serde_json::to_value(template).unwrap_or_default();
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    prune(&mut value);
    value.to_string()
}

/// Removes nulls, empty lists, and those empty maps that mean the same as none.
pub(super) fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for child in map.values_mut() {
                prune(child);
            }
            map.retain(|name, child| match child {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) if map.is_empty() => !matches!(
                    name.as_str(),
                    "labels"
                        | "annotations"
                        | "nodeSelector"
                        | "limits"
                        | "requests"
                        | "metadata"
                        | "overhead"
                ),
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

/// Whether two templates ask for the same pods.
pub fn same(one: Option<&PodTemplateSpec>, other: &PodTemplateSpec) -> bool {
    one.is_some_and(|one| one == other || canonical(one) == canonical(other))
}

/// The hash of a template, in letters and digits that form no words.
pub fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    hash_text(&canonical(template), collisions)
}

/// The hash of a text, in letters and digits that form no words.
pub fn hash_text(text: &str, collisions: i32) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut sum: u32 = 0x811c_9dc5;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            sum = (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    eat(text.as_bytes());
    if collisions > 0 {
        eat(&collisions.to_le_bytes());
    }
    sum.to_string().bytes().map(|b| char::from(LETTERS[usize::from(b) % LETTERS.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(value: Value) -> PodTemplateSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn sameness() {
        let base = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
        let cases = [
            (base.clone(), true),
            (
                json!({"metadata": {"labels": {"a": "1", "pod-template-hash": "zz"}}, "spec": base["spec"]}),
                true,
            ),
            (
                json!({"metadata": {"labels": {"a": "1"}, "annotations": {}},
                       "spec": {"volumes": [], "nodeSelector": {}, "containers": [{"name": "c", "image": "x", "args": []}]}}),
                true,
            ),
            (json!({"metadata": {"labels": {"a": "2"}}, "spec": base["spec"]}), false),
            (
                json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "c", "image": "y"}]}}),
                false,
            ),
            (
                json!({"metadata": {"labels": {"a": "1"}},
                       "spec": {"securityContext": {}, "containers": [{"name": "c", "image": "x"}]}}),
                false,
            ),
        ];
        for (other, expected) in cases {
            let (one, other) = (template(base.clone()), template(other));
            assert_eq!(same(Some(&one), &other), expected, "{other:?}");
            assert_eq!(hash(&one, 0) == hash(&other, 0), expected);
        }
        assert_ne!(hash(&template(base.clone()), 0), hash(&template(base), 1));
    }
}
