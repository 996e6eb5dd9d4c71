//! Strategic merge patch: a merge patch that knows which lists merge by key, and obeys directives in the patch. The
//! directives are `$patch` (replace, delete, merge), `$retainKeys`, `$setElementOrder/list` and
//! `$deleteFromPrimitiveList/list`. It must not know particular kinds; strategies and keys come from the table.

mod list;
mod order;

use serde_json::{Map, Value};

use super::{PatchError, describe, printed};
use crate::table::{Field, FieldKind, Table, Type, TypeId};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList";

/// Merges the patch into an object of a type; `null` changes nothing.
pub fn apply(table: &Table, id: TypeId, value: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if patch.is_null() {
        return Ok(());
    }
    let Value::Object(patch) = patch else {
        let what = describe(patch);
        return Err(PatchError::BadRequest(format!(
            "json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
        )));
    };
    let original = std::mem::take(value);
    let original = if let Value::Object(entries) = original { entries } else { Map::new() };
    let shape = Shape { table, level: Level::Object(table.type_(id)) };
    *value = Value::Object(merge_map(original, patch.clone(), shape)?);
    Ok(())
}

/// What the table says of the level that is being merged.
#[derive(Clone, Copy)]
struct Shape<'t> {
    table: &'t Table,
    level: Level<'t>,
}

#[derive(Clone, Copy)]
enum Level<'t> {
    Object(&'t Type),
    Map(&'t FieldKind),
    Unknown,
}

/// How one field is merged.
struct Rule<'t> {
    inner: Shape<'t>,
    merges: bool,
    replaces: bool,
    key: Option<&'t str>,
}

impl<'t> Shape<'t> {
    fn of(self, kind: &'t FieldKind) -> Shape<'t> {
        let level = match kind {
            FieldKind::Object(id) | FieldKind::Either(id) => Level::Object(self.table.type_(*id)),
            FieldKind::Map(value) => Level::Map(value),
            FieldKind::List(item) => return self.of(item),
            _ => Level::Unknown,
        };
        Shape { table: self.table, level }
    }

    fn rule(self, name: &str) -> Rule<'t> {
        let nothing = Rule {
            inner: Shape { table: self.table, level: Level::Unknown },
            merges: false,
            replaces: false,
            key: None,
        };
        match self.level {
            Level::Object(type_) => match type_.field(name) {
                Some(Field { kind, patch_strategy, merge_key, .. }) => Rule {
                    inner: self.of(kind),
                    merges: patch_strategy.merge,
                    replaces: patch_strategy.replace,
                    key: merge_key.as_deref(),
                },
                None => nothing,
            },
            Level::Map(value) => Rule { inner: self.of(value), ..nothing },
            Level::Unknown => nothing,
        }
    }
}

type Object = Map<String, Value>;

fn merge_map(mut original: Object, mut patch: Object, shape: Shape<'_>) -> Result<Object, PatchError> {
    match patch.get(DIRECTIVE).map(|d| (d.as_str(), d)) {
        None => {}
        Some((Some("replace"), _)) => {
            patch.remove(DIRECTIVE);
            return Ok(patch);
        }
        Some((Some("delete"), _)) => return Ok(Object::new()),
        Some((Some("merge"), _)) => drop(patch.remove(DIRECTIVE)),
        Some((_, directive)) => return Err(unknown_directive(directive, &patch)),
    }
    retain_keys(&mut original, &mut patch)?;
    order::apply(&mut original, &mut patch, shape)?;
    for (name, change) in patch {
        let (name, deletes) = match name.strip_prefix(DELETE_PRIMITIVES) {
            Some(rest) => (bare_name(rest, DELETE_PRIMITIVES)?, true),
            None => (name, false),
        };
        if change.is_null() {
            original.remove(&name);
            continue;
        }
        match (original.remove(&name), change) {
            (Some(Value::Object(old)), Value::Object(new)) if !deletes => {
                let rule = shape.rule(&name);
                let merged = if rule.replaces { new } else { merge_map(old, new, rule.inner)? };
                original.insert(name, Value::Object(merged));
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let merged = list::merge(old, new, &shape.rule(&name), deletes)?;
                original.insert(name, Value::Array(merged));
            }
            (old, _) if deletes => drop(old.map(|old| original.insert(name, old))),
            (_, change) => drop(without_directives(change).map(|value| original.insert(name, value))),
        }
    }
    Ok(original)
}

fn unknown_directive(directive: &Value, patch: &Object) -> PatchError {
    let patch = printed(&Value::Object(patch.clone()));
    PatchError::Inconsistent(format!("unknown patch type: {} in map: {patch}", printed(directive)))
}

fn no_merge_key(entries: &Object, key: &str) -> PatchError {
    let entries = printed(&Value::Object(entries.clone()));
    PatchError::Inconsistent(format!("map: {entries} does not contain declared merge key: {key}"))
}

/// The list that a directive such as `$setElementOrder/env` is about.
fn bare_name(rest: &str, directive: &str) -> Result<String, PatchError> {
    match rest.strip_prefix('/') {
        Some(name) => Ok(name.to_owned()),
        None => Err(PatchError::Inconsistent(format!("invalid patch format of {directive}{rest}"))),
    }
}

/// Obeys `$retainKeys`: what it does not name goes, and the patch may not set anything else.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || PatchError::Inconsistent("invalid patch format of retainKeys".to_owned());
    let Value::Array(names) = directive else { return Err(bad()) };
    let named = |key: &str| names.iter().any(|n| n == key);
    let is_directive = |key: &str| key.starts_with(DELETE_PRIMITIVES) || key.starts_with(ELEMENT_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !named(key)) {
        return Err(bad());
    }
    original.retain(|key, _| named(key));
    Ok(())
}

/// A patch value that stands alone: directives obeyed and gone, nulls gone. `None` if it asks for its own removal.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(entries) => {
            if entries.get(DIRECTIVE).is_some_and(|d| d == "delete") {
                return None;
            }
            let is_directive = |key: &str| {
                key == DIRECTIVE
                    || key == RETAIN_KEYS
                    || key.starts_with(DELETE_PRIMITIVES)
                    || key.starts_with(ELEMENT_ORDER)
            };
            let kept = entries.into_iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
            Some(Value::Object(
                kept.filter_map(|(key, value)| Some((key, without_directives(value)?))).collect(),
            ))
        }
        Value::Array(items) => {
            let is_marker =
                |item: &Value| item.as_object().is_some_and(|o| o.len() == 1 && o.contains_key(DIRECTIVE));
            Some(Value::Array(
                items.into_iter().filter(|i| !is_marker(i)).filter_map(without_directives).collect(),
            ))
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests;
