//! From a message to an object, by the tags of the type table.

use super::wire::{self, Payload, RawField};
use crate::codec::DecodeError;
use crate::table::{Field, FieldKind, Table, TypeId};
use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

fn broken(what: impl Into<String>) -> DecodeError {
    DecodeError::Syntax(what.into())
}

/// Decodes a message of a type.
pub(super) fn message(
    table: &Table,
    id: TypeId,
    bytes: &[u8],
    depth: usize,
) -> Result<Map<String, Value>, DecodeError> {
    let mut object = Map::new();
    let mut path = Vec::with_capacity(2);
    part(table, id, &mut path, bytes, depth, &mut object)?;
    Ok(object)
}

/// Decodes a message, or the embedded message at `path` in it: its fields are fields of the object all the same.
fn part(
    table: &Table,
    id: TypeId,
    path: &mut Vec<u32>,
    bytes: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    let Some(depth) = depth.checked_sub(1) else { return Err(broken("proto: message nests too deep")) };
    for raw in wire::fields(bytes) {
        let raw = raw?;
        path.push(raw.tag);
        let fields = &table.type_(id).fields;
        if let Some(field) = fields.iter().find(|f| f.proto_path == *path) {
            put(table, field, &raw, depth, object)?;
        } else if fields.iter().any(|f| f.proto_path.starts_with(path)) {
            part(table, id, path, raw.bytes()?, depth, object)?;
        }
        path.pop();
    }
    Ok(())
}

/// Adds one occurrence of a field: repeated ones and map entries add up, others replace.
fn put(
    table: &Table,
    field: &Field,
    raw: &RawField<'_>,
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    match &field.kind {
        FieldKind::List(item) if is_wrapped(field) => {
            let list = list_message(table, item, raw.bytes()?, depth)?;
            object.insert(field.json_name.to_string(), list);
        }
        FieldKind::List(item) => {
            let items = object.entry(&*field.json_name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(items) = items else { return Ok(()) };
            match (&**item, raw.payload) {
                (FieldKind::Int32 | FieldKind::Int64, Payload::Bytes(bytes)) => {
                    items.extend(wire::packed(bytes)?.into_iter().map(Value::from));
                }
                _ => items.push(value(table, field, item, raw, depth)?),
            }
        }
        FieldKind::Map(item) => {
            let entries = object.entry(&*field.json_name).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(entries) = entries else { return Ok(()) };
            let (key, entry) = entry(table, field, item, raw.bytes()?, depth)?;
            entries.insert(key, entry);
        }
        kind => {
            let decoded = value(table, field, kind, raw, depth)?;
            object.insert(field.json_name.to_string(), decoded);
        }
    }
    Ok(())
}

/// Named list types that are messages of their own.
pub(super) fn is_wrapped(field: &Field) -> bool {
    field.go_type.as_deref().is_some_and(|name| name.ends_with(".Verbs"))
}

fn list_message(table: &Table, item: &FieldKind, bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
    let items = wire::fields(bytes).map(|raw| scalar(table, item, &raw?, depth));
    items.collect::<Result<Vec<_>, _>>().map(Value::Array)
}

/// A map entry: a message of a key and a value.
fn entry(
    table: &Table,
    field: &Field,
    item: &FieldKind,
    bytes: &[u8],
    depth: usize,
) -> Result<(String, Value), DecodeError> {
    let (mut key, mut entry) = (String::new(), None);
    for raw in wire::fields(bytes) {
        let raw = raw?;
        match raw.tag {
            1 => key = raw.text()?.to_owned(),
            2 => {
                entry = Some(match item {
                    FieldKind::List(item) => list_message(table, item, raw.bytes()?, depth)?,
                    item => value(table, field, item, &raw, depth)?,
                });
            }
            _ => {}
        }
    }
    Ok((key, entry.unwrap_or_else(|| empty(item))))
}

/// What an entry without a value stands for.
fn empty(kind: &FieldKind) -> Value {
    match kind {
        FieldKind::String | FieldKind::Bytes => Value::String(String::new()),
        FieldKind::Quantity => Value::String("0".to_owned()),
        FieldKind::Int32 | FieldKind::Int64 | FieldKind::Double | FieldKind::IntOrString => Value::from(0),
        FieldKind::Bool => Value::Bool(false),
        FieldKind::List(_) => Value::Array(Vec::new()),
        _ => Value::Object(Map::new()),
    }
}

fn value(
    table: &Table,
    field: &Field,
    kind: &FieldKind,
    raw: &RawField<'_>,
    depth: usize,
) -> Result<Value, DecodeError> {
    match kind {
        FieldKind::Either(id) => either(table, field, *id, raw.bytes()?, depth),
        kind => scalar(table, kind, raw, depth),
    }
}

fn scalar(table: &Table, kind: &FieldKind, raw: &RawField<'_>, depth: usize) -> Result<Value, DecodeError> {
    Ok(match kind {
        FieldKind::String => Value::String(raw.text()?.to_owned()),
        FieldKind::Int32 => Value::from(raw.number()? as i32),
        FieldKind::Int64 => Value::from(raw.number()?),
        FieldKind::Bool => Value::Bool(raw.number()? != 0),
        FieldKind::Double => match raw.payload {
            Payload::Fixed64(bytes) => Value::from(f64::from_le_bytes(bytes)),
            Payload::Fixed32(bytes) => Value::from(f64::from(f32::from_le_bytes(bytes))),
            _ => return Err(broken(format!("proto: wrong wireType for field {}", raw.tag))),
        },
        FieldKind::Bytes => Value::String(base64::engine::general_purpose::STANDARD.encode(raw.bytes()?)),
        FieldKind::Quantity => {
            let text = first(raw.bytes()?, 1)?.map(|raw| raw.text()).transpose()?.unwrap_or_default();
            let quantity: Result<pagurus_controlplane_api::quantity::Quantity, _> =
                (if text.is_empty() { "0" } else { text }).parse();
            Value::String(quantity.map_err(|error| broken(error.to_string()))?.to_string())
        }
        FieldKind::IntOrString => int_or_string(raw.bytes()?)?,
        FieldKind::Time => time(raw.bytes()?, pagurus_controlplane_api::time::format)?,
        FieldKind::MicroTime => time(raw.bytes()?, pagurus_controlplane_api::time::format_micro)?,
        FieldKind::Duration => {
            let nanos = first(raw.bytes()?, 1)?.map(|raw| raw.number()).transpose()?.unwrap_or_default();
            Value::String(go_duration(nanos))
        }
        FieldKind::Raw | FieldKind::Json => match first(raw.bytes()?, 1)? {
            Some(json) if !json.bytes()?.is_empty() => serde_json::from_slice(json.bytes()?)
                .map_err(|error| broken(format!("embedded JSON: {error}")))?,
            _ => Value::Null,
        },
        FieldKind::Object(id) => Value::Object(message(table, *id, raw.bytes()?, depth)?),
        FieldKind::Either(_) | FieldKind::List(_) | FieldKind::Map(_) => {
            return Err(broken("proto: a list of lists has no wire form"));
        }
    })
}

/// The last occurrence of a field.
fn first(bytes: &[u8], tag: u32) -> Result<Option<RawField<'_>>, DecodeError> {
    let mut found = None;
    for raw in wire::fields(bytes) {
        let raw = raw?;
        if raw.tag == tag {
            found = Some(raw);
        }
    }
    Ok(found)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, DecodeError> {
    let is_text = first(bytes, 1)?.map(|raw| raw.number()).transpose()?.unwrap_or_default() == 1;
    Ok(if is_text {
        Value::String(first(bytes, 3)?.map(|raw| raw.text()).transpose()?.unwrap_or_default().to_owned())
    } else {
        Value::from(first(bytes, 2)?.map(|raw| raw.number()).transpose()?.unwrap_or_default() as i32)
    })
}

fn time(bytes: &[u8], format: fn(Timestamp) -> String) -> Result<Value, DecodeError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let number = |tag| -> Result<i64, DecodeError> {
        Ok(first(bytes, tag)?.map(|raw| raw.number()).transpose()?.unwrap_or_default())
    };
    let (seconds, nanos) = (number(1)?, number(2)? as i32);
    let time = Timestamp::new(seconds, nanos).map_err(|error| broken(format!("time: {error}")))?;
    Ok(Value::String(format(time)))
}

