//! Wire formats: bytes to values and back. It must not know what is done with the values.

pub mod cbor;
pub mod json;
pub mod protobuf;
mod syntax;
pub mod yaml;

use serde_json::Value;

use crate::check::Strict;
use crate::table::{Table, TypeId};

/// A format of a request or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/cbor`
    Cbor,
}

/// A decoded document.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The value; of keys that were given twice, the last.
    pub value: Value,
    /// Paths of the keys that were given twice, in document order.
    pub duplicate_fields: Vec<String>,
}

/// A document decoded as an object of a type.
#[derive(Debug, Clone, PartialEq)]
pub struct Typed {
    /// The value: unknown fields and nulls pruned, quantities and times canonical.
    pub value: Value,
    /// What strict decoding objects to, in document order: `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
    pub strict: Vec<String>,
}

/// The bytes are not a document, or not one of the type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not well-formed; the message is the one clients know.
    #[error("{0}")]
    Syntax(String),
    /// Well-formed, but a value is of another type than its field.
    #[error("{0}")]
    Type(String),
}

/// Decodes a document as an object of a type.
pub fn decode_as(table: &Table, id: TypeId, format: Format, bytes: &[u8]) -> Result<Typed, DecodeError> {
    match format {
        Format::Json => json::decode_as(table, id, bytes),
        Format::Yaml => yaml::decode_as(table, id, bytes),
        Format::Cbor => cbor::decode_as(table, id, bytes),
    }
}

fn typed(value: Value, strict: Vec<Strict>, error: Option<String>) -> Result<Typed, DecodeError> {
    match error {
        Some(message) => Err(DecodeError::Type(message)),
        None => Ok(Typed { value, strict: strict.iter().map(Strict::to_string).collect() }),
    }
}

fn duplicates(strict: Vec<Strict>) -> Vec<String> {
    strict
        .into_iter()
        .filter_map(|s| if let Strict::Duplicate(path) = s { Some(path) } else { None })
        .collect()
}
