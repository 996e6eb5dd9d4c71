//! The formats of texts that custom resources and expressions may ask for (`format`), and whether a text is one. It must not know
//! schemas.

use std::net::IpAddr;

use crate::labels;
use jiff::civil::{Date, Time};

/// The formats of texts, without dashes.
const TEXTS: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];
/// The formats of numbers.
const NUMBERS: [&str; 8] = ["double", "float", "float32", "float64", "int32", "int64", "uint32", "uint64"];

/// Whether the format is one that values are checked against. Others are kept and mean nothing.
pub fn is_known(format: &str) -> bool {
    NUMBERS.contains(&format) || TEXTS.contains(&format.replace('-', "").as_str())
}

/// Whether a text is of a format; none if the format is not one of texts.
pub fn check(format: &str, text: &str) -> Option<bool> {
    let address = |six: bool| labels::parse_ip(text).is_some() && text.contains(':') == six;
    Some(match format.replace('-', "").as_str() {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "byte" => is_base64(text),
        "cidr" => is_cidr(text),
        "creditcard" => is_credit_card(text),
        "date" => is_date(text),
        "datetime" => is_date_time(text),
        "duration" => is_duration(text),
        "email" => is_email(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
        }
        "hostname" => is_hostname(text),
        "ipv4" => address(false),
        "ipv6" => address(true),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8sshortname" => labels::dns_label(text).is_empty(),
        "k8slongname" => labels::dns_subdomain(text).is_empty(),
        "mac" => is_mac(text),
        "password" => true,
        "rgbcolor" => is_rgb(text),
        "ssn" => is_ssn(text),
        "uri" => is_uri(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        _ => return None,
    })
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !text.is_empty()
        && text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u32>().is_ok_and(|bits| bits <= most)
}

/// Known issuers' numbers with a right check digit (Luhn).
fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    if digits.is_empty() || text.chars().any(|c| !c.is_ascii_digit() && c != ' ' && c != '-') {
        return false;
    }
    let number: String = digits.iter().map(u32::to_string).collect();
    let begins = |heads: &[&str]| heads.iter().any(|head| number.starts_with(head));
    let issued = match number.len() {
        13 => begins(&["4"]),
        14 => begins(&["300", "301", "302", "303", "304", "305", "36", "38"]),
        15 => begins(&["34", "37", "2131", "1800"]),
        16 => begins(&[
            "4", "51", "52", "53", "54", "55", "6011", "65", "62", "22", "23", "24", "25", "26", "27", "35",
        ]),
        19 => begins(&["4", "62"]),
        _ => false,
    };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => *digit,
            _ if digit * 2 > 9 => digit * 2 - 9,
            _ => digit * 2,
        })
        .sum();
    issued && sum.is_multiple_of(10)
}

/// RFC 3339 `full-date`.
fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<Date>().is_ok()
}

/// RFC 3339 `date-time`; small letters will do.
fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else { return false };
    let zone = time.find(['Z', 'z', '+', '-']);
    let Some((time, zone)) = zone.map(|at| time.split_at(at)) else { return false };
    let offset = |text: &str| {
        let parts = text.split_once(':');
        parts.is_some_and(|(hours, minutes)| [hours, minutes].iter().all(|p| p.len() == 2 && all_digits(p)))
    };
    let zoned = matches!(zone, "Z" | "z") || offset(&zone[1..]);
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let clock = whole.len() == 8 && whole.parse::<Time>().is_ok() && !whole.ends_with(":60");
    is_date(date) && clock && zoned && all_digits(fraction)
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A Go duration (`1h30m`), or a number and a unit in words (`3 days`).
fn is_duration(text: &str) -> bool {
    const SHORT: [&str; 7] = ["ns", "us", "µs", "μs", "ms", "s", "m"];
    const WORDS: [&str; 36] = [
        "ns",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "us",
        "µs",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "ms",
        "milli",
        "millis",
        "millisecond",
        "milliseconds",
        "s",
        "sec",
        "secs",
        "second",
        "seconds",
        "m",
        "min",
        "mins",
        "minute",
        "minutes",
        "h",
        "hr",
        "hrs",
        "hour",
        "hours",
        "d",
        "day",
        "days",
        "w",
        "week",
    ];
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return true;
    }
    let mut rest = unsigned;
    let mut parts = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (name, after) = after.split_at(unit);
        let fits = digits.bytes().any(|b| b.is_ascii_digit()) && digits.matches('.').count() <= 1;
        if !fits || !(SHORT.contains(&name) || name == "h") {
            parts = 0;
            break;
        }
        parts += 1;
        rest = after;
    }
    let worded = || {
        let text = text.trim();
        let number = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(number);
        let unit = unit.trim().to_lowercase();
        all_digits(digits) && (WORDS.contains(&unit.as_str()) || unit == "weeks")
    };
    parts > 0 || worded()
}

/// An address as RFC 5322 has it, with or without a name before it.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match text.rsplit_once('<') {
        Some((_, rest)) => match rest.strip_suffix('>') {
            Some(address) => address,
            None => return false,
        },
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c))
    };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.starts_with('[') && domain.ends_with(']');
    (quoted || local.split('.').all(atom)) && (literal || domain.split('.').all(atom))
}

/// Labels of letters, digits, symbols and inner dashes; the last of several has two characters at least.
fn is_hostname(text: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || (!c.is_ascii() && !c.is_whitespace() && !c.is_control());
    let label = |label: &str| {
        let ends = label.chars().next().is_some_and(inner) && label.chars().next_back().is_some_and(inner);
        ends && label.len() <= 63 && label.chars().all(|c| inner(c) || c == '-')
    };
    let labels: Vec<&str> = text.split('.').collect();
    let last = labels
        .last()
        .is_some_and(|last| !last.contains("--") && (labels.len() == 1 || last.chars().count() > 1));
    text.len() <= 255 && labels.iter().all(|l| label(l)) && last
}

