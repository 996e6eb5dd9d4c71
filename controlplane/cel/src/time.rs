//! Durations and points in time as text, as Go and RFC 3339 write them.

use jiff::Timestamp;

/// A duration as Go writes it (`1h30m`, `-1.5s`, `100ms`), in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, scale)?)?;
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return None;
        }
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// A decimal number times a scale, what is smaller than one cut off.
fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 19 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut value = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        value += i128::from(digit - b'0') * place;
    }
    Some(value)
}

/// A duration as CEL writes it: seconds, with a fraction where there is one (`90s`, `0.1s`).
pub(crate) fn show_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let (seconds, rest) = (all / 1_000_000_000, all % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// A point in time as RFC 3339 writes it.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    // jiff takes more than RFC 3339 does: spaces, missing parts, names of zones.
    if bytes.len() < 20 || bytes.get(10) != Some(&b'T') || !text.is_ascii() || text.contains('[') {
        return None;
    }
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = zone == "Z"
        || (zone.len() == 6
            && zone.as_bytes()[3] == b':'
            && (zone.starts_with('+') || zone.starts_with('-')));
    if !offset || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    text.parse().ok()
}

/// A day as RFC 3339 writes it, as its first moment in UTC.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    if text.len() != 10 {
        return None;
    }
    text.parse::<jiff::civil::Date>()
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
        .map(|zoned| zoned.timestamp())
}

/// The time as RFC 3339 writes it, in UTC.
pub(crate) fn show_timestamp(time: Timestamp) -> String {
    time.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, wanted) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("100ms", Some(100_000_000)),
            (".5s", Some(500_000_000)),
            ("0", Some(0)),
            ("", None),
            ("1", None),
            ("1x", None),
            ("s", None),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("9223372036854775808ns", None),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text), wanted, "{text}");
        }
        for (value, wanted) in
            [(90_000_000_000, "90s"), (-100_000_000, "-0.1s"), (i64::MIN, "-9223372036.854775808s")]
        {
            assert_eq!(show_duration(value), wanted);
        }
    }

    #[test]
    fn times() {
        for (text, right) in [
            ("2020-01-02T03:04:05Z", true),
            ("2020-01-02T03:04:05.123+02:00", true),
            ("2020-01-02 03:04:05Z", false),
            ("2020-01-02T03:04:05", false),
            ("2020-13-02T03:04:05Z", false),
            ("2020-01-02T03:04:05Z[UTC]", false),
        ] {
            assert_eq!(parse_timestamp(text).is_some(), right, "{text}");
        }
    }
}
