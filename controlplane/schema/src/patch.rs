//! Patches: what a request's patch document makes of an object. They must not know of storage or of who asks.

pub(crate) mod go_order;
pub mod json_patch;
pub mod merge;
pub mod shown;
pub mod strategic;
pub mod unstructured;

use serde_json::Value;

use crate::codec::{self, Decoded};

/// Why a patch cannot be applied. The variant says which answer the client gets, the text what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: 400 with this message.
    #[error("{0}")]
    BadRequest(String),
    /// An operation does not fit the object: 422 with the generic message (the text is for logs).
    #[error("{0}")]
    Unprocessable(String),
    /// The patch contradicts itself: 500 with this message and no reason, as the reference implementation answers.
    #[error("{0}")]
    Inconsistent(String),
    /// More operations than allowed: 413 with this message.
    #[error("{0}")]
    TooLarge(String),
}

/// Reads a patch document (JSON), noting keys given twice.
pub fn parse(bytes: &[u8]) -> Result<Decoded, PatchError> {
    codec::json::decode(bytes).map_err(|_| PatchError::BadRequest("invalid JSON patch".to_owned()))
}

/// What a value is, in the words of a decoding error.
fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as Go's `%v` prints it; some messages show patches so.
pub fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(printed).collect::<Vec<_>>().join(" ")),
        Value::Object(entries) => {
            let parts: Vec<String> =
                entries.iter().map(|(key, value)| format!("{key}:{}", printed(value))).collect();
            format!("map[{}]", parts.join(" "))
        }
        other => other.to_string(),
    }
}
