//! Values as text: `format` of cel-go's string extension in version 2, and how messages show values.

use super::Row;
use crate::cost::Costing;
use crate::eval::{EvalError, Machine, Outcome, failed};
use crate::time;
use crate::types::Type;
use crate::value::{List, Map, Value};

pub(super) static ROWS: &[Row] =
    &[("format", &["string_format: string.(list(dyn)) -> string"], Costing::Format, format)];

/// Most digits after the point.
const MAX_PRECISION: usize = 100;
const PRECISION: usize = 6;

fn format<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::List(values)] = args else { return failed("no such overload") };
    let mut made = String::new();
    let mut rest: &str = text;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        made.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut clause = rest.chars();
        match clause.next() {
            None => return failed("unexpected end of string"),
            Some('%') => {
                made.push('%');
                rest = clause.as_str();
                continue;
            }
            Some(_) => {}
        }
        let (precision, after) = precision(rest)?;
        let mut verb = after.chars();
        let Some(letter) = verb.next() else {
            return failed("could not parse formatting clause: unexpected end of string");
        };
        rest = verb.as_str();
        let Some(value) = values.get(next) else { return failed(format!("index {next} out of range")) };
        next += 1;
        let before = made.len();
        clause_text(machine, &mut made, letter, precision, &value)?;
        machine.make((made.len() - before) as u64)?;
    }
    made.push_str(rest);
    machine.make(rest.len() as u64)?;
    if next < values.len() {
        return failed(format!(
            "too many arguments supplied to string.format (expected {next}, got {})",
            values.len()
        ));
    }
    Ok(Value::text(made))
}

/// The digits after `.`, if there are any, and what follows.
fn precision(clause: &str) -> Result<(Option<usize>, &str), EvalError> {
    let Some(rest) = clause.strip_prefix('.') else { return Ok((None, clause)) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = rest.split_at(digits);
    match digits.parse::<usize>() {
        Ok(precision) if precision <= MAX_PRECISION => Ok((Some(precision), rest)),
        Ok(_) => failed(format!("precision {digits} exceeds maximum allowed ({MAX_PRECISION})")),
        Err(_) => failed("error while parsing precision: unable to find end of precision specifier"),
    }
}

fn clause_text(
    machine: &mut Machine<'_>,
    made: &mut String,
    letter: char,
    precision: Option<usize>,
    value: &Value<'_>,
) -> Result<(), EvalError> {
    let wrong = |clause: &str, takes: &str| {
        failed(format!(
            "error during formatting: {clause} clause can only be used on {takes}, was given {}",
            type_name(&value.type_of())
        ))
    };
    match (letter, value) {
        ('s', value) => return show(machine, made, value, 0),
        ('d', Value::Int(value)) => made.push_str(&value.to_string()),
        ('d', Value::Uint(value)) => made.push_str(&value.to_string()),
        ('d', _) => return wrong("decimal", "integers"),
        ('f', value) => match number(value) {
            Some(number) => made.push_str(&fixed(number, precision.unwrap_or(PRECISION))),
            None => return wrong("fixed-point", "doubles"),
        },
        ('e', value) => match number(value) {
            Some(number) => made.push_str(&scientific(number, precision.unwrap_or(PRECISION))),
            None => return wrong("scientific", "doubles"),
        },
        ('b', Value::Int(value)) => made.push_str(&radix(*value, |value| format!("{value:b}"))),
        ('b', Value::Uint(value)) => made.push_str(&format!("{value:b}")),
        ('b', Value::Bool(value)) => made.push(if *value { '1' } else { '0' }),
        ('b', _) => return wrong("binary", "integers and bools"),
        ('o', Value::Int(value)) => made.push_str(&radix(*value, |value| format!("{value:o}"))),
        ('o', Value::Uint(value)) => made.push_str(&format!("{value:o}")),
        ('o', _) => return wrong("octal", "integers"),
        ('x' | 'X', value) => {
            let Some(text) = hexadecimal(value) else {
                return wrong("hex", "integers, byte buffers, and strings");
            };
            made.push_str(&if letter == 'X' { text.to_uppercase() } else { text });
        }
        _ => {
            return failed(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{letter}\""
            ));
        }
    }
    Ok(())
}

fn radix(value: i64, show: impl Fn(u64) -> String) -> String {
    format!("{}{}", if value < 0 { "-" } else { "" }, show(value.unsigned_abs()))
}

fn hexadecimal(value: &Value<'_>) -> Option<String> {
    let bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match value {
        Value::Int(value) => Some(radix(*value, |value| format!("{value:x}"))),
        Value::Uint(value) => Some(format!("{value:x}")),
        Value::String(text) => Some(bytes(text.as_bytes())),
        Value::Bytes(value) => Some(bytes(value)),
        _ => None,
    }
}

fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(value) => Some(*value),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// What is no finite number, as the English locale writes it.
fn infinite(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("\u{221e}"),
        f64::NEG_INFINITY => Some("-\u{221e}"),
        _ => None,
    }
}

