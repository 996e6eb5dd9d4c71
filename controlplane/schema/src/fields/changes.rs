//! What is different between two states of an object, field by field with both values, and whose write that was: for people who ask
//! what happened.
//!
//! Places are told apart as ownership does: fields, entries of maps, items of lists by their keys. It must not know where states
//! come from.

use super::compare::items;
use super::managed::{ANCIENT, Entry, Managed, Operation};
use super::set::{self, Below};
use super::view::{Place, Shape};
use crate::table::{Table, TypeId};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A place where two states are different. What came or went is told as a whole, at the uppermost place that did.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<'v> {
    /// The steps to it, in the form of `FieldsV1`.
    pub path: Vec<String>,
    /// What was there.
    pub old: Option<&'v Value>,
    /// What is there.
    pub new: Option<&'v Value>,
}

impl Change<'_> {
    /// The place as messages show it: `.spec.containers[name="a"].image`.
    pub fn place(&self) -> String {
        set::shown(&self.path)
    }
}

/// The differences of two states of an object of a type, in the order of the fields' names.
pub fn changes<'v>(table: &Table, id: TypeId, old: &'v Value, new: &'v Value) -> Vec<Change<'v>> {
    let mut found = Vec::new();
    walk(&Place::root(table, id), (Some(old), Some(new)), &mut Vec::new(), &mut found);
    found
}

/// The managers whose write made one state of the other: those whose entries came, grew or have another time; if time and fields
/// are the same (two writes within a second), those who own what changed. Nobody, if the entries do not tell.
pub fn writers<'e>(old: &Managed, new: &'e Managed, changes: &[Change<'_>]) -> Vec<&'e Entry> {
    let wrote = |entry: &&Entry| match old.find(entry) {
        None => true,
        Some(was) => was.time != entry.time || !entry.fields.difference(&was.fields).is_empty(),
    };
    let mut found: Vec<&Entry> = new.entries.iter().filter(wrote).collect();
    if found.len() > 1 {
        // The entry into which old ones are merged when there are too many comes beside the writer's.
        found.retain(|entry| entry.manager != ANCIENT || entry.operation != Operation::Update);
    }
    if found.is_empty() {
        let set: Vec<_> = changes.iter().filter(|change| change.new.is_some()).collect();
        let owns = |entry: &&Entry| set.iter().any(|change| owns(entry.fields.all(), &change.path));
        found = new.entries.iter().filter(owns).collect();
    }
    found
}

/// Whether a place, or one above or below it, is in the set as a leaf would be.
fn owns(set: Below<'_>, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    match set.below(first) {
        None => false,
        Some(below) => below.is_empty() || owns(below, rest),
    }
}

type Pair<'v> = (Option<&'v Value>, Option<&'v Value>);

fn walk<'v>(place: &Place<'_>, pair: Pair<'v>, path: &mut Vec<String>, found: &mut Vec<Change<'v>>) {
    let (Some(old), Some(new)) = pair else { return leaf(pair, path, found) };
    if old == new {
        return;
    }
    let before = found.len();
    match (place.shape(Some(new)), old, new) {
        (Shape::Fields(id), Value::Object(old), Value::Object(new)) => {
            each(old, new, |name, pair| {
                below(format!("f:{name}"), place.field(id, name).as_ref(), pair, path, found);
            });
        }
        (Shape::Entries(next), Value::Object(old), Value::Object(new)) => {
            each(old, new, |name, pair| below(format!("f:{name}"), Some(&next), pair, path, found));
        }
        (Shape::Values, Value::Array(_), Value::Array(_)) => {
            let step = |item: &Value| format!("v:{item}");
            listed(by(old, step), by(new, step), None, path, found);
        }
        (Shape::Items(id, keys), Value::Array(_), Value::Array(_)) => {
            let step = |item: &Value| place.step_of(id, keys, item);
            listed(by(old, step), by(new, step), Some(&place.item(id)), path, found);
        }
        _ => {}
    }
    // Replaced as a whole, or the same items in another order.
    if found.len() == before {
        leaf(pair, path, found);
    }
}

fn leaf<'v>((old, new): Pair<'v>, path: &[String], found: &mut Vec<Change<'v>>) {
    if old != new {
        found.push(Change { path: path.to_vec(), old, new });
    }
}

/// One step down; without a place what is there is told as a whole.
fn below<'v>(
    step: String,
    place: Option<&Place<'_>>,
    pair: Pair<'v>,
    path: &mut Vec<String>,
    found: &mut Vec<Change<'v>>,
) {
    path.push(step);
    match place {
        Some(place) => walk(place, pair, path, found),
        None => leaf(pair, path, found),
    }
    path.pop();
}

fn each<'v>(old: &'v Map<String, Value>, new: &'v Map<String, Value>, mut visit: impl FnMut(&str, Pair<'v>)) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names.into_iter().for_each(|name| visit(name, (old.get(name), new.get(name))));
}

type Steps<'v> = BTreeMap<String, &'v Value>;

fn by(list: &Value, step: impl Fn(&Value) -> String) -> Steps<'_> {
    items(Some(list)).iter().map(|item| (step(item), item)).collect()
}

