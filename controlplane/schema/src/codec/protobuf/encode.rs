//! From an object to a message, by the tags of the type table: fields in the order of their tags; a field that is no pointer is written
//! even when it is zero, as the Go types do.

use super::decode::{is_bool_form, is_text_form, is_wrapped};
use super::wire::{put_bytes, put_double, put_number};
use crate::table::{Field, FieldKind, Presence, Table, TypeId};
use base64::Engine as _;
use serde_json::{Map, Value};

/// Encodes a message of a type.
pub(super) fn message(table: &Table, id: TypeId, value: &Value) -> Vec<u8> {
    let none = Map::new();
    let object = value.as_object().unwrap_or(&none);
    let mut fields: Vec<&Field> =
        table.type_(id).fields.iter().filter(|f| !f.proto_path.is_empty()).collect();
    fields.sort_by(|a, b| a.proto_path.cmp(&b.proto_path));
    let mut out = Vec::new();
    part(table, &fields, 0, object, &mut out);
    out
}

/// Writes fields whose paths agree up to `depth`; those with more to their paths go into embedded messages.
fn part(table: &Table, fields: &[&Field], depth: usize, object: &Map<String, Value>, out: &mut Vec<u8>) {
    let mut rest = fields;
    while let Some(first) = rest.first() {
        let tag = first.proto_path[depth];
        let same = rest.iter().take_while(|f| f.proto_path[depth] == tag).count();
        let (group, after) = rest.split_at(same);
        rest = after;
        if first.proto_path.len() == depth + 1 {
            field(table, first, tag, object.get(&*first.json_name), out);
        } else {
            let mut inner = Vec::new();
            part(table, group, depth + 1, object, &mut inner);
            put_bytes(out, tag, &inner);
        }
    }
}

fn field(table: &Table, field: &Field, tag: u32, value: Option<&Value>, out: &mut Vec<u8>) {
    let value = value.filter(|v| !v.is_null());
    match (&field.kind, value) {
        (FieldKind::List(item), Some(Value::Array(items))) if is_wrapped(field) => {
            let mut inner = Vec::new();
            items.iter().for_each(|v| one(table, field, item, 1, v, &mut inner));
            put_bytes(out, tag, &inner);
        }
        (FieldKind::List(item), Some(Value::Array(items))) => {
            items.iter().for_each(|v| one(table, field, item, tag, v, out))
        }
        (FieldKind::Map(item), Some(Value::Object(entries))) => {
            // serde_json's map is sorted by key, as Go writes them.
            for (key, value) in entries {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                match (&**item, value) {
                    (FieldKind::List(item), Value::Array(items)) => {
                        let mut inner = Vec::new();
                        items.iter().for_each(|v| one(table, field, item, 1, v, &mut inner));
                        put_bytes(&mut entry, 2, &inner);
                    }
                    (item, value) => one(table, field, item, 2, value, &mut entry),
                }
                put_bytes(out, tag, &entry);
            }
        }
        (FieldKind::List(_) | FieldKind::Map(_), _) => {}
        (kind, Some(value)) => one(table, field, kind, tag, value, out),
        (kind, None) if matches!(field.presence, Presence::Always | Presence::OmitEmpty) => {
            zero(table, kind, tag, out)
        }
        (_, None) => {}
    }
}

/// A field that is no pointer and not set.
fn zero(table: &Table, kind: &FieldKind, tag: u32, out: &mut Vec<u8>) {
    match kind {
        FieldKind::Int32 | FieldKind::Int64 | FieldKind::Bool => put_number(out, tag, 0),
        FieldKind::Double => put_double(out, tag, 0.0),
        FieldKind::Object(id) => put_bytes(out, tag, &message(table, *id, &Value::Null)),
        FieldKind::IntOrString => put_bytes(out, tag, &int_or_string(&Value::from(0))),
        FieldKind::String | FieldKind::Time | FieldKind::MicroTime | FieldKind::Raw => {
            put_bytes(out, tag, b"")
        }
        FieldKind::Quantity => {
            let mut inner = Vec::new();
            put_bytes(&mut inner, 1, b"0");
            put_bytes(out, tag, &inner);
        }
        FieldKind::Duration => {
            let mut inner = Vec::new();
            put_number(&mut inner, 1, 0);
            put_bytes(out, tag, &inner);
        }
        FieldKind::Bytes
        | FieldKind::Json
        | FieldKind::Either(_)
        | FieldKind::List(_)
        | FieldKind::Map(_) => {}
    }
}

