//! Stories of objects, told.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// A write of a ConfigMap: revision, version, data, and its managers with the seconds of their times.
fn state(revision: u64, version: u64, data: Value, managers: &[(&str, u8, Value)]) -> State {
    let managed: Vec<Value> = managers
        .iter()
        .map(|(name, second, fields)| {
            json!({"manager": name, "operation": "Update", "apiVersion": "v1", "fieldsV1": fields,
                "time": format!("2026-01-01T00:00:{second:02}Z")})
        })
        .collect();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": "c", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": managed}});
    State { revision, version, object, author: None }
}

fn deleted(revision: u64) -> State {
    State { revision, version: 0, object: Value::Null, author: by("d", "Delete") }
}

fn by(manager: &str, operation: &str) -> Option<Author> {
    let text = |text: &str| text.to_owned();
    let time = text("2026-01-01T00:00:07Z");
    Some(Author { manager: text(manager), user: text("me"), operation: text(operation), time })
}

fn story(states: Vec<State>, more: bool, limit: usize) -> Told {
    let table = Table::builtin();
    let id = table.type_named("io.k8s.api.core.v1.ConfigMap").unwrap();
    tell(table, id, &History { states, more, compacted: 3 }, limit)
}

fn a() -> Value {
    json!({"f:data": {".": {}, "f:a": {}}})
}

#[test]
fn each_write_is_told() {
    let told = story(
        vec![
            state(9, 1, json!({}), &[]),
            deleted(8),
            state(6, 2, json!({"a": "2"}), &[("second", 5, a())]),
            state(5, 1, json!({"a": "1"}), &[("first", 1, a())]),
        ],
        false,
        9,
    );
    let key = ObjectKey::namespaced("n", "c");
    let json = told.to_json("v1", "ConfigMap", &key);
    assert_eq!(
        json["object"],
        json!({"apiVersion": "v1", "kind": "ConfigMap", "namespace": "n", "name": "c"})
    );
    assert_eq!(json["metadata"], json!({"resourceVersion": "9"}));
    assert_eq!((&json["compactedResourceVersion"], json.get("forgottenWrites")), (&json!("3"), None));
    let update = |name: &str| json!({"manager": name, "operation": "Update", "apiVersion": "v1"});
    assert_eq!(
        json["items"],
        json!([
            {"resourceVersion": "9", "event": "Created", "time": "2026-01-01T00:00:00Z", "uid": "u", "managers": [],
                "changes": [{"path": ".data", "new": {}}]},
            {"resourceVersion": "8", "event": "Deleted", "time": "2026-01-01T00:00:07Z", "uid": "u",
                "managers": [{"manager": "d", "operation": "Delete", "user": "me"}], "changes": []},
            {"resourceVersion": "6", "event": "Modified", "time": "2026-01-01T00:00:05Z", "uid": "u",
                "managers": [update("second")], "changes": [{"path": ".data.a", "old": "1", "new": "2"}]},
            {"resourceVersion": "5", "event": "Created", "time": "2026-01-01T00:00:00Z", "uid": "u",
                "managers": [update("first")], "changes": [{"path": ".data", "new": {"a": "1"}}]},
        ])
    );
    let table = told.to_table("v1", &key);
    assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), 6);
    assert_eq!(
        table["rows"][2]["cells"],
        json!([
            "6",
            "2026-01-01T00:00:05Z",
            "Modified",
            "second (Update)",
            ".data.a",
            ".data.a: \"1\" -> \"2\""
        ])
    );
    let gone = ["8", "2026-01-01T00:00:07Z", "Deleted", "d (Delete as me)", "<none>", "<none>"];
    assert_eq!(table["rows"][1]["cells"], json!(gone));
}

#[test]
fn who_marked_it_is_told_beside_who_wrote() {
    let mut marked = state(6, 2, json!({"a": "2"}), &[("second", 5, a())]);
    marked.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:07Z");
    marked.author = by("d", "Delete");
    let unsaid = State { author: None, ..deleted(8) };
    let told = story(vec![unsaid, marked, state(5, 1, json!({"a": "1"}), &[])], false, 9);
    let json = told.to_json("v1", "ConfigMap", &ObjectKey::namespaced("n", "c"));
    assert_eq!(
        json["items"][1]["managers"],
        json!([
            {"manager": "second", "operation": "Update", "apiVersion": "v1"},
            {"manager": "d", "operation": "Delete", "user": "me"},
        ])
    );
    assert_eq!(json["items"][1]["time"], "2026-01-01T00:00:07Z");
    assert_eq!((&json["items"][0]["managers"], json["items"][0].get("time")), (&json!([]), None));
}

#[test]
fn what_is_forgotten_is_said() {
    let states = || vec![state(9, 4, json!({"a": "2"}), &[]), state(5, 3, json!({"a": "1"}), &[])];
    let told = story(states(), false, 9);
    let kinds: Vec<Kind> = told.items.iter().map(|item| item.kind).collect();
    assert_eq!(kinds, [Kind::Modified, Kind::Retained]);
    assert_eq!((told.forgotten, told.next), (2, None));
    assert!(told.items[1].changes.is_empty(), "nobody can say what it changed");
}

#[test]
fn pages_end_where_the_next_begins() {
    let states =
        || (0u64..4).map(|at| state(9 - at, 9 - at, json!({"a": at.to_string()}), &[])).collect::<Vec<_>>();
    for (read, more, limit, told, next) in [
        (4, false, 9, 4, None),
        (4, false, 3, 3, Some(7)),
        (4, true, 3, 3, Some(7)),
        (2, true, 9, 1, Some(9)),
    ] {
        let page = story(states().into_iter().take(read).collect(), more, limit);
        assert_eq!((page.items.len(), page.next), (told, next), "{read} {more} {limit}");
        assert_eq!(page.forgotten, if next.is_none() { 5 } else { 0 });
    }
}

#[test]
fn long_values_are_cut_in_cells_only() {
    let told = story(
        vec![state(6, 2, json!({"a": "\u{e4}".repeat(100)}), &[]), state(5, 1, json!({}), &[])],
        false,
        1,
    );
    let cell =
        told.to_table("v1", &ObjectKey::cluster("c"))["rows"][0]["cells"][5].as_str().unwrap().to_owned();
    assert!(cell.ends_with("...") && cell.chars().count() < 100, "{cell}");
    let whole = &told.to_json("v1", "ConfigMap", &ObjectKey::cluster("c"))["items"][0]["changes"][0]["new"];
    assert_eq!(whole.as_str().unwrap().chars().count(), 100);
}
