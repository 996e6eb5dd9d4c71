//! The wire format of protobuf (varints, fixed numbers, lengths), without any message. It must not know of types.

use crate::codec::DecodeError;

/// What a field carries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Payload<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64([u8; 8]),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32([u8; 4]),
}

/// A field of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RawField<'a> {
    pub(super) tag: u32,
    pub(super) payload: Payload<'a>,
}

fn broken(what: &str) -> DecodeError {
    DecodeError::Syntax(format!("proto: {what}"))
}

impl<'a> RawField<'a> {
    /// The bytes of a string, message or byte string.
    pub(super) fn bytes(&self) -> Result<&'a [u8], DecodeError> {
        match self.payload {
            Payload::Bytes(bytes) => Ok(bytes),
            _ => Err(broken(&format!("wrong wireType for field {}", self.tag))),
        }
    }

    /// A string.
    pub(super) fn text(&self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?)
            .map_err(|_| broken(&format!("field {} contains invalid UTF-8", self.tag)))
    }

    /// A number; negative ones are written as 64 bits in two's complement.
    pub(super) fn number(&self) -> Result<i64, DecodeError> {
        match self.payload {
            Payload::Varint(number) => Ok(number as i64),
            _ => Err(broken(&format!("wrong wireType for field {}", self.tag))),
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else { return Err(broken("unexpected EOF")) };
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(broken("integer overflow"))
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], DecodeError> {
    let (taken, rest) = usize::try_from(length)
        .ok()
        .and_then(|length| bytes.split_at_checked(length))
        .ok_or_else(|| broken("unexpected EOF"))?;
    *bytes = rest;
    Ok(taken)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    take(bytes, N as u64)?.try_into().map_err(|_| broken("unexpected EOF"))
}

fn next<'a>(bytes: &mut &'a [u8]) -> Result<RawField<'a>, DecodeError> {
    let key = varint(bytes)?;
    let tag = u32::try_from(key >> 3).map_err(|_| broken("illegal tag"))?;
    if tag == 0 {
        return Err(broken("illegal tag 0"));
    }
    let payload = match key & 7 {
        0 => Payload::Varint(varint(bytes)?),
        1 => Payload::Fixed64(array(bytes)?),
        2 => {
            let length = varint(bytes)?;
            Payload::Bytes(take(bytes, length)?)
        }
        5 => Payload::Fixed32(array(bytes)?),
        other => return Err(broken(&format!("illegal wireType {other}"))),
    };
    Ok(RawField { tag, payload })
}

/// The fields of a message; ends after the first error.
pub(super) fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Result<RawField<'_>, DecodeError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let field = next(&mut bytes);
        if field.is_err() {
            bytes = &[];
        }
        Some(field)
    })
}

/// The numbers of a packed field.
pub(super) fn packed(mut bytes: &[u8]) -> Result<Vec<i64>, DecodeError> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes)? as i64);
    }
    Ok(numbers)
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_number(out: &mut Vec<u8>, tag: u32, value: i64) {
    put_varint(out, u64::from(tag) << 3);
    put_varint(out, value as u64);
}

pub(super) fn put_double(out: &mut Vec<u8>, tag: u32, value: f64) {
    put_varint(out, u64::from(tag) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// What comes before bytes of this length.
pub(super) fn put_head(out: &mut Vec<u8>, tag: u32, length: usize) {
    put_varint(out, u64::from(tag) << 3 | 2);
    put_varint(out, length as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    put_head(out, tag, bytes.len());
    out.extend_from_slice(bytes);
}
