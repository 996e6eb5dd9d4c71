//! Patches: an object and a patch with a zero byte between. What comes out is bounded by what went in.

use pagurus_controlplane_schema::codec::json as json_codec;
use pagurus_controlplane_schema::{Table, patch};
use serde_json::{Value, json};

use crate::same::same;
use crate::sample;

/// Bytes that a JSON patch may add by copying, at most, as kube-apiserver has it (`--json-patch-max-copy-bytes`).
const MOST_COPIED: usize = 3 << 20;

/// An object and a patch, as JSON.
fn pair(bytes: &[u8]) -> Option<(Value, Value)> {
    let at = bytes.iter().position(|byte| *byte == 0)?;
    let object = json_codec::decode(&bytes[..at]).ok()?.value;
    Some((object, patch::parse(&bytes[at + 1..]).ok()?.value))
}

fn join(object: &Value, patch: &Value) -> Vec<u8> {
    format!("{object}\0{patch}").into_bytes()
}

fn size(value: &Value) -> usize {
    json_codec::encode(value).len()
}

/// RFC 6902.
pub(crate) fn json_patch(data: &[u8]) {
    let Some((object, change)) = pair(data) else { return };
    let mut out = object.clone();
    match patch::json_patch::apply(&mut out, &change) {
        Ok(()) => assert!(size(&out) <= size(&object) + size(&change) + 2 * MOST_COPIED, "bounded"),
        Err(_) => assert_eq!(out, object, "all operations or none"),
    }
}

/// RFC 7386.
pub(crate) fn merge_patch(data: &[u8]) {
    let Some((object, change)) = pair(data) else { return };
    let mut once = object.clone();
    if patch::merge::apply(&mut once, &change).is_err() {
        return;
    }
    assert!(size(&once) <= size(&object) + size(&change), "bounded");
    let mut twice = once.clone();
    patch::merge::apply(&mut twice, &change).expect("a patch that has been applied applies");
    same(&twice, &once, "twice is once");
}

/// Strategic merge patch.
pub(crate) fn strategic(data: &[u8]) {
    let Some((resource, bytes)) = sample::choose(data) else { return };
    let Some((object, change)) = pair(bytes) else { return };
    let mut out = object.clone();
    if patch::strategic::apply(Table::builtin(), resource.type_id, &mut out, &change).is_ok() {
        assert!(size(&out) <= size(&object) + size(&change), "bounded");
        assert!(out.is_object(), "an object stays one");
    }
}

pub(crate) fn json_patch_seeds() -> Vec<Vec<u8>> {
    let object = json!({"a": [1, {"b": null}], "m/n": {"~": "x"}, "metadata": {"labels": {"k": "v"}}});
    let operations = [
        json!([{"op": "add", "path": "/a/-", "value": {"c": 1}}]),
        json!([{"op": "test", "path": "/m~1n/~0", "value": "x"}, {"op": "remove", "path": "/m~1n"}]),
        json!([{"op": "copy", "from": "/a", "path": "/a/0"}, {"op": "copy", "from": "/a", "path": "/a/0"}]),
        json!([{"op": "move", "from": "/metadata/labels", "path": "/a/-1"}]),
        json!([{"op": "replace", "path": "", "value": {}}, {"op": "test", "path": "/x"}]),
    ];
    operations.iter().map(|patch| join(&object, patch)).collect()
}

pub(crate) fn merge_patch_seeds() -> Vec<Vec<u8>> {
    let object = json!({"a": {"b": [1, 2]}, "c": "d", "e": {"f": {"g": 1}}});
    let changes = [
        json!({"a": null}),
        json!({"a": {"b": null, "x": {"y": null}}}),
        json!({"c": {"d": [null]}, "e": 1}),
    ];
    changes.iter().map(|patch| join(&object, patch)).collect()
}

pub(crate) fn strategic_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (at, value) in sample::objects() {
        seeds.push(sample::chosen(at, &join(&value, &value)));
    }
    let pods = Table::builtin().resources().iter().position(|r| &*r.plural == "pods").unwrap_or(0);
    let pod = json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1}]}, {"name": "b"}], "volumes": [{"name": "v", "emptyDir": {}}]}});
    for change in [
        json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "$patch": "delete"}]}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "c"}]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}, "$retainKeys": ["metadata"]}),
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}),
        json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}, "metadata": {"$patch": "replace"}}),
    ] {
        seeds.push(sample::chosen(pods, &join(&pod, &change)));
    }
    seeds
}
