//! The round trip through a typed object, as it shows in JSON: empty values that the typed form drops are dropped, and
//! those it always writes are written. It must not know defaults that mean something (`crate::defaults`).

use serde_json::{Map, Value};

use crate::table::{Field, FieldKind, Presence, Table, TypeId};

/// Normalises a well-typed value in place, as it comes back from storage. Doing it twice changes nothing.
pub fn normalize(table: &Table, id: TypeId, value: &mut Value) {
    if let Value::Object(object) = value {
        self::object(table, id, object, true);
    }
}

/// The same for a value that has not been stored: empty lists and maps that are always written stay what they are.
pub fn decoded(table: &Table, id: TypeId, value: &mut Value) {
    if let Value::Object(object) = value {
        self::object(table, id, object, false);
    }
}

fn object(table: &Table, id: TypeId, object: &mut Map<String, Value>, stored: bool) {
    for field in &table.type_(id).fields {
        let keep = match object.get_mut(&*field.json_name) {
            Some(Value::Null) | None => None,
            Some(value) => {
                inside(table, &field.kind, value, stored);
                if stored && field.presence == Presence::Always && is_forgotten(field, value) {
                    *value = Value::Null;
                }
                Some(keeps(field, value))
            }
        };
        match keep {
            Some(true) => {}
            Some(false) => drop(object.remove(&*field.json_name)),
            None => match absent(table, field) {
                Some(value) => drop(object.insert(field.json_name.to_string(), value)),
                None => drop(object.remove(&*field.json_name)),
            },
        }
    }
}

/// Normalises what is below a value.
fn inside(table: &Table, kind: &FieldKind, value: &mut Value, stored: bool) {
    match (kind, value) {
        (FieldKind::Object(id), Value::Object(inner)) => object(table, *id, inner, stored),
        (FieldKind::Either(id), Value::Object(inner)) => object(table, *id, inner, stored),
        (FieldKind::Either(_), Value::Array(items)) => {
            items.iter_mut().for_each(|item| inside(table, kind, item, stored))
        }
        (FieldKind::List(item), Value::Array(items)) if item.object().is_some() => {
            items.iter_mut().for_each(|value| inside(table, item, value, stored));
        }
        (FieldKind::Map(item), Value::Object(entries)) if item.object().is_some() => {
            entries.values_mut().for_each(|value| inside(table, item, value, stored));
        }
        _ => {}
    }
}

/// Storage does not tell an empty list or map from none. The items of a list of objects are never stored.
fn is_forgotten(field: &Field, value: &Value) -> bool {
    match (&field.kind, value) {
        _ if &*field.json_name == "items" => false,
        (FieldKind::List(_), Value::Array(items)) => items.is_empty(),
        (FieldKind::Map(_), Value::Object(entries)) => entries.is_empty(),
        _ => false,
    }
}

/// Whether a value that is there stays.
fn keeps(field: &Field, value: &Value) -> bool {
    match field.presence {
        Presence::Pointer | Presence::Always | Presence::Nullable => true,
        Presence::OmitEmpty => match value {
            Value::Null => false,
            Value::Bool(b) => *b,
            Value::Number(n) => n.as_f64() != Some(0.0),
            Value::String(s) => !s.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(entries) => !entries.is_empty(),
        },
    }
}

/// What stands for a field that is not there.
fn absent(table: &Table, field: &Field) -> Option<Value> {
    match field.presence {
        Presence::Pointer | Presence::OmitEmpty => None,
        Presence::Nullable => Some(Value::Null),
        Presence::Always => Some(zero(table, &field.kind)),
    }
}

/// The zero value of a kind, as it is written.
fn zero(table: &Table, kind: &FieldKind) -> Value {
    match kind {
        FieldKind::String => Value::String(String::new()),
        FieldKind::Int32 | FieldKind::Int64 | FieldKind::Double | FieldKind::IntOrString => Value::from(0),
        FieldKind::Bool => Value::Bool(false),
        FieldKind::Quantity => Value::String("0".to_owned()),
        FieldKind::Duration => Value::String("0s".to_owned()),
        FieldKind::Object(id) => {
            let mut empty = Map::new();
            object(table, *id, &mut empty, true);
            Value::Object(empty)
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests;