/// Go's text of a duration: `1h2m3.5s`, `1.5ms`, `0s`.
pub(super) fn go_duration(nanos: i64) -> String {
    let whole = SignedDuration::from_nanos(nanos);
    let sign = if whole.is_negative() { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let (whole, rest) = (value / unit, value % unit);
        if rest == 0 {
            whole.to_string()
        } else {
            format!("{whole}.{rest:0width$}", width = unit.ilog10() as usize).trim_end_matches('0').to_owned()
        }
    };
    match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{n}ns"),
        1_000..1_000_000 => format!("{sign}{}\u{b5}s", fraction(n, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(n, 1_000_000)),
        _ => {
            let (minutes, seconds) = (n / 60_000_000_000, n % 60_000_000_000);
            let seconds = fraction(seconds, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// The three forms of a JSON schema's "this or that", told apart by the field that holds them.
fn either(
    table: &Table,
    field: &Field,
    id: TypeId,
    bytes: &[u8],
    depth: usize,
) -> Result<Value, DecodeError> {
    let (mut schema, mut items, mut allows) = (None, Vec::new(), false);
    let bool_form = is_bool_form(field);
    for raw in wire::fields(bytes) {
        let raw = raw?;
        match (bool_form, raw.tag) {
            (true, 1) => allows = raw.number()? != 0,
            (true, 2) | (false, 1) => schema = Some(Value::Object(message(table, id, raw.bytes()?, depth)?)),
            (false, 2) if is_text_form(field) => items.push(Value::String(raw.text()?.to_owned())),
            (false, 2) => items.push(Value::Object(message(table, id, raw.bytes()?, depth)?)),
            _ => {}
        }
    }
    Ok(match schema {
        Some(schema) => schema,
        None if bool_form => Value::Bool(allows),
        None => Value::Array(items),
    })
}

/// `JSONSchemaPropsOrBool`.
pub(super) fn is_bool_form(field: &Field) -> bool {
    matches!(&*field.json_name, "additionalProperties" | "additionalItems")
}

/// `JSONSchemaPropsOrStringArray`.
pub(super) fn is_text_form(field: &Field) -> bool {
    &*field.json_name == "dependencies"
}
