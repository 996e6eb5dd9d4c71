//! Field sets and server-side apply: what is written down about owners is read back as the same, and an apply repeated is nothing.

use pagurus_controlplane_schema::codec::json as json_codec;
use pagurus_controlplane_schema::fields::{self, ApplyError, Form, Managed, OneVersion, Set, Writer};
use pagurus_controlplane_schema::{Table, TypeId, normalize};
use serde_json::{Value, json};

use crate::same::same;
use crate::sample;

const NOW: &str = "2025-01-02T03:04:05Z";

/// `FieldsV1` and `metadata.managedFields`.
pub(crate) fn managed_fields(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let value = |bytes: Option<&[u8]>| json_codec::decode(bytes.unwrap_or_default()).map(|d| d.value).ok();
    let (Some(first), second) = (value(parts.next()), value(parts.next())) else { return };
    managed(&first);
    let set = |value: &Value| Set::from_json(value).ok();
    let Some(a) = set(&first) else { return };
    assert_eq!(Set::from_json(&a.to_json()).as_ref(), Ok(&a), "a field set there and back");
    let mut built = Set::default();
    a.paths().iter().for_each(|path| built.insert(path));
    assert_eq!(built, a, "a set is its paths");
    let Some(b) = second.as_ref().and_then(set) else { return };
    assert_eq!(a.union(&b), b.union(&a), "union either way");
    assert_eq!(a.intersection(&b), b.intersection(&a), "intersection either way");
    assert_eq!(a.difference(&b).union(&a.intersection(&b)), a, "what is not in b and what is");
    assert!(a.difference(&b).intersection(&b).is_empty(), "a difference has nothing of b");
}

fn managed(list: &Value) {
    if let Ok(managed) = Managed::from_json(list) {
        let text = managed.to_json();
        let again = Managed::from_json(&text).expect("own managedFields read back");
        same(&again.to_json(), &text, "managedFields there and back");
    }
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "v1", subresource: "", now: NOW }
}

fn apply_once(id: TypeId, live: Option<&Value>, config: &Value, manager: &str) -> Option<Value> {
    let reset = Set::default();
    let form = Form { table: Table::builtin(), id, versions: &OneVersion };
    match fields::apply(&form, live, config, &writer(manager), true, &reset) {
        Ok(object) => Some(object),
        Err(ApplyError::Typed(_)) => None,
        Err(ApplyError::Conflicts(conflicts)) => panic!("a forced apply has conflicts: {conflicts:?}"),
    }
}

/// A live object, two configurations: applied by two managers and updated between.
pub(crate) fn apply(data: &[u8]) {
    let Some((resource, bytes)) = sample::choose(data) else { return };
    let (table, id) = (Table::builtin(), resource.type_id);
    let read = |bytes: &[u8]| {
        let mut value = json_codec::decode_as(table, id, bytes).ok()?.value;
        normalize(table, id, &mut value);
        Some(value)
    };
    let objects: Vec<Option<Value>> = bytes.split(|byte| *byte == 0).take(3).map(read).collect();
    let [Some(live), Some(first), rest @ ..] = &objects[..] else { return };
    let Some(created) = apply_once(id, None, first, "a") else { return };
    check(&created);
    let again = apply_once(id, Some(&created), first, "a").expect("an apply repeated is an apply");
    same(&again, &created, "an apply repeated changes nothing");
    if let Some(over) = apply_once(id, Some(live), first, "b") {
        check(&over);
        let again = apply_once(id, Some(&over), first, "b").expect("an apply repeated is an apply");
        same(&again, &over, "an apply over an object repeated changes nothing");
    }
    let Some(Some(second)) = rest.first() else { return };
    let mut updated = second.clone();
    let form = Form { table, id, versions: &OneVersion };
    fields::update(&form, Some(&created), &mut updated, &writer("u"), &Set::default());
    check(&updated);
    if let Some(last) = apply_once(id, Some(&updated), second, "a") {
        check(&last);
    }
}

fn check(object: &Value) {
    if let Some(list) = object.pointer("/metadata/managedFields") {
        let read = Managed::from_json(list).expect("own managedFields read back");
        same(&read.to_json(), list, "managedFields there and back");
    }
}

pub(crate) fn apply_seeds() -> Vec<Vec<u8>> {
    let of = |(at, value): &(usize, Value)| {
        let less = json!({"apiVersion": value["apiVersion"], "kind": value["kind"], "spec": value["spec"]});
        let less =
            if value.get("spec").is_some() { less } else { json!({"metadata": {"labels": {"k": "w"}}}) };
        sample::chosen(*at, format!("{less}\0{value}\0{less}").as_bytes())
    };
    sample::objects().iter().map(of).collect()
}

pub(crate) fn managed_seeds() -> Vec<Vec<u8>> {
    let sets = [
        json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}),
        json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}}}),
        json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"a\"": {}}}, "i:0": {}}),
    ];
    let entries = json!([
        {"manager": "a", "operation": "Apply", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1", "fieldsV1": sets[0]},
        {"manager": "b", "operation": "Update", "apiVersion": "v1", "subresource": "status", "fieldsV1": sets[1]}
    ]);
    let mut seeds = vec![entries.to_string().into_bytes()];
    for a in &sets {
        seeds.extend(sets.iter().map(|b| format!("{a}\0{b}").into_bytes()));
    }
    seeds
}