fn one(table: &Table, field: &Field, kind: &FieldKind, tag: u32, value: &Value, out: &mut Vec<u8>) {
    let wrapped = |out: &mut Vec<u8>, write: &dyn Fn(&mut Vec<u8>)| {
        let mut inner = Vec::new();
        write(&mut inner);
        put_bytes(out, tag, &inner);
    };
    match kind {
        FieldKind::String => put_bytes(out, tag, value.as_str().unwrap_or_default().as_bytes()),
        FieldKind::Int32 | FieldKind::Int64 => put_number(out, tag, value.as_i64().unwrap_or_default()),
        FieldKind::Bool => put_number(out, tag, value.as_bool().unwrap_or_default().into()),
        FieldKind::Double => put_double(out, tag, value.as_f64().unwrap_or_default()),
        FieldKind::Bytes => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default());
            put_bytes(out, tag, &bytes.unwrap_or_default());
        }
        FieldKind::Quantity => wrapped(out, &|inner| put_bytes(inner, 1, text(value).as_bytes())),
        FieldKind::IntOrString => put_bytes(out, tag, &int_or_string(value)),
        FieldKind::Time | FieldKind::MicroTime => {
            put_bytes(out, tag, &time(value, *kind == FieldKind::MicroTime))
        }
        FieldKind::Duration => {
            wrapped(out, &|inner| put_number(inner, 1, nanoseconds(value.as_str().unwrap_or_default())))
        }
        FieldKind::Raw | FieldKind::Json => {
            wrapped(out, &|inner| put_bytes(inner, 1, value.to_string().as_bytes()))
        }
        FieldKind::Object(id) => put_bytes(out, tag, &message(table, *id, value)),
        FieldKind::Either(id) => put_bytes(out, tag, &either(table, field, *id, value)),
        FieldKind::List(_) | FieldKind::Map(_) => {}
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn int_or_string(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, 1, i64::from(value.is_string()));
    put_number(&mut out, 2, value.as_i64().unwrap_or_default());
    put_bytes(&mut out, 3, value.as_str().unwrap_or_default().as_bytes());
    out
}

fn time(value: &Value, micro: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(time) = value.as_str().and_then(pagurus_controlplane_api::time::parse) {
        put_number(&mut out, 1, time.as_second());
        // Times with whole seconds carry no nanoseconds; others carry microseconds.
        put_number(&mut out, 2, if micro { i64::from(time.subsec_nanosecond()) / 1000 * 1000 } else { 0 });
    }
    out
}

/// Reads Go's text of a duration; what is none counts as zero (the structural check refused it before).
fn nanoseconds(text: &str) -> i64 {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().unwrap_or_default();
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..letters] {
                "h" => 3_600e9,
                "m" => 60e9,
                "s" => 1e9,
                "ms" => 1e6,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
                _ => 1.0,
            };
        rest = &rest[letters..];
    }
    (sign * total) as i64
}

fn either(table: &Table, field: &Field, id: TypeId, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match (is_bool_form(field), value) {
        (true, Value::Bool(allows)) => put_number(&mut out, 1, i64::from(*allows)),
        (true, schema) => {
            put_number(&mut out, 1, 1);
            put_bytes(&mut out, 2, &message(table, id, schema));
        }
        (false, Value::Array(items)) => {
            for item in items {
                match item {
                    Value::String(text) if is_text_form(field) => put_bytes(&mut out, 2, text.as_bytes()),
                    item => put_bytes(&mut out, 2, &message(table, id, item)),
                }
            }
        }
        (false, schema) => put_bytes(&mut out, 1, &message(table, id, schema)),
    }
    out
}
