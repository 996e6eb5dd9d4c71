//! From values to bytes: the shortest heads and floats, keys in the order of their bytes. It must not know documents.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{ARRAY, BYTES, MAP, NEGATIVE, SIMPLE, TAG, TAG_BASE64, UNSIGNED};
use crate::table::{FieldKind, Table, TypeId};

/// Writes the head of an item: its major type, and its length or number in as few bytes as can be.
pub(super) fn head(major: u8, number: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    let bytes = number.to_be_bytes();
    let (info, length) = match number {
        0..24 => return out.push(major | bytes[7]),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    out.push(major | info);
    out.extend_from_slice(&bytes[8 - length..]);
}

/// Writes a string as a byte string.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    head(BYTES, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Writes a value as it stands.
pub(super) fn plain(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(SIMPLE << 5 | 22),
        Value::Bool(value) => out.push(SIMPLE << 5 | 20 | u8::from(*value)),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => head(UNSIGNED, number, out),
            (None, Some(number)) => head(NEGATIVE, (-1 - number) as u64, out),
            (None, None) => float(number.as_f64().unwrap_or_default(), out),
        },
        Value::String(text) => string(text, out),
        Value::Array(items) => {
            head(ARRAY, items.len() as u64, out);
            items.iter().for_each(|item| plain(item, out));
        }
        Value::Object(entries) => map(entries, out, |_, value, out| plain(value, out)),
    }
}

/// Writes a value of a kind; what is of another kind after all is written as it stands.
pub(super) fn typed(table: &Table, kind: &FieldKind, value: &Value, out: &mut Vec<u8>) {
    match (kind, value) {
        (FieldKind::Bytes, Value::String(text)) => match STANDARD.decode(text) {
            Ok(bytes) => {
                head(TAG, TAG_BASE64, out);
                head(BYTES, bytes.len() as u64, out);
                out.extend_from_slice(&bytes);
            }
            Err(_) => string(text, out),
        },
        (FieldKind::Double, Value::Number(number)) => float(number.as_f64().unwrap_or_default(), out),
        (FieldKind::List(item), Value::Array(items)) => {
            head(ARRAY, items.len() as u64, out);
            items.iter().for_each(|value| typed(table, item, value, out));
        }
        (FieldKind::Map(item), Value::Object(entries)) => {
            map(entries, out, |_, value, out| typed(table, item, value, out));
        }
        (FieldKind::Object(id) | FieldKind::Either(id), Value::Object(entries)) => {
            let type_ = table.type_(*id);
            map(entries, out, |name, value, out| match type_.field(name) {
                Some(field) => typed(table, &field.kind, value, out),
                None => plain(value, out),
            });
        }
        (_, value) => plain(value, out),
    }
}

/// Writes a list of objects of a type.
pub(super) fn list(table: &Table, item: TypeId, value: &Value, out: &mut Vec<u8>) {
    let none = Map::new();
    map(value.as_object().unwrap_or(&none), out, |name, value, out| match (name, value) {
        ("items", Value::Array(items)) => {
            head(ARRAY, items.len() as u64, out);
            items.iter().for_each(|value| typed(table, &FieldKind::Object(item), value, out));
        }
        (_, value) => plain(value, out),
    });
}

/// Writes a map, the entries in the order of their keys' encoded bytes: the shorter first, as the length comes before the text.
fn map(entries: &Map<String, Value>, out: &mut Vec<u8>, write: impl Fn(&str, &Value, &mut Vec<u8>)) {
    head(MAP, entries.len() as u64, out);
    let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
    entries.sort_by(|(a, _), (b, _)| (a.len(), a.as_bytes()).cmp(&(b.len(), b.as_bytes())));
    for (name, value) in entries {
        string(name, out);
        write(name, value, out);
    }
}

/// Writes a number with as few bits as keep its value.
fn float(number: f64, out: &mut Vec<u8>) {
    let single = number as f32;
    if f64::from(single).to_bits() != number.to_bits() {
        out.push(SIMPLE << 5 | 27);
        return out.extend_from_slice(&number.to_bits().to_be_bytes());
    }
    match half(single) {
        Some(bits) => {
            out.push(SIMPLE << 5 | 25);
            out.extend_from_slice(&bits.to_be_bytes());
        }
        None => {
            out.push(SIMPLE << 5 | 26);
            out.extend_from_slice(&single.to_bits().to_be_bytes());
        }
    }
}

/// The 16 bits of a half-precision float of the same value, if there is one.
fn half(number: f32) -> Option<u16> {
    let bits = number.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let (exponent, fraction) = ((bits >> 23 & 0xff) as i32 - 127, bits & 0x7f_ffff);
    match exponent {
        _ if bits << 1 == 0 => Some(sign),
        -14..=15 if fraction & 0x1fff == 0 => {
            Some(sign | ((exponent + 15) as u16) << 10 | (fraction >> 13) as u16)
        }
        // Smaller ones have no leading one of their own.
        -24..=-15 => {
            let whole = fraction | 0x80_0000;
            let shift = (-exponent - 1) as u32;
            (whole & ((1 << shift) - 1) == 0).then(|| sign | (whole >> shift) as u16)
        }
        _ => None,
    }
}
