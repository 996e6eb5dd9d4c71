//! From bytes to values: one pass, every length checked against what is there. It must not know types.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Number, Value};

use super::{
    ARRAY, BYTES, MAP, MAX_DEPTH, NEGATIVE, TAG, TAG_BASE16, TAG_BASE64, TAG_BASE64URL, TEXT, UNSIGNED,
};
use crate::codec::DecodeError;

/// Length of what has none in its head: it ends with a break.
const INDEFINITE: u8 = 31;
const BREAK: u8 = 0xff;
/// Times as texts and as seconds; numbers of any size.
const TAG_TIME_TEXT: u64 = 0;
const TAG_TIME_SECONDS: u64 = 1;
const TAG_BIGNUM: u64 = 2;
const TAG_NEGATIVE_BIGNUM: u64 = 3;

/// The one item that the bytes are.
pub(super) fn document(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = Reader { bytes, at: 0, depth: 0 };
    let value = reader.value(None)?;
    match bytes.len() - reader.at {
        0 => Ok(value),
        more => wrong(format!("{more} bytes of extraneous data starting at index {}", reader.at)),
    }
}

fn wrong<T>(what: impl std::fmt::Display) -> Result<T, DecodeError> {
    Err(DecodeError::Syntax(format!("cbor: {what}")))
}

fn ended() -> DecodeError {
    DecodeError::Syntax("unexpected EOF".to_owned())
}