fn without_separators(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = without_separators(text);
    let digit = |at: usize, c: char| match c {
        'X' if at == 9 => Some(10),
        c => c.to_digit(10),
    };
    let digits: Option<Vec<u32>> = text.chars().enumerate().map(|(at, c)| digit(at, c)).collect();
    digits.is_some_and(|d| d.len() == 10 && d.iter().zip(1..).map(|(d, i)| d * i).sum::<u32>() % 11 == 0)
}

fn is_isbn13(text: &str) -> bool {
    let text = without_separators(text);
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(10)).collect();
    let sum =
        |d: &[u32]| d.iter().enumerate().map(|(at, d)| if at % 2 == 0 { *d } else { d * 3 }).sum::<u32>();
    digits.is_some_and(|d| d.len() == 13 && sum(&d) % 10 == 0)
}

/// 6, 8 or 20 bytes: `00:11:22:33:44:55`, with dashes, or `0011.2233.4455`.
fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        let fits = parts.iter().all(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_hexdigit()));
        fits && parts.len() > 1 && matches!(parts.len() * digits / 2, 6 | 8 | 20)
    };
    groups(':', 2) || groups('-', 2) || groups('.', 4)
}

fn is_rgb(text: &str) -> bool {
    let Some(inside) = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')) else {
        return false;
    };
    let parts: Vec<&str> = inside.split(',').map(str::trim).collect();
    let level = |part: &&str| {
        let plain = all_digits(part) && (part.len() == 1 || !part.starts_with('0'));
        plain && part.parse::<u8>().is_ok()
    };
    parts.len() == 3 && parts.iter().all(level)
}

/// `123-45-6789`, with dashes, spaces or nothing between.
fn is_ssn(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    for (digits, last) in [(3, false), (2, false), (4, true)] {
        let Some(part) = bytes.get(at..at + digits) else { return false };
        if !part.iter().all(u8::is_ascii_digit) {
            return false;
        }
        at += digits;
        if !last && bytes.get(at).is_some_and(|b| matches!(b, b'-' | b' ')) {
            at += 1;
        }
    }
    at == bytes.len()
}

/// An absolute URI, or an absolute path.
fn is_uri(text: &str) -> bool {
    let plain = !text.is_empty() && !text.chars().any(|c| c.is_ascii_control());
    let escapes = text
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    if !plain || !escapes {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let mut letters = scheme.chars();
    let named = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let host =
        rest.strip_prefix("//").map_or("", |rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    named && !host.contains([' ', '<', '>', '"', '^', '`', '{', '}', '|', '\\'])
}

/// Hexadecimal digits with or without dashes; `version` is the digit that tells how it was made.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let mut digits = Vec::with_capacity(32);
    let mut rest = text;
    for (at, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some(part) = rest.get(..length) else { return false };
        digits.extend(part.chars());
        rest = &rest[length..];
    }
    let variant = digits.get(16).is_some_and(|c| matches!(c.to_ascii_lowercase(), '8' | '9' | 'a' | 'b'));
    let made = match version {
        None => true,
        Some('3') => digits.get(12) == Some(&'3'),
        Some(version) => digits.get(12) == Some(&version) && variant,
    };
    rest.is_empty() && digits.iter().all(char::is_ascii_hexdigit) && made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        for (format, good, bad) in [
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
            ("byte", "YWJj", "YW=j"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("creditcard", "4111 1111 1111 1111", "4111111111111112"),
            ("date", "2024-02-29", "2023-02-29"),
            ("date-time", "2024-01-02T03:04:05.6+01:00", "yesterday"),
            ("date-time", "2024-01-02t03:04:05z", "2024-01-02T25:04:05Z"),
            ("datetime", "2024-01-02T03:04:05Z", "2024-01-02T03:04Z"),
            ("duration", "1h30m", "1x"),
            ("duration", "3 days", "three days"),
            ("email", "a.b@example.org", "a@"),
            ("email", "Someone <a@b>", "Someone <a@b"),
            ("hexcolor", "#fff", "#ffff"),
            ("hostname", "example.org", "-example.org"),
            ("ipv4", "10.0.0.1", "::1"),
            ("ipv6", "::1", "10.0.0.1"),
            ("isbn", "978-3-16-148410-0", "978-3-16-148410-1"),
            ("isbn10", "3-16-148410-X", "3-16-148410-1"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "a_b"),
            ("mac", "01:23:45:67:89:ab", "01:23:45"),
            ("rgbcolor", "rgb(0, 10, 255)", "rgb(0,0,256)"),
            ("ssn", "123-45-6789", "123-45-678"),
            ("uri", "https://example.org/a?b", "not a uri"),
            ("uuid", "A987FBC9-4BED-3078-CF07-9141BA07C9F3", "A987FBC9-4BED"),
            ("uuid3", "A987FBC9-4BED-3078-CF07-9141BA07C9F3", "A987FBC9-4BED-4078-8F07-9141BA07C9F3"),
            ("uuid4", "57B73598-8764-4AD0-A76A-679BB6640EB1", "A987FBC9-4BED-3078-CF07-9141BA07C9F3"),
        ] {
            assert_eq!(check(format, good), Some(true), "{format} {good}");
            assert_eq!(check(format, bad), Some(false), "{format} {bad}");
            assert!(is_known(format), "{format}");
        }
        assert_eq!(check("int32", "x"), None);
        assert!(is_known("int32") && !is_known("frob"));
    }
}
