//! The few pieces of DER that a certificate is made of (X.690). Pure.

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const TRUE: [u8; 3] = [0x01, 0x01, 0xff];
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// A tag, the length, the content.
pub(super) fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().position(|b| *b != 0).unwrap_or(length.len() - 1)..];
    if content.len() < 0x80 {
        out.extend_from_slice(length);
    } else {
        // At most eight bytes of length.
        out.push(0x80 | length.len() as u8);
        out.extend_from_slice(length);
    }
    out.extend_from_slice(content);
    out
}

/// A sequence of encoded parts.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(SEQUENCE, &parts.concat())
}

/// A positive integer from its bytes, most significant first.
pub(super) fn positive(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len().saturating_sub(1));
    let mut content = bytes[start..].to_vec();
    if content.first().is_none_or(|first| first & 0x80 != 0) {
        content.insert(0, 0);
    }
    tagged(INTEGER, &content)
}

/// An object identifier from the encoded form of its numbers.
pub(super) fn identifier(encoded: &[u8]) -> Vec<u8> {
    tagged(OBJECT_IDENTIFIER, encoded)
}

/// A bit string of whole bytes.
pub(super) fn bits(bytes: &[u8]) -> Vec<u8> {
    tagged(BIT_STRING, &[&[0], bytes].concat())
}

/// A bit string of named bits: bit 0 is the most significant one. Trailing zeros are cut off.
pub(super) fn named_bits(bits: impl Iterator<Item = u8>) -> Vec<u8> {
    let (mut bytes, mut last) = ([0_u8; 2], 0);
    for bit in bits {
        bytes[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
        last = last.max(bit);
    }
    let length = usize::from(last / 8) + 1;
    tagged(BIT_STRING, &[&[7 - last % 8], &bytes[..length]].concat())
}

/// A time as certificates write it (RFC 5280, 4.1.2.5): with two digits of the year until 2049.
pub(super) fn time(at: Timestamp) -> Vec<u8> {
    let utc = at.to_zoned(TimeZone::UTC);
    let (tag, format) = match utc.year() {
        1950..=2049 => (UTC_TIME, "%y%m%d%H%M%SZ"),
        _ => (GENERALIZED_TIME, "%Y%m%d%H%M%SZ"),
    };
    tagged(tag, utc.strftime(format).to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        let long = tagged(OCTET_STRING, &[7; 300]);
        let at = |text: &str| time(text.parse().unwrap());
        for (have, want) in [
            (positive(&[0, 0, 5]), vec![2, 1, 5]),
            (positive(&[0x80]), vec![2, 2, 0, 0x80]),
            (positive(&[0]), vec![2, 1, 0]),
            (tagged(OCTET_STRING, &[]), vec![4, 0]),
            (tagged(OCTET_STRING, &[1; 0x7f])[..2].to_vec(), vec![4, 0x7f]),
            (tagged(OCTET_STRING, &[1; 0x80])[..3].to_vec(), vec![4, 0x81, 0x80]),
            (long[..4].to_vec(), vec![4, 0x82, 1, 0x2c]),
            // digitalSignature and keyEncipherment.
            (named_bits([0, 2].into_iter()), vec![3, 2, 5, 0xa0]),
            (named_bits([8].into_iter()), vec![3, 3, 7, 0, 0x80]),
            (bits(&[1, 2]), vec![3, 3, 0, 1, 2]),
            (at("2026-11-21T15:04:05Z"), [&[0x17, 13], b"261121150405Z".as_slice()].concat()),
            (at("2050-01-01T00:00:00Z"), [&[0x18, 15], b"20500101000000Z".as_slice()].concat()),
        ] {
            assert_eq!(have, want);
        }
    }
}
