//! The structural check: a value against a type of the table. Unknown fields are pruned and reported, mistyped ones
//! reported in the words of the reference implementation, `null` and the like dropped as a typed decode drops them.
//!
//! It must not know where the value comes from, nor judge what a well-typed value means.

mod clock;
mod goname;
mod path;
mod scalar;
mod walk;

use serde::de::{DeserializeSeed, Deserializer};
use serde_json::{Map, Value};

use crate::table::{FieldKind, Table, TypeId};

pub(crate) use path::Path;
pub(crate) use walk::{Seed, Walk};

/// Objects nest at most so deep. What is stored must be readable as JSON again (`serde_json` reads 127 levels), also with the field sets of
/// its managers, which nest as deep as the object and lie five levels down.
pub(crate) const MOST_DEPTH: usize = 110;

/// How deep a value nests.
pub(crate) fn levels_of(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels_of).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(levels_of).max().unwrap_or(0),
        _ => 0,
    }
}

/// What a structural check found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Structural {
    /// Paths of the fields that were pruned, in document order.
    pub unknown: Vec<String>,
    /// Why the value cannot be of the type: at most one line, as the reference implementation says it.
    pub errors: Vec<String>,
}

impl Structural {
    /// The pruned fields in the words of a warning or a strict decoding error.
    pub fn messages(&self) -> impl Iterator<Item = String> {
        self.unknown.iter().map(|path| format!("unknown field \"{path}\""))
    }
}

/// Checks a value in place: prunes unknown fields and nulls, normalises quantities and times.
pub fn structural(table: &Table, id: TypeId, value: &mut Value) -> Structural {
    let mut walk = Walk::new(table);
    let checked = run(&mut walk, &FieldKind::Object(id), value.take());
    let (strict, error) = walk.finish();
    let error = match checked {
        Ok(checked) => {
            *value = checked;
            error
        }
        // Too deep: there is nothing to go on with.
        Err(refused) => Some(refused.to_string()),
    };
    Structural {
        unknown: strict.into_iter().filter_map(walk::Strict::into_unknown).collect(),
        errors: error.into_iter().collect(),
    }
}

/// The same for a value that was of the type before a merge patch changed it: only what the patch names is looked at.
pub fn structural_where(table: &Table, id: TypeId, value: &mut Value, patch: &Value) -> Structural {
    let aside = set_aside(value, patch);
    let found = structural(table, id, value);
    put_back(value, aside);
    found
}

/// Takes out of an object what a merge patch does not name.
fn set_aside(value: &mut Value, patch: &Value) -> Value {
    let (Value::Object(fields), Value::Object(named)) = (value, patch) else { return Value::Null };
    let mut aside = Map::new();
    for (name, mut value) in std::mem::take(fields) {
        match named.get(&name) {
            None => drop(aside.insert(name, value)),
            Some(patch) => {
                let inner = set_aside(&mut value, patch);
                if !inner.is_null() {
                    aside.insert(name.clone(), inner);
                }
                fields.insert(name, value);
            }
        }
    }
    if aside.is_empty() { Value::Null } else { Value::Object(aside) }
}

/// Puts in again what was taken out.
fn put_back(value: &mut Value, aside: Value) {
    match (value, aside) {
        (_, Value::Null) => {}
        (Value::Object(fields), Value::Object(aside)) => {
            for (name, inner) in aside {
                match fields.get_mut(&name) {
                    Some(value) => put_back(value, inner),
                    None => drop(fields.insert(name, inner)),
                }
            }
        }
        (value, aside) => *value = aside,
    }
}

/// Runs one value through the walk; the error is the format's own (the walk keeps what the type objects to).
pub(crate) fn run<'de, D: Deserializer<'de>>(
    walk: &mut Walk<'_>,
    kind: &FieldKind,
    input: D,
) -> Result<Value, D::Error> {
    let value = Seed { walk, kind, holder: None }.deserialize(input)?;
    Ok(value.unwrap_or_else(|| Value::Object(serde_json::Map::new())))
}

pub(crate) use goname::of as go_name;
pub(crate) use scalar::objection as scalar_objection;
pub(crate) use walk::Strict;

#[cfg(test)]
mod tests;
