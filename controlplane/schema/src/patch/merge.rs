//! JSON merge patch (RFC 7386). It must not know types.

use serde_json::{Map, Value};

use super::{PatchError, describe};

/// Merges the patch into the value: objects key by key, `null` removes, anything else replaces.
pub fn apply(value: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if patch.is_null() {
        return Err(PatchError::BadRequest("Invalid JSON Patch".to_owned()));
    }
    let Value::Object(patch) = patch else {
        let what = describe(patch);
        return Err(PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
        )));
    };
    merge(value, patch);
    Ok(())
}

fn merge(value: &mut Value, patch: &Map<String, Value>) {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(target) = value else { return };
    for (key, change) in patch {
        match change {
            Value::Null => drop(target.remove(key)),
            Value::Object(inner) => merge(target.entry(key.as_str()).or_insert(Value::Null), inner),
            other => drop(target.insert(key.clone(), other.clone())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::apply;

    #[test]
    fn the_cases_of_the_rfc() {
        let check = |value: Value, patch: Value, expected: Value| {
            let mut out = value.clone();
            apply(&mut out, &patch).unwrap();
            assert_eq!(out, expected, "{value} + {patch}");
        };
        check(json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"}));
        check(json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"}));
        check(json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"}));
        check(json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"}));
        check(json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}}));
        check(json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]}));
        check(json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1}));
        check(json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"}));
        check(json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}}));
        assert!(apply(&mut json!({}), &json!([1])).is_err());
    }

    fn any_object(null: bool) -> impl Strategy<Value = Value> {
        let leaf = if null {
            prop_oneof![Just(Value::Null), any::<u8>().prop_map(Value::from)].boxed()
        } else {
            any::<u8>().prop_map(Value::from).boxed()
        };
        let inner = leaf.prop_recursive(3, 20, 4, |inner| {
            prop::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect()))
        });
        prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_merge_patch_applied_twice_changes_nothing_more(value in any_object(false), patch in any_object(true)) {
            let mut once = value;
            apply(&mut once, &patch).unwrap();
            let mut twice = once.clone();
            apply(&mut twice, &patch).unwrap();
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn a_whole_object_merged_into_nothing_is_itself(value in any_object(false)) {
            let mut out = json!({});
            apply(&mut out, &value).unwrap();
            prop_assert_eq!(out, value);
        }
    }
}