/// The first bytes of an item.
struct Head {
    major: u8,
    /// The lower five bits.
    info: u8,
    /// The number they stand for or that follows them.
    number: u64,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// The next item; the innermost tag of those around it that says how bytes are written as text.
    fn value(&mut self, text_form: Option<u64>) -> Result<Value, DecodeError> {
        let head = self.head()?;
        match head.major {
            UNSIGNED => match i64::try_from(head.number) {
                Ok(number) => Ok(number.into()),
                Err(_) => wrong(format!("{} overflows Go's int64", head.number)),
            },
            NEGATIVE => match i64::try_from(head.number) {
                Ok(number) => Ok((-1 - number).into()),
                Err(_) => wrong(format!("-1-{} overflows Go's int64", head.number)),
            },
            BYTES | TEXT => self.string(&head, text_form).map(Value::String),
            ARRAY => self.nested(|reader| reader.array(&head, text_form)),
            MAP => self.nested(|reader| reader.map(&head, text_form)),
            TAG => self.nested(|reader| reader.tagged(head.number, text_form)),
            _ => self.simple(&head),
        }
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Value, DecodeError>,
    ) -> Result<Value, DecodeError> {
        if self.depth == MAX_DEPTH {
            return wrong(format!("exceeded max nested level {MAX_DEPTH}"));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or_else(ended)?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).map_err(|_| ended())?;
        let end = self.at.checked_add(length).ok_or_else(ended)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(ended)?;
        self.at = end;
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, DecodeError> {
        let first = self.byte()?;
        let (major, info) = (first >> 5, first & 0x1f);
        let number = match info {
            0..24 => u64::from(info),
            24..28 => {
                let bytes = self.take(1 << (info - 24))?;
                bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
            INDEFINITE if first == BREAK => return wrong("unexpected \"break\" code"),
            INDEFINITE if matches!(major, BYTES | TEXT | ARRAY | MAP) => 0,
            _ => return wrong(format!("invalid additional information {info} for type {major}")),
        };
        Ok(Head { major, info, number })
    }

    /// Whether the end of an item without a length has come.
    fn broken(&mut self) -> Result<bool, DecodeError> {
        let here = *self.bytes.get(self.at).ok_or_else(ended)? == BREAK;
        self.at += usize::from(here);
        Ok(here)
    }

    fn string(&mut self, head: &Head, text_form: Option<u64>) -> Result<String, DecodeError> {
        let mut joined = Vec::new();
        let bytes = if head.info == INDEFINITE {
            while !self.broken()? {
                let part = self.head()?;
                if part.major != head.major || part.info == INDEFINITE {
                    return wrong("wrong element in a string of indefinite length");
                }
                joined.extend_from_slice(self.take(part.number)?);
            }
            &joined
        } else {
            self.take(head.number)?
        };
        match text_form.filter(|_| head.major == BYTES) {
            Some(TAG_BASE64) => Ok(STANDARD.encode(bytes)),
            Some(TAG_BASE64URL) => Ok(URL_SAFE_NO_PAD.encode(bytes)),
            Some(_) => Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
            None => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(text.to_owned()),
                Err(_) => wrong("invalid UTF-8 string"),
            },
        }
    }

    fn array(&mut self, head: &Head, text_form: Option<u64>) -> Result<Value, DecodeError> {
        let mut items = Vec::new();
        while !self.finished(head, items.len())? {
            items.push(self.value(text_form)?);
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, head: &Head, text_form: Option<u64>) -> Result<Value, DecodeError> {
        let mut entries = Map::new();
        while !self.finished(head, entries.len())? {
            let key = self.head()?;
            if !matches!(key.major, BYTES | TEXT) {
                return wrong("a map's key is no string");
            }
            let key = self.string(&key, None)?;
            let value = self.value(text_form)?;
            let index = entries.len();
            if entries.contains_key(&key) {
                return wrong(format!("found duplicate map key {key:?} at map element index {index}"));
            }
            entries.insert(key, value);
        }
        Ok(Value::Object(entries))
    }

    /// Whether an array or a map of so many items or pairs is at its end.
    fn finished(&mut self, head: &Head, so_far: usize) -> Result<bool, DecodeError> {
        if head.info == INDEFINITE { self.broken() } else { Ok(so_far as u64 == head.number) }
    }

    fn tagged(&mut self, tag: u64, text_form: Option<u64>) -> Result<Value, DecodeError> {
        match tag {
            TAG_BASE64URL | TAG_BASE64 | TAG_BASE16 => self.value(Some(tag)),
            TAG_BIGNUM | TAG_NEGATIVE_BIGNUM => wrong("bignum is not supported"),
            TAG_TIME_TEXT => match self.value(None)? {
                Value::String(text) if pagurus_controlplane_api::time::parse(&text).is_some() => {
                    Ok(Value::String(text))
                }
                other => wrong(format!("cannot set {other} for time.Time: not an RFC 3339 time")),
            },
            TAG_TIME_SECONDS => {
                let seconds = self.value(None)?;
                match seconds.as_f64().and_then(instant) {
                    Some(text) => Ok(Value::String(text)),
                    None => wrong(format!("invalid content {seconds} of a tag for epoch-based time")),
                }
            }
            // What other tags mean is nothing to JSON: the content stands for itself.
            _ => self.value(text_form),
        }
    }

    fn simple(&mut self, head: &Head) -> Result<Value, DecodeError> {
        let float = match head.info {
            20 => return Ok(Value::Bool(false)),
            21 => return Ok(Value::Bool(true)),
            22 => return Ok(Value::Null),
            25 => half(head.number as u16),
            26 => f64::from(f32::from_bits(head.number as u32)),
            27 => f64::from_bits(head.number),
            _ => return wrong(format!("simple value {} is not recognized", head.number)),
        };
        match Number::from_f64(float) {
            Some(number) => Ok(Value::Number(number)),
            None => wrong("floating-point NaN and infinity are not supported"),
        }
    }
}

/// Seconds since 1970 as a time in text.
fn instant(seconds: f64) -> Option<String> {
    let nanoseconds = (seconds * 1e9).round();
    let instant = jiff::Timestamp::from_nanosecond(nanoseconds as i128).ok()?;
    Some(instant.to_string())
}

/// The number that the 16 bits of a half-precision float are.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction / 1024.0 + 1.0) * 2f64.powi(exponent - 15),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}
