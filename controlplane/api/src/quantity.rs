//! Quantities: numbers with a decimal or binary suffix, such as `100m`, `1Gi`, `2e3`. Kept exactly down to a
//! billionth; written back in canonical form.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

const NANO: i128 = 1_000_000_000;
const MAX: i128 = (i64::MAX as i128) * NANO;

/// How a quantity writes its suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `e3`, `E6`.
    DecimalExponent,
    /// `Ki`, `Mi`.
    BinarySi,
    /// `m`, `k`, `M`, and none.
    #[default]
    DecimalSi,
}

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a suffix at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A number with a preferred way of writing it. Two quantities are equal if their numbers are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// A whole number.
    pub fn from_value(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANO, format }
    }

    /// A number of thousandths.
    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format }
    }

    /// From a JSON text or number.
    pub fn from_json(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            Value::Null => Ok(Self::default()),
            _ => Err(QuantityError::Format),
        }
    }

    /// The number rounded up (away from 0) to a whole.
    pub fn value(&self) -> i64 {
        i64::try_from(ceil_away(self.nanos, NANO)).unwrap_or(if self.nanos < 0 { i64::MIN } else { i64::MAX })
    }

    /// The number in thousandths, rounded up (away from 0).
    pub fn milli_value(&self) -> i128 {
        ceil_away(self.nanos, NANO / 1000)
    }

    /// Whether a whole number of thousandths says it all.
    pub fn is_milli_exact(&self) -> bool {
        self.nanos % (NANO / 1000) == 0
    }

    /// Whether the number is whole.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        match self.nanos.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// The way of writing.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The number as floating point.
    #[allow(clippy::cast_precision_loss, reason = "an approximation is what is asked for")]
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    /// The sum, written as `self` is (or as `other`, if `self` is 0).
    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    /// The difference, written as `self` is (or as `other`, if `self` is 0).
    fn sub(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }
}

fn ceil_away(nanos: i128, unit: i128) -> i128 {
    let whole = nanos / unit;
    if nanos % unit == 0 { whole } else { whole + nanos.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let (negative, rest) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let end = digits(rest);
    let (whole, mut rest) = rest.split_at(end);
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        (fraction, rest) = after.split_at(digits(after));
    }
    let letters = rest.bytes().take_while(|c| b"eEinumkKMGTP".contains(c)).count();
    let tail = &rest[letters..];
    let tail_digits = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if !tail_digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(if rest.is_empty() { QuantityError::Format } else { QuantityError::Numeric });
    }
    Ok(Parts { negative, whole, fraction, suffix: rest })
}

/// Base (10 or 2), exponent and format of a suffix.
fn suffix_scale(suffix: &str) -> Result<(u8, i32, Format), QuantityError> {
    let (base, exponent, format) = match suffix {
        "n" => (10, -9, Format::DecimalSi),
        "u" => (10, -6, Format::DecimalSi),
        "m" => (10, -3, Format::DecimalSi),
        "" => (10, 0, Format::DecimalSi),
        "k" => (10, 3, Format::DecimalSi),
        "M" => (10, 6, Format::DecimalSi),
        "G" => (10, 9, Format::DecimalSi),
        "T" => (10, 12, Format::DecimalSi),
        "P" => (10, 15, Format::DecimalSi),
        "E" => (10, 18, Format::DecimalSi),
        "Ki" => (2, 10, Format::BinarySi),
        "Mi" => (2, 20, Format::BinarySi),
        "Gi" => (2, 30, Format::BinarySi),
        "Ti" => (2, 40, Format::BinarySi),
        "Pi" => (2, 50, Format::BinarySi),
        "Ei" => (2, 60, Format::BinarySi),
        _ => {
            let exponent = suffix
                .strip_prefix(['e', 'E'])
                .and_then(|digits| digits.parse::<i32>().ok())
                .ok_or(QuantityError::Suffix)?;
            (10, exponent, Format::DecimalExponent)
        }
    };
    Ok((base, exponent, format))
}

