//! What changed between two objects, as sets of fields. What is equal is not looked into.

use super::set::{Set, node};
use super::view::{Place, Shape};
use crate::table::TypeId;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The fields that came or changed, and those that went.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) changed: Set,
    pub(crate) removed: Set,
}

/// Compares two objects of a type.
pub(crate) fn compare(place: &Place<'_>, old: &Value, new: &Value) -> Comparison {
    let Trees { changed, removed } = below(place, place.shape(Some(new)), Some(old), Some(new));
    Comparison { changed: Set::of_tree(changed), removed: Set::of_tree(removed) }
}

type Tree = Map<String, Value>;

/// What is below a node, in each of the sets.
#[derive(Default)]
struct Trees {
    changed: Tree,
    removed: Tree,
}

/// A node, in each of the sets it is in.
#[derive(Default)]
struct Nodes {
    changed: Option<Value>,
    removed: Option<Value>,
}

impl Trees {
    fn put(&mut self, nodes: Nodes, step: impl Fn() -> String) {
        for (tree, node) in [(&mut self.changed, nodes.changed), (&mut self.removed, nodes.removed)] {
            if let Some(node) = node {
                tree.insert(step(), node);
            }
        }
    }
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

fn walk(place: &Place<'_>, old: Option<&Value>, new: Option<&Value>) -> Nodes {
    if old == new {
        return Nodes::default();
    }
    let (came, went) = (old.is_none(), new.is_none());
    let shape = place.shape(new.or(old));
    // Two empty containers, or one and nothing, are compared as wholes: it keeps empty and absent apart.
    if matches!(shape, Shape::Whole) || (bare(old) && bare(new)) {
        let leaf = |is: bool| is.then(|| Value::Object(Tree::new()));
        return Nodes { changed: leaf(!went), removed: leaf(went) };
    }
    let Trees { changed, removed } = below(place, shape, old, new);
    Nodes { changed: node(changed, came), removed: node(removed, went) }
}

/// Compares what two containers hold.
fn below(place: &Place<'_>, shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Trees {
    match shape {
        Shape::Whole => Trees::default(),
        Shape::Fields(id) => entries(old, new, |name| place.field(id, name)),
        Shape::Entries(next) => entries(old, new, |_| Some(next)),
        Shape::Values => {
            let steps = |list: Option<&Value>| -> BTreeSet<String> {
                items(list).iter().map(|item| format!("v:{item}")).collect()
            };
            let (old, new) = (steps(old), steps(new));
            let leaves = |a: &BTreeSet<String>, b: &BTreeSet<String>| -> Tree {
                a.difference(b).map(|step| (step.clone(), Value::Object(Tree::new()))).collect()
            };
            Trees { changed: leaves(&new, &old), removed: leaves(&old, &new) }
        }
        Shape::Items(id, keys) => {
            let (old, new) = (by_step(place, id, keys, old), by_step(place, id, keys, new));
            let steps: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            let mut trees = Trees::default();
            for step in steps {
                let nodes = walk(&place.item(id), old.get(step).copied(), new.get(step).copied());
                trees.put(nodes, || step.clone());
            }
            trees
        }
    }
}

fn entries<'p>(old: Option<&Value>, new: Option<&Value>, place: impl Fn(&str) -> Option<Place<'p>>) -> Trees {
    let none = Tree::new();
    let old = old.and_then(Value::as_object).unwrap_or(&none);
    let new = new.and_then(Value::as_object).unwrap_or(&none);
    let mut trees = Trees::default();
    let mut each = |name: &String, old: Option<&Value>, new: Option<&Value>| {
        if let Some(place) = place(name) {
            trees.put(walk(&place, old, new), || ["f:", name].concat());
        }
    };
    for (name, value) in old {
        each(name, Some(value), new.get(name));
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        each(name, None, Some(value));
    }
    trees
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

/// The items of a list; none of anything else.
pub(crate) fn items(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
