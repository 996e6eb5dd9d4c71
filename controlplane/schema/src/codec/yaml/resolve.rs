//! What a plain scalar means (YAML 1.1, as the reference implementation reads it). It must not know of documents.

use serde_json::{Number, Value};

/// A plain scalar as a JSON value.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let first = text.as_bytes()[0];
    if (first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.'))
        && let Some(number) = number(text)
    {
        return Value::Number(number);
    }
    Value::String(text.to_owned())
}

/// Whether a plain scalar of this text would be read as something else than a string.
pub(super) fn is_ambiguous(text: &str) -> bool {
    !matches!(plain(text), Value::String(_)) || text == "<<" || text == "=" || is_timestamp(text)
}

/// A date, or a date and a time.
fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |from: usize, most: usize| {
        bytes.iter().skip(from).take(most).take_while(|b| b.is_ascii_digit()).count()
    };
    if digits(0, 4) != 4 || bytes.get(4) != Some(&b'-') {
        return false;
    }
    let month = digits(5, 2);
    let day_at = 5 + month + 1;
    if month == 0 || bytes.get(5 + month) != Some(&b'-') || digits(day_at, 2) == 0 {
        return false;
    }
    let rest = &text[day_at + digits(day_at, 2)..];
    rest.is_empty() && month == 2
        || rest.starts_with(['T', 't', ' '])
            && rest[1..].starts_with(|c: char| c.is_ascii_digit())
            && rest.contains(':')
}

fn number(text: &str) -> Option<Number> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(n) = integer(&plain) {
        return Some(n);
    }
    let shaped = plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !shaped || !plain.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    plain.parse::<f64>().ok().and_then(Number::from_f64)
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = match digits.get(..2) {
        Some("0x" | "0X") => u64::from_str_radix(&digits[2..], 16).ok()?,
        Some("0b" | "0B") => u64::from_str_radix(&digits[2..], 2).ok()?,
        Some("0o" | "0O") => u64::from_str_radix(&digits[2..], 8).ok()?,
        Some(two) if two.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) => {
            u64::from_str_radix(digits, 8).ok()?
        }
        _ if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    if !negative {
        return Some(magnitude.into());
    }
    i64::try_from(-i128::from(magnitude)).ok().map(Number::from)
}

/// A map key as JSON's string; the error names the kind of key that JSON cannot have.
pub(super) fn key(value: Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Number(n) => Ok(n.to_string()),
        Value::Null => Ok("null".to_owned()),
        Value::Array(_) => Err("sequence"),
        Value::Object(_) => Err("map"),
    }
}
