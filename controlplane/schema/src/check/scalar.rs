//! Scalars with a syntax of their own: quantities, times, base64, numbers-or-strings. It must not know of objects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pagurus_controlplane_api::quantity::Quantity;
use serde_json::Value;

use super::clock::{self, Layout};
use crate::table::FieldKind;

/// A scalar as it came, before anybody knows what it should be.
#[derive(Debug, Clone)]
pub(super) enum Scalar {
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
}

/// Why a scalar is refused.
pub(super) enum Refusal {
    /// The value is of another type: what it is, in Go's words.
    Mistyped(String),
    /// Noted, decoding goes on.
    Noted(String),
    /// Decoding stops here with this message.
    Fatal(String),
}

impl Scalar {
    fn describe(&self) -> &'static str {
        match self {
            Scalar::Text(_) => "string",
            Scalar::Number(_) => "number",
            Scalar::Bool(_) => "bool",
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Scalar::Text(text) => Value::String(text),
            Scalar::Number(number) => Value::Number(number),
            Scalar::Bool(b) => Value::Bool(b),
        }
    }
}

/// Takes a scalar as a value of `kind`.
pub(super) fn convert(kind: &FieldKind, scalar: Scalar) -> Result<Value, Refusal> {
    match (kind, scalar) {
        (FieldKind::String, Scalar::Text(text)) | (FieldKind::Duration, Scalar::Text(text)) => {
            Ok(Value::String(text))
        }
        (FieldKind::Bool, Scalar::Bool(b)) => Ok(Value::Bool(b)),
        (FieldKind::Int32, Scalar::Number(number)) => match number.as_i64() {
            Some(n) if i32::try_from(n).is_ok() => Ok(Value::Number(number)),
            _ => Err(Refusal::Mistyped(format!("number {number}"))),
        },
        (FieldKind::Int64, Scalar::Number(number)) => match number.as_i64() {
            Some(_) => Ok(Value::Number(number)),
            None => Err(Refusal::Mistyped(format!("number {number}"))),
        },
        (FieldKind::Double, Scalar::Number(number)) => Ok(Value::Number(number)),
        (FieldKind::Bytes, Scalar::Text(text)) => bytes(text),
        (FieldKind::Quantity, scalar) => quantity(&scalar.into_value()),
        (FieldKind::IntOrString, scalar) => int_or_string(scalar),
        (FieldKind::Time, scalar) => time(Layout::Seconds, scalar),
        (FieldKind::MicroTime, scalar) => time(Layout::Micros, scalar),
        (FieldKind::Json | FieldKind::Either(_) | FieldKind::Raw, scalar) => Ok(scalar.into_value()),
        (_, scalar) => Err(Refusal::Mistyped(scalar.describe().to_owned())),
    }
}

/// The message for a list or an object where a scalar with its own decoder is expected; `None` if the kind has none.
pub(super) fn not_a_scalar(kind: &FieldKind, what: &str) -> Option<String> {
    match kind {
        FieldKind::Quantity => Some(quantity_format()),
        FieldKind::IntOrString => Some(format!("json: cannot unmarshal {what} into Go value of type int32")),
        FieldKind::Time | FieldKind::MicroTime | FieldKind::Duration => {
            Some(format!("json: cannot unmarshal {what} into Go value of type string"))
        }
        _ => None,
    }
}

fn quantity_format() -> String {
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".to_owned()
}

fn quantity(value: &Value) -> Result<Value, Refusal> {
    if value.is_boolean() {
        return Err(Refusal::Fatal(quantity_format()));
    }
    match Quantity::from_json(value) {
        Ok(quantity) => Ok(Value::String(quantity.to_string())),
        Err(error) => Err(Refusal::Fatal(error.to_string())),
    }
}

fn int_or_string(scalar: Scalar) -> Result<Value, Refusal> {
    let refused = |what: String| {
        Err(Refusal::Fatal(format!("json: cannot unmarshal {what} into Go value of type int32")))
    };
    match scalar {
        Scalar::Text(text) => Ok(Value::String(text)),
        Scalar::Number(number) => match number.as_i64() {
            Some(n) if i32::try_from(n).is_ok() => Ok(Value::Number(number)),
            _ => refused(format!("number {number}")),
        },
        Scalar::Bool(_) => refused("bool".to_owned()),
    }
}

fn time(layout: Layout, scalar: Scalar) -> Result<Value, Refusal> {
    match scalar {
        Scalar::Text(text) => clock::canonical(layout, &text).map(Value::String).map_err(Refusal::Fatal),
        other => Err(Refusal::Fatal(format!(
            "json: cannot unmarshal {} into Go value of type string",
            other.describe()
        ))),
    }
}

/// Base64, line breaks ignored, written back without them.
fn bytes(text: String) -> Result<Value, Refusal> {
    let plain = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], "") } else { text };
    match STANDARD.decode(&plain) {
        Ok(_) => Ok(Value::String(plain)),
        Err(error) => {
            Err(Refusal::Noted(format!("illegal base64 data at input byte {}", error_offset(&error, &plain))))
        }
    }
}

fn error_offset(error: &base64::DecodeError, text: &str) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len() / 4 * 4,
    }
}
