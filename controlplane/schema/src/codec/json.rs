//! JSON to values and back. It must not know of other formats.

use serde_json::Value;

use super::{DecodeError, Decoded, Typed, duplicates, syntax, typed};
use crate::check::{self, Walk};
use crate::table::{FieldKind, Table, TypeId};

/// Decodes any JSON document, noting keys given twice.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut walk = Walk::new(Table::builtin()).with_untyped_duplicates();
    let value = walk_bytes(&mut walk, &FieldKind::Json, bytes)?;
    let (strict, _) = walk.finish();
    Ok(Decoded { value, duplicate_fields: duplicates(strict) })
}

/// Decodes a JSON document as an object of a type, in one pass.
pub fn decode_as(table: &Table, id: TypeId, bytes: &[u8]) -> Result<Typed, DecodeError> {
    let mut walk = Walk::new(table);
    let value = walk_bytes(&mut walk, &FieldKind::Object(id), bytes)?;
    let (strict, error) = walk.finish();
    typed(value, strict, error)
}

/// Encodes a value. Keys come out sorted.
pub fn encode(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn walk_bytes(walk: &mut Walk<'_>, kind: &FieldKind, bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let outcome = check::run(walk, kind, &mut input).and_then(|value| input.end().map(|()| value));
    outcome
        .map_err(|error| DecodeError::Syntax(syntax::first_error(bytes).unwrap_or_else(|| error.to_string())))
}