/// `mantissa * 10^exponent`, rounded up; `None` if it is out of all bounds.
fn scale10(mantissa: i128, exponent: i32) -> Option<i128> {
    if mantissa == 0 {
        return Some(0);
    }
    if exponent >= 0 {
        return 10i128.checked_pow(exponent.unsigned_abs())?.checked_mul(mantissa);
    }
    match 10i128.checked_pow(exponent.unsigned_abs()) {
        Some(divisor) => Some(ceil_away(mantissa, divisor)),
        None => Some(1),
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = split(text)?;
        let (base, exponent, mut format) = suffix_scale(parts.suffix)?;
        let fraction = parts.fraction.trim_end_matches('0');
        let whole = parts.whole.trim_start_matches('0');
        // Digits past the 27th below the point are far below a billionth of anything: they only round up.
        let kept = &fraction[..fraction.len().min(27)];
        let lost = i128::from(kept.len() < fraction.len());
        let mantissa: Option<i128> = match (whole, kept) {
            ("", "") => Some(0),
            _ => format!("{whole}{kept}").parse().ok().map(|m: i128| m + lost),
        };
        let places = i32::try_from(kept.len()).unwrap_or(i32::MAX);
        let nanos = mantissa.and_then(|mantissa| match base {
            10 => scale10(mantissa, exponent.saturating_add(9).saturating_sub(places)),
            _ => mantissa
                .checked_mul(1i128 << exponent.unsigned_abs())
                .and_then(|scaled| scale10(scaled, 9 - places)),
        });
        let nanos = nanos.map_or(MAX, |nanos| nanos.min(MAX));
        if format == Format::BinarySi && nanos > 0 && nanos < NANO {
            format = Format::DecimalSi;
        }
        Ok(Self { nanos: if parts.negative { -nanos } else { nanos }, format })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let binary =
            self.format == Format::BinarySi && self.nanos.abs() >= 1024 * NANO && self.nanos % NANO == 0;
        if binary {
            let (mut number, mut power) = (self.nanos / NANO, 0);
            while number % 1024 == 0 && power < 6 {
                number /= 1024;
                power += 1;
            }
            return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut number, mut power) = (self.nanos, 0);
        while number % 1000 == 0 && power < 9 {
            number /= 1000;
            power += 1;
        }
        if self.format == Format::DecimalExponent {
            let exponent = i32::try_from(power).unwrap_or(0) * 3 - 9;
            return if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") };
        }
        write!(f, "{number}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        for (input, expected) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("-1", "-1"),
            ("1.0", "1"),
            ("1.5", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1000m", "1"),
            ("100000000n", "100m"),
            ("1n", "1n"),
            ("0.0000000001", "1n"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e6", "12e6"),
            ("1e-3", "1e-3"),
            ("1E", "1E"),
            ("1Ei", "1Ei"),
            ("100E", "9223372036854775807"),
            ("1.5e3", "1500"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("1.1Mi", "1153433600m"),
            ("9223372036854775808", "9223372036854775807"),
            ("123456789012345678901234567890", "9223372036854775807"),
        ] {
            let quantity: Result<Quantity, _> = input.parse();
            assert_eq!(quantity.map(|q| q.to_string()), Ok(expected.to_owned()), "{input}");
        }
    }

    #[test]
    fn errors() {
        for (input, expected) in [
            ("", QuantityError::Format),
            ("x", QuantityError::Format),
            ("1x", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1gi", QuantityError::Format),
            ("1kk", QuantityError::Suffix),
            ("1Kii", QuantityError::Suffix),
            ("1.1.1", QuantityError::Format),
            ("1ee3", QuantityError::Suffix),
            ("Gi", QuantityError::Numeric),
            ("-", QuantityError::Format),
        ] {
            assert_eq!(input.parse::<Quantity>().map(|q| q.to_string()), Err(expected), "{input}");
        }
    }

    #[test]
    fn numbers() {
        let q = |text: &str| text.parse::<Quantity>().expect("a quantity");
        assert_eq!((q("1500m").value(), q("1500m").milli_value()), (2, 1500));
        assert_eq!((q("-1500m").value(), q("1u").milli_value()), (-2, 1));
        assert_eq!((q("1Gi") + q("1Mi")).to_string(), "1025Mi");
        assert_eq!((q("1Gi") - q("1Gi")).to_string(), "0");
        assert_eq!((q("0") + q("2Ki")).to_string(), "2Ki");
        assert!(q("1Ki") > q("1k") && q("1000m") == q("1"));
    }

    proptest! {
        #[test]
        fn canonical_form_is_a_fixed_point(n in 0i64..1_000_000_000_000, suffix in "(|n|u|m|k|M|G|Ki|Mi|Gi|e3|e-3)") {
            let first: Quantity = format!("{n}{suffix}").parse().expect("a quantity");
            let text = first.to_string();
            let second: Quantity = text.parse().expect("canonical text parses");
            prop_assert_eq!(first, second);
            prop_assert_eq!(second.to_string(), text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+]?[0-9.]{0,40}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,12}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
