//! Cases and laws of strategic merge patches.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::apply;
use crate::patch::PatchError;
use crate::table::{Table, arbitrary};

fn patched(value: Value, patch: Value) -> Result<Value, PatchError> {
    let table = Table::builtin();
    let id = table.kind_type("", "v1", "Pod").unwrap();
    let mut out = value;
    apply(table, id, &mut out, &patch).map(|()| out)
}

fn check(value: Value, patch: Value, expected: Value) {
    let spec = |v: Value| json!({"spec": v});
    assert_eq!(patched(spec(value), spec(patch.clone())).unwrap(), spec(expected), "{patch}");
}

fn refused(value: Value, patch: Value, expected: &str) {
    let error = patched(json!({"spec": value}), json!({"spec": patch})).unwrap_err();
    assert_eq!(error, PatchError::Inconsistent(expected.to_owned()));
}

fn names(names: &[&str]) -> Value {
    names.iter().map(|n| json!({"name": n})).collect()
}

#[test]
fn keyed_lists_merge_and_other_lists_are_replaced() {
    check(
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}], "tolerations": [{"key": "x"}]}),
        json!({"containers": [{"name": "a", "image": "2"}, {"name": "c"}], "tolerations": [{"key": "y"}]}),
        json!({"containers": [{"name": "a", "image": "2"}, {"name": "c"}, {"name": "b"}], "tolerations": [{"key": "y"}]}),
    );
    check(
        json!({"nodeSelector": {"a": "1", "b": "2"}}),
        json!({"nodeSelector": {"a": null, "c": "3"}}),
        json!({"nodeSelector": {"b": "2", "c": "3"}}),
    );
    check(json!({"hostname": "h", "priority": 1}), json!({"hostname": null}), json!({"priority": 1}));
}

#[test]
fn items_are_deleted_and_lists_replaced_by_directive() {
    check(
        json!({"containers": names(&["a", "b"])}),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": names(&["b"])}),
    );
    check(
        json!({"containers": names(&["a", "b"])}),
        json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
        json!({"containers": names(&["c"])}),
    );
    check(
        json!({"securityContext": {"runAsUser": 1}}),
        json!({"securityContext": {"$patch": "replace", "fsGroup": 2}}),
        json!({"securityContext": {"fsGroup": 2}}),
    );
    check(
        json!({"securityContext": {"runAsUser": 1}}),
        json!({"securityContext": {"$patch": "delete"}}),
        json!({"securityContext": {}}),
    );
    check(
        json!({}),
        json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "image": null}]}),
        json!({"containers": names(&["b"])}),
    );
}

#[test]
fn sets_of_scalars_unite_and_shrink_by_directive() {
    let meta = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    assert_eq!(
        patched(meta(json!(["a", "b"])), meta(json!(["c", "a"]))).unwrap(),
        meta(json!(["c", "a", "b"]))
    );
    let delete = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b", "x"]}});
    assert_eq!(patched(meta(json!(["a", "b"])), delete.clone()).unwrap(), meta(json!(["a"])));
    assert_eq!(patched(json!({"metadata": {}}), delete).unwrap(), json!({"metadata": {}}));
}

#[test]
fn element_order_arranges_lists() {
    check(
        json!({"containers": names(&["a", "b", "c"])}),
        json!({"$setElementOrder/containers": names(&["c", "a"])}),
        json!({"containers": names(&["b", "c", "a"])}),
    );
    check(
        json!({"containers": names(&["a", "b"])}),
        json!({"$setElementOrder/containers": names(&["n", "b", "a"]), "containers": names(&["n"])}),
        json!({"containers": names(&["n", "b", "a"])}),
    );
    check(json!({}), json!({"$setElementOrder/containers": names(&["a"])}), json!({}));
    let error = patched(
        json!({"spec": {"containers": names(&["a"])}}),
        json!({"spec": {"$setElementOrder/containers": 1}}),
    )
    .unwrap_err();
    assert_eq!(error, PatchError::Inconsistent("invalid patch format of setElementOrder list".to_owned()));
}

#[test]
fn retained_keys_clear_the_rest() {
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
    );
    refused(
        json!({"os": {}}),
        json!({"os": {"$retainKeys": ["x"], "name": "l"}}),
        "invalid patch format of retainKeys",
    );
}

#[test]
fn contradictions_are_refused_in_known_words() {
    let containers = json!({"containers": names(&["a"])});
    refused(
        containers.clone(),
        json!({"containers": [{"$patch": "bogus", "name": "a"}]}),
        "unknown patch type: bogus in map: map[$patch:bogus name:a]",
    );
    refused(
        containers.clone(),
        json!({"containers": [{"image": "i:9"}]}),
        "map: map[image:i:9] does not contain declared merge key: name",
    );
    refused(containers, json!({"containers": ["x"]}), "list element types are not identical");
    assert!(matches!(patched(json!({}), json!([1])), Err(PatchError::BadRequest(_))));
}

#[test]
fn the_root_obeys_directives_too() {
    assert_eq!(patched(json!({"a": 1}), json!({"$patch": "delete"})).unwrap(), json!({}));
    assert_eq!(patched(json!({"a": 1}), json!({"$patch": "replace", "b": 2})).unwrap(), json!({"b": 2}));
}

fn merged(id: crate::TypeId, value: &Value, patch: &Value) -> Value {
    let mut out = value.clone();
    apply(Table::builtin(), id, &mut out, patch).unwrap();
    out
}

fn pod() -> crate::TypeId {
    Table::builtin().kind_type("", "v1", "Pod").unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_empty_patch_changes_nothing((id, value) in arbitrary::resource()) {
        prop_assert_eq!(merged(id, &value, &json!({})), value);
    }

    #[test]
    fn an_object_patched_with_itself_is_itself((id, value) in arbitrary::resource()) {
        let plain = merged(id, &json!({}), &value);
        prop_assert_eq!(merged(id, &plain, &plain), plain);
    }

    #[test]
    fn patching_twice_is_patching_once(value in arbitrary::object(pod()), patch in arbitrary::object(pod())) {
        let once = merged(pod(), &value, &patch);
        prop_assert_eq!(merged(pod(), &once, &patch), once);
    }
}