/// With that many digits after the point, and thousands apart as in English.
fn fixed(value: f64, precision: usize) -> String {
    if let Some(text) = infinite(value) {
        return text.to_owned();
    }
    let text = format!("{:.precision$}", value.abs());
    let (whole, fraction) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, fraction)| (whole, Some(fraction)));
    let mut grouped = String::from(if value < 0.0 { "-" } else { "" });
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if let Some(fraction) = fraction {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

/// `1.052033 x 10^03` with the signs that the English locale has for it.
fn scientific(value: f64, precision: usize) -> String {
    if let Some(text) = infinite(value) {
        return text.to_owned();
    }
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("\u{207b}", digits));
    let digits = format!("{digits:0>2}");
    let raised: String = digits
        .chars()
        .map(|digit| {
            "\u{2070}\u{b9}\u{b2}\u{b3}\u{2074}\u{2075}\u{2076}\u{2077}\u{2078}\u{2079}"
                .chars()
                .nth(digit as usize - '0' as usize)
                .unwrap_or(digit)
        })
        .collect();
    format!("{mantissa}\u{202f}\u{d7}\u{202f}10{sign}{raised}")
}

/// The text of `%s`; within lists and maps as a literal.
fn show(
    machine: &mut Machine<'_>,
    made: &mut String,
    value: &Value<'_>,
    depth: usize,
) -> Result<(), EvalError> {
    machine.make(8)?;
    if depth > 100 {
        return failed("error during formatting: value is nested too deeply");
    }
    let inner = depth > 0;
    match value {
        Value::String(text) if inner => made.push_str(&pagurus_controlplane_api::go::quote(text)),
        Value::Bytes(bytes) if inner => made
            .push_str(&format!("b{}", pagurus_controlplane_api::go::quote(&String::from_utf8_lossy(bytes)))),
        Value::Double(value) if inner => {
            made.push_str(&infinite_literal(*value).unwrap_or_else(|| format!("{value:.PRECISION$}")))
        }
        Value::Duration(span) if inner => {
            made.push_str(&format!("duration(\"{}\")", time::show_duration(*span)))
        }
        Value::Timestamp(at) if inner => {
            made.push_str(&format!("timestamp(\"{}\")", time::show_timestamp(*at)))
        }
        Value::List(list) => return show_list(machine, made, list, depth),
        Value::Map(map) => return show_map(machine, made, map, depth),
        Value::Null => made.push_str("null"),
        Value::Opaque(_) | Value::Optional(_) | Value::Failed(_) => {
            return failed(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                type_name(&value.type_of())
            ));
        }
        other => made.push_str(&plain(other)),
    }
    Ok(())
}

fn infinite_literal(value: f64) -> Option<String> {
    let text = match value {
        value if value.is_nan() => "\"NaN\"",
        f64::INFINITY => "\"+Inf\"",
        f64::NEG_INFINITY => "\"-Inf\"",
        _ => return None,
    };
    Some(text.to_owned())
}

fn show_list(
    machine: &mut Machine<'_>,
    made: &mut String,
    list: &List<'_>,
    depth: usize,
) -> Result<(), EvalError> {
    made.push('[');
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            made.push_str(", ");
        }
        show(machine, made, &item, depth + 1)?;
    }
    made.push(']');
    Ok(())
}

fn show_map(
    machine: &mut Machine<'_>,
    made: &mut String,
    map: &Map<'_>,
    depth: usize,
) -> Result<(), EvalError> {
    let mut entries = Vec::new();
    for key in map.keys() {
        let mut entry = (String::new(), String::new());
        match &key {
            Value::String(_) | Value::Bool(_) | Value::Int(_) | Value::Uint(_) => {
                show(machine, &mut entry.0, &key, depth + 1)?
            }
            other => {
                return failed(format!(
                    "error during formatting: no formatting function for map key of type {}",
                    type_name(&other.type_of())
                ));
            }
        }
        if let Some(value) = map.get(&key) {
            show(machine, &mut entry.1, &value, depth + 1)?;
        }
        entries.push(entry);
    }
    entries.sort();
    let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    made.push('{');
    made.push_str(&entries.join(", "));
    made.push('}');
    Ok(())
}

/// A value in a message.
pub(crate) fn plain(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => shortest(*value),
        Value::String(text) => (**text).to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Duration(value) => time::show_duration(*value),
        Value::Timestamp(value) => time::show_timestamp(*value),
        Value::Type(of) => type_name(of),
        other => type_name(&other.type_of()),
    }
}

/// A type's name without what it is of: `list`, not `list(int)`.
pub(crate) fn type_name(of: &Type) -> String {
    match of {
        Type::List(_) => "list".to_owned(),
        Type::Map(..) => "map".to_owned(),
        Type::Null => "null_type".to_owned(),
        Type::Optional(_) => "optional_type".to_owned(),
        Type::Type(_) => "type".to_owned(),
        other => other.to_string(),
    }
}

/// A double as Go's shortest form (`%g`) writes it: `1`, `0.1`, `1e+06`.
pub(crate) fn shortest(value: f64) -> String {
    match value {
        value if value.is_nan() => return "NaN".to_owned(),
        f64::INFINITY => return "+Inf".to_owned(),
        f64::NEG_INFINITY => return "-Inf".to_owned(),
        _ => {}
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        return format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_as_go_writes_them() {
        for (value, wanted) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (1e6, "1e+06"),
            (1e20, "1e+20"),
            (123_456.0, "123456"),
            (123_456_789.0, "1.23456789e+08"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5, "-1.5"),
            (100.0, "100"),
        ] {
            assert_eq!(shortest(value), wanted);
        }
        assert_eq!(fixed(1_234_567.891, 2), "1,234,567.89");
        assert_eq!(scientific(1052.032911275, 6), "1.052033\u{202f}\u{d7}\u{202f}10\u{2070}\u{b3}");
    }
}
