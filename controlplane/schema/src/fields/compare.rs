//! What changed between two states of an object.

use super::set::Set;
use super::view::{Place, Shape};
use crate::table::TypeId;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The fields that came, changed and went.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) added: Set,
    pub(crate) modified: Set,
    pub(crate) removed: Set,
}

/// Compares two objects of a type.
pub(crate) fn compare(place: &Place<'_>, old: &Value, new: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    comparison.walk(place, Some(old), Some(new), &mut Vec::new());
    comparison
}

/// Whether there is nothing to look into.
fn bare(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(entries)) => entries.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

impl Comparison {
    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>, path: &[String]) {
        match (old, new) {
            (None, Some(_)) => self.added.insert(path),
            (Some(_), None) => self.removed.insert(path),
            (old, new) if old != new => self.modified.insert(path),
            _ => {}
        }
    }

    fn walk(&mut self, place: &Place<'_>, old: Option<&Value>, new: Option<&Value>, path: &mut Vec<String>) {
        let shape = place.shape(new.or(old));
        // Two empty containers, or one and nothing, are compared as wholes: it keeps empty and absent apart.
        if matches!(shape, Shape::Whole) || (bare(old) && bare(new)) {
            return self.leaf(old, new, path);
        }
        match shape {
            Shape::Whole => {}
            Shape::Fields(id) => {
                let none = Map::new();
                self.entries(old, new, path, &none, |name| place.field(id, name));
            }
            Shape::Entries(next) => {
                let none = Map::new();
                self.entries(old, new, path, &none, |_| Some(next));
            }
            Shape::Values => {
                let steps = |list: Option<&Value>| -> BTreeSet<String> {
                    items(list).iter().map(|item| format!("v:{item}")).collect()
                };
                let (old, new) = (steps(old), steps(new));
                old.difference(&new).for_each(|s| insert_below(&mut self.removed, path, s));
                new.difference(&old).for_each(|s| insert_below(&mut self.added, path, s));
            }
            Shape::Items(id, keys) => {
                let (old, new) = (by_step(place, id, keys, old), by_step(place, id, keys, new));
                let steps: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                for step in steps {
                    path.push(step.clone());
                    self.walk(&place.item(id), old.get(step).copied(), new.get(step).copied(), path);
                    path.pop();
                }
            }
        }
        match (old, new) {
            (None, Some(_)) => self.added.insert(path),
            (Some(_), None) => self.removed.insert(path),
            _ => {}
        }
    }

    fn entries<'p>(
        &mut self,
        old: Option<&Value>,
        new: Option<&Value>,
        path: &mut Vec<String>,
        none: &Map<String, Value>,
        place: impl Fn(&str) -> Option<Place<'p>>,
    ) {
        let old = old.and_then(Value::as_object).unwrap_or(none);
        let new = new.and_then(Value::as_object).unwrap_or(none);
        let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
        for name in names {
            let Some(place) = place(name) else { continue };
            path.push(format!("f:{name}"));
            self.walk(&place, old.get(name), new.get(name), path);
            path.pop();
        }
    }
}

/// The items of a list by their steps.
fn by_step<'v>(
    place: &Place<'_>,
    id: TypeId,
    keys: &[Arc<str>],
    list: Option<&'v Value>,
) -> BTreeMap<String, &'v Value> {
    items(list).iter().map(|item| (place.step_of(id, keys, item), item)).collect()
}

fn insert_below(set: &mut Set, path: &mut Vec<String>, step: &str) {
    path.push(step.to_owned());
    set.insert(path);
    path.pop();
}

/// The items of a list; none of anything else.
pub(crate) fn items(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
