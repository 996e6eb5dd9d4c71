//! CBOR (RFC 8949) as Kubernetes speaks it (KEP-4222): the data model of JSON, written deterministically (RFC 8949, 4.2.1) below the tag
//! for self-described CBOR. Field names and strings are byte strings, as Go's strings need not be UTF-8; `[]byte` is a byte string below
//! tag 22 ("expected base64"). Text strings are read as well. It must not know of other formats, nor what the documents are for.

mod read;
mod write;

use serde_json::Value;

use super::{DecodeError, Decoded, Typed, typed};
use crate::check::{self, Walk};
use crate::table::{FieldKind, Table, TypeId};

/// What every document that is written begins with: the head of tag 55799. Documents without it are read too.
pub const MAGIC: &[u8] = &[0xd9, 0xd9, 0xf7];
/// Text encodings that a byte string would have in JSON: base64url, base64, hexadecimal (RFC 8949, 3.4.5.2).
const TAG_BASE64URL: u64 = 21;
const TAG_BASE64: u64 = 22;
const TAG_BASE16: u64 = 23;
/// Arrays, maps and tags nest at most so deep.
const MAX_DEPTH: usize = 64;

/// The major types, in the upper three bits of a head.
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

/// Decodes any document. Keys given twice are errors in this format, not objections.
///
/// # Errors
/// The bytes are no document, or not one of JSON's data model.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    Ok(Decoded { value: read::document(bytes)?, duplicate_fields: Vec::new() })
}

/// Decodes a document as an object of a type.
///
/// # Errors
/// The bytes are no document, or not one of the type.
pub fn decode_as(table: &Table, id: TypeId, bytes: &[u8]) -> Result<Typed, DecodeError> {
    let value = read::document(bytes)?;
    let mut walk = Walk::new(table);
    let value = check::run(&mut walk, &FieldKind::Object(id), value)
        .map_err(|error| DecodeError::Syntax(error.to_string()))?;
    let (strict, error) = walk.finish();
    typed(value, strict, error.map(|text| text.replacen("json:", "cbor:", 1)))
}

/// Encodes an object of a type.
pub fn encode(table: &Table, id: TypeId, value: &Value) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    write::typed(table, &FieldKind::Object(id), value, &mut out);
    out
}

/// Encodes a document by the `apiVersion` and `kind` that it has, or, if the table has no such kind, as it stands.
pub fn document(table: &Table, value: &Value) -> Vec<u8> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let kind = text("kind");
    let item = kind.strip_suffix("List").and_then(|of| table.kind_type(group, version, of));
    let mut out = MAGIC.to_vec();
    match (table.kind_type(group, version, kind), item) {
        (Some(id), _) => write::typed(table, &FieldKind::Object(id), value, &mut out),
        (None, Some(item)) if value.get("items").is_some() => write::list(table, item, value, &mut out),
        _ => write::plain(value, &mut out),
    }
    out
}

/// One event of a watch (of type `ADDED`, ...) about an encoded document, as it stands in an `application/cbor-seq` stream.
pub fn event(kind: &str, document: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(document.len() + 32);
    out.extend_from_slice(MAGIC);
    write::head(MAP, 2, &mut out);
    write::string("type", &mut out);
    write::string(kind, &mut out);
    write::string("object", &mut out);
    out.extend_from_slice(document);
    out
}

#[cfg(test)]
mod tests;