fn listed<'v>(
    old: Steps<'v>,
    new: Steps<'v>,
    place: Option<&Place<'_>>,
    path: &mut Vec<String>,
    found: &mut Vec<Change<'v>>,
) {
    let steps: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for step in steps {
        below(step.clone(), place, (old.get(step).copied(), new.get(step).copied()), path, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(old: Value, new: Value) -> Value {
        let table = Table::builtin();
        let id = table.type_named("io.k8s.api.core.v1.Pod").expect("a served type");
        let found = changes(table, id, &old, &new);
        found.iter().map(|c| json!([c.place(), c.old, c.new])).collect()
    }

    #[test]
    fn places_and_values() {
        let containers = |list: Value| json!({"spec": {"containers": list}});
        let taints = |list: Value| json!({"spec": {"tolerations": list}});
        for (what, old, new, want) in [
            ("nothing", json!({"a": 1}), json!({"a": 1}), json!([])),
            (
                "fields that came, changed and went",
                json!({"spec": {"nodeName": "a", "hostname": "h"}}),
                json!({"spec": {"nodeName": "b", "priority": 1}}),
                json!([
                    [".spec.hostname", "h", null],
                    [".spec.nodeName", "a", "b"],
                    [".spec.priority", null, 1]
                ]),
            ),
            (
                "entries of a map",
                json!({"metadata": {"labels": {"a": "1", "b.io/c": "2"}}}),
                json!({"metadata": {"labels": {"a": "1", "b.io/c": "3"}}}),
                json!([[".metadata.labels.b.io/c", "2", "3"]]),
            ),
            (
                "what came as a whole",
                json!({"metadata": {}}),
                json!({"metadata": {"labels": {"a": "1"}}, "spec": {"nodeName": "n"}}),
                json!([[".metadata.labels", null, {"a": "1"}], [".spec", null, {"nodeName": "n"}]]),
            ),
            (
                "items by their keys, in whatever order",
                containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
                containers(json!([{"name": "c"}, {"name": "a", "image": "2"}])),
                json!([
                    [".spec.containers[name=\"a\"].image", "1", "2"],
                    [".spec.containers[name=\"b\"]", {"name": "b", "image": "1"}, null],
                    [".spec.containers[name=\"c\"]", null, {"name": "c"}],
                ]),
            ),
            (
                "another order",
                containers(json!([{"name": "a"}, {"name": "b"}])),
                containers(json!([{"name": "b"}, {"name": "a"}])),
                json!([[".spec.containers", [{"name": "a"}, {"name": "b"}], [{"name": "b"}, {"name": "a"}]]]),
            ),
            (
                "items of a set",
                json!({"metadata": {"finalizers": ["a", "b"]}}),
                json!({"metadata": {"finalizers": ["b", "c"]}}),
                json!([
                    [".metadata.finalizers[=\"a\"]", "a", null],
                    [".metadata.finalizers[=\"c\"]", null, "c"]
                ]),
            ),
            (
                "lists without keys",
                taints(json!([{"key": "a"}])),
                taints(json!([{"key": "a"}, {"key": "b"}])),
                json!([[".spec.tolerations", [{"key": "a"}], [{"key": "a"}, {"key": "b"}]]]),
            ),
            ("another type", json!({"spec": 1}), json!({"spec": {}}), json!([[".spec", 1, {}]])),
        ] {
            assert_eq!(told(old, new), want, "{what}");
        }
    }

    #[test]
    fn whose_write_it_was() {
        let entry = |manager: &str, operation: &str, time: &str, fields: Value| json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": time, "fieldsV1": fields});
        let a = |fields: Value| entry("a", "Update", "2026-01-01T00:00:00Z", fields);
        let (x, y) = (json!({"f:x": {}}), json!({"f:y": {}}));
        let both = json!({"f:x": {}, "f:y": {}});
        let changed =
            |path: &str, new: Option<&'static Value>| Change { path: vec![path.to_owned()], old: None, new };
        static ONE: Value = Value::Bool(true);
        for (what, old, new, changes, want) in [
            ("a first write", json!([]), json!([a(x.clone())]), vec![], vec!["a"]),
            (
                "a later write of the same fields",
                json!([a(x.clone())]),
                json!([entry("a", "Update", "2026-01-01T00:00:01Z", x.clone())]),
                vec![],
                vec!["a"],
            ),
            (
                "fields taken from another: only who has them now wrote",
                json!([a(both.clone())]),
                json!([a(y.clone()), entry("b", "Apply", "2026-01-01T00:00:00Z", x.clone())]),
                vec![],
                vec!["b"],
            ),
            (
                "again within the second: the owner of what changed",
                json!([a(x.clone()), entry("b", "Apply", "2026-01-01T00:00:00Z", y.clone())]),
                json!([a(x.clone()), entry("b", "Apply", "2026-01-01T00:00:00Z", y.clone())]),
                vec![changed("f:y", Some(&ONE))],
                vec!["b"],
            ),
            ("what went was nobody's", json!([a(both)]), json!([a(y)]), vec![changed("f:x", None)], vec![]),
            (
                "old entries merged beside the writer's",
                json!([a(x.clone())]),
                json!([
                    entry("ancient-changes", "Update", "2026-01-01T00:00:00Z", x.clone()),
                    entry("c", "Update", "2026-01-02T00:00:00Z", x)
                ]),
                vec![],
                vec!["c"],
            ),
        ] {
            let (old, new) =
                (Managed::from_json(&old).expect("entries"), Managed::from_json(&new).expect("entries"));
            let names: Vec<&str> = writers(&old, &new, &changes).iter().map(|e| e.manager.as_str()).collect();
            assert_eq!(names, want, "{what}");
        }
    }
}
