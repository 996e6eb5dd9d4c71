//! Scalars with a syntax of their own: quantities, times, base64, numbers-or-strings. It must not know of objects.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
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
    /// Decoding stops here: the value (first) is not of the Go type (second) that the field's own decoder wants.
    Wrong(String, &'static str),
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

/// The refusal of a list or an object.
pub(super) fn composite(kind: &FieldKind, what: &str) -> Refusal {
    match kind {
        FieldKind::Quantity => Refusal::Fatal(quantity_format()),
        FieldKind::IntOrString => Refusal::Wrong(what.to_owned(), "int32"),
        FieldKind::Time | FieldKind::MicroTime | FieldKind::Duration => {
            Refusal::Wrong(what.to_owned(), "string")
        }
        _ => Refusal::Mistyped(what.to_owned()),
    }
}

/// What is wrong with a value that a kind's own decoder reads, alone and not as a field of something.
pub(crate) fn objection(kind: &FieldKind, value: &Value) -> Option<String> {
    let refusal = match value {
        Value::Null => return None,
        Value::Array(_) => composite(kind, "array"),
        Value::Object(_) => composite(kind, "object"),
        Value::Bool(b) => convert(kind, Scalar::Bool(*b)).err()?,
        Value::Number(number) => convert(kind, Scalar::Number(number.clone())).err()?,
        Value::String(text) => convert(kind, Scalar::Text(text.clone())).err()?,
    };
    let alone =
        |what: &str, wanted: &str| format!("json: cannot unmarshal {what} into Go value of type {wanted}");
    Some(match refusal {
        Refusal::Noted(message) | Refusal::Fatal(message) => message,
        Refusal::Wrong(what, wanted) => alone(&what, wanted),
        Refusal::Mistyped(what) => alone(&what, "string"),
    })
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
    match scalar {
        Scalar::Text(text) => Ok(Value::String(text)),
        Scalar::Number(number) => match number.as_i64() {
            Some(n) if i32::try_from(n).is_ok() => Ok(Value::Number(number)),
            _ => Err(Refusal::Wrong(format!("number {number}"), "int32")),
        },
        Scalar::Bool(_) => Err(Refusal::Wrong("bool".to_owned(), "int32")),
    }
}

fn time(layout: Layout, scalar: Scalar) -> Result<Value, Refusal> {
    match scalar {
        Scalar::Text(text) => clock::canonical(layout, &text).map(Value::String).map_err(Refusal::Fatal),
        other => Err(Refusal::Wrong(other.describe().to_owned(), "string")),
    }
}

/// Base64 as it is written back: padded, without line breaks.
fn bytes(text: String) -> Result<Value, Refusal> {
    let lenient = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let plain = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], "") } else { text.clone() };
    match GeneralPurpose::new(&alphabet::STANDARD, lenient).decode(&plain) {
        Ok(decoded) => Ok(Value::String(STANDARD.encode(decoded))),
        Err(_) => Err(Refusal::Noted(format!(
            "illegal base64 data at input byte {}",
            first_bad_byte(text.as_bytes())
        ))),
    }
}

/// Where the reference implementation's decoder gives up.
fn first_bad_byte(text: &[u8]) -> usize {
    let digit = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    let skip = |mut at: usize| {
        while matches!(text.get(at), Some(b'\n' | b'\r')) {
            at += 1;
        }
        at
    };
    let (mut at, mut in_quantum) = (0, 0);
    loop {
        match text.get(at) {
            None => return at - in_quantum,
            Some(b'\n' | b'\r') => at += 1,
            Some(b) if digit(*b) => {
                at += 1;
                in_quantum = (in_quantum + 1) % 4;
            }
            Some(b'=') if in_quantum == 3 => return skip(at + 1),
            Some(b'=') if in_quantum == 2 => {
                let second = skip(at + 1);
                return match text.get(second) {
                    None => text.len(),
                    Some(b'=') => skip(second + 1),
                    Some(_) => second - 1,
                };
            }
            Some(_) => return at,
        }
    }
}
