//! Kubernetes' protobuf: an envelope (`k8s\0` and a `runtime.Unknown` that names the kind) around a message of the type table's tags.

mod decode;
mod document;
mod encode;
mod wire;

pub use document::{document, frame, item_head, list_head, message};

use super::{DecodeError, Typed};
use crate::check::levels_of;
use crate::normalize;
use crate::table::{Table, TypeId};
use serde_json::Value;

/// What every document begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Fields of `runtime.Unknown` and of its `TypeMeta`.
const UNKNOWN_TYPE_META: u32 = 1;
const UNKNOWN_RAW: u32 = 2;
const UNKNOWN_CONTENT_ENCODING: u32 = 3;
const UNKNOWN_CONTENT_TYPE: u32 = 4;
const TYPE_META_API_VERSION: u32 = 1;
const TYPE_META_KIND: u32 = 2;
/// Messages nest at most so deep; deeper ones are an attack on the stack.
const MAX_DEPTH: usize = 100;

/// A document's envelope, taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `GROUP/VERSION`; empty if it does not say.
    pub api_version: String,
    /// Empty if it does not say.
    pub kind: String,
    /// The message.
    pub raw: &'a [u8],
}

/// Takes the envelope off.
///
/// # Errors
/// The bytes are no envelope.
pub fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let Some(unknown) = bytes.strip_prefix(MAGIC) else {
        return Err(DecodeError::Syntax(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
                .to_owned(),
        ));
    };
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    for field in wire::fields(unknown) {
        let field = field?;
        match field.tag {
            UNKNOWN_TYPE_META => {
                for part in wire::fields(field.bytes()?) {
                    let part = part?;
                    match part.tag {
                        TYPE_META_API_VERSION => envelope.api_version = part.text()?.to_owned(),
                        TYPE_META_KIND => envelope.kind = part.text()?.to_owned(),
                        _ => {}
                    }
                }
            }
            UNKNOWN_RAW => envelope.raw = field.bytes()?,
            _ => {}
        }
    }
    Ok(envelope)
}

/// Decodes a document as an object of a type. Fields that the table does not know are left out: protobuf has no strictness.
///
/// # Errors
/// The bytes are not a document of the type.
pub fn decode_as(table: &Table, id: TypeId, bytes: &[u8]) -> Result<Typed, DecodeError> {
    let envelope = envelope(bytes)?;
    let mut value = decode::message(table, id, envelope.raw, MAX_DEPTH)?;
    for (name, text) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
        if !text.is_empty() {
            value.insert(name.to_owned(), Value::String(text));
        }
    }
    let mut value = Value::Object(value);
    if levels_of(&value) > crate::check::MOST_DEPTH {
        return Err(DecodeError::Syntax("proto: message nests too deep".to_owned()));
    }
    normalize(table, id, &mut value);
    Ok(Typed { value, strict: Vec::new() })
}

/// Encodes an object of a type, in its envelope.
pub fn encode(table: &Table, id: TypeId, value: &Value) -> Vec<u8> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    seal(text("apiVersion"), text("kind"), &encode::message(table, id, value))
}

/// What follows the message in an envelope: neither an encoding nor a type of the content.
pub const TAIL: &[u8] =
    &[(UNKNOWN_CONTENT_ENCODING << 3 | 2) as u8, 0, (UNKNOWN_CONTENT_TYPE << 3 | 2) as u8, 0];

/// Puts a message into its envelope.
fn seal(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut document = envelope_head(api_version, kind);
    document.reserve_exact(raw.len() + TAIL.len() + 6);
    wire::put_bytes(&mut document, UNKNOWN_RAW, raw);
    document.extend_from_slice(TAIL);
    document
}

/// The envelope up to the message.
fn envelope_head(api_version: &str, kind: &str) -> Vec<u8> {
    let mut type_meta = Vec::new();
    wire::put_bytes(&mut type_meta, TYPE_META_API_VERSION, api_version.as_bytes());
    wire::put_bytes(&mut type_meta, TYPE_META_KIND, kind.as_bytes());
    let mut document = MAGIC.to_vec();
    wire::put_bytes(&mut document, UNKNOWN_TYPE_META, &type_meta);
    document
}

#[cfg(test)]
mod tests;
