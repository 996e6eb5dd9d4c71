//! The standard library: conversions, sizes and the simple tests of text.

use super::{Opaque, Row, format};
use crate::cost::Costing;
use crate::eval::{Machine, Outcome, failed};
use crate::time;
use crate::value::Value;

pub(super) static ROWS: &[Row] = &[
    ("dyn", &["to_dyn: (A) -> dyn"], Costing::Dyn, |_, args| Ok(args[0].clone())),
    ("type", &["type: (A) -> type(A)"], Costing::Unit, |_, args| Ok(Value::Type(args[0].type_of()))),
    ("bool", &["bool_to_bool: (bool) -> bool", "string_to_bool: (string) -> bool"], Costing::Unit, to_bool),
    ("bytes", &["bytes_to_bytes: (bytes) -> bytes"], Costing::Unit, to_bytes),
    ("bytes", &["string_to_bytes: (string) -> bytes"], Costing::ToBytes, to_bytes),
    (
        "double",
        &[
            "double_to_double: (double) -> double",
            "int64_to_double: (int) -> double",
            "string_to_double: (string) -> double",
            "uint64_to_double: (uint) -> double",
        ],
        Costing::Unit,
        to_double,
    ),
    (
        "duration",
        &[
            "duration_to_duration: (duration) -> duration",
            "int64_to_duration: (int) -> duration",
            "string_to_duration: (string) -> duration",
        ],
        Costing::Unit,
        to_duration,
    ),
    (
        "int",
        &[
            "int64_to_int64: (int) -> int",
            "double_to_int64: (double) -> int",
            "duration_to_int64: (duration) -> int",
            "string_to_int64: (string) -> int",
            "timestamp_to_int64: (timestamp) -> int",
            "uint64_to_int64: (uint) -> int",
        ],
        Costing::Unit,
        to_int,
    ),
    (
        "uint",
        &[
            "uint64_to_uint64: (uint) -> uint",
            "double_to_uint64: (double) -> uint",
            "int64_to_uint64: (int) -> uint",
            "string_to_uint64: (string) -> uint",
        ],
        Costing::Unit,
        to_uint,
    ),
    (
        "string",
        &[
            "string_to_string: (string) -> string",
            "bool_to_string: (bool) -> string",
            "double_to_string: (double) -> string",
            "duration_to_string: (duration) -> string",
            "int64_to_string: (int) -> string",
            "timestamp_to_string: (timestamp) -> string",
            "uint64_to_string: (uint) -> string",
            "ip_to_string: (net.IP) -> string",
            "cidr_to_string: (net.CIDR) -> string",
        ],
        Costing::Unit,
        to_string,
    ),
    ("string", &["bytes_to_string: (bytes) -> string"], Costing::ToText, to_string),
    (
        "timestamp",
        &[
            "timestamp_to_timestamp: (timestamp) -> timestamp",
            "int64_to_timestamp: (int) -> timestamp",
            "string_to_timestamp: (string) -> timestamp",
        ],
        Costing::Unit,
        to_timestamp,
    ),
    (
        "size",
        &[
            "size_string: (string) -> int",
            "string_size: string.() -> int",
            "size_bytes: (bytes) -> int",
            "bytes_size: bytes.() -> int",
            "size_list: (list(A)) -> int",
            "list_size: list(A).() -> int",
            "size_map: (map(A, B)) -> int",
            "map_size: map(A, B).() -> int",
        ],
        Costing::Unit,
        |_, args| Ok(Value::Int(args[0].size() as i64)),
    ),
    ("contains", &["contains_string: string.(string) -> bool"], Costing::Contains, |_, args| {
        texts(args, |text, part| text.contains(part))
    }),
    ("startsWith", &["starts_with_string: string.(string) -> bool"], Costing::Affix, |_, args| {
        texts(args, |text, part| text.starts_with(part))
    }),
    ("endsWith", &["ends_with_string: string.(string) -> bool"], Costing::Affix, |_, args| {
        texts(args, |text, part| text.ends_with(part))
    }),
    (
        "cel.@mapInsert",
        &[
            "@mapInsert_map_map: (map(K, V), map(K, V)) -> map(K, V)",
            "@mapInsert_map_key_value: (map(K, V), K, V) -> map(K, V)",
        ],
        Costing::Unit,
        |_, _| failed("no such overload"),
    ),
];

fn texts<'a>(args: &[Value<'a>], test: fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(test(text, part))),
        _ => failed("no such overload"),
    }
}

fn to_bool<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(*value)),
        [Value::String(text)] => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            _ => no_conversion("bool"),
        },
        _ => failed("no such overload"),
    }
}

fn to_bytes<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bytes(value)] => Ok(Value::Bytes(value.clone())),
        [Value::String(text)] => {
            machine.make(text.len() as u64)?;
            Ok(Value::Bytes(text.as_bytes().into()))
        }
        _ => failed("no such overload"),
    }
}

fn to_double<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Double(value)] => Ok(Value::Double(*value)),
        [Value::Int(value)] => Ok(Value::Double(*value as f64)),
        [Value::Uint(value)] => Ok(Value::Double(*value as f64)),
        [Value::String(text)] => {
            text.parse().map_or_else(|_| no_conversion("double"), |value| Ok(Value::Double(value)))
        }
        _ => failed("no such overload"),
    }
}

/// The error of a text that is no value of a type.
fn no_conversion<'a>(to: &str) -> Outcome<'a> {
    failed(format!("type conversion error from 'string' to '{to}'"))
}

fn to_duration<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Duration(value)] => Ok(Value::Duration(*value)),
        [Value::Int(seconds)] => Ok(Value::Duration(*seconds)),
        [Value::String(text)] => time::parse_duration(text)
            .map_or_else(|| no_conversion("google.protobuf.Duration"), |value| Ok(Value::Duration(value))),
        _ => failed("no such overload"),
    }
}

const RANGE: &str = "integer overflow";
/// The first double that is no `int` any more.
const TWO_63: f64 = 9_223_372_036_854_775_808.0;

fn to_int<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(value)] => Ok(Value::Int(*value)),
        [Value::Uint(value)] => {
            i64::try_from(*value).map_or_else(|_| failed(RANGE), |value| Ok(Value::Int(value)))
        }
        [Value::Double(value)] if *value > -TWO_63 && *value < TWO_63 => Ok(Value::Int(*value as i64)),
        [Value::Double(_)] => failed(RANGE),
        [Value::Duration(value)] => Ok(Value::Int(*value)),
        [Value::Timestamp(time)] => Ok(Value::Int(time.as_second())),
        [Value::String(text)] => {
            text.parse().map_or_else(|_| no_conversion("int"), |value| Ok(Value::Int(value)))
        }
        _ => failed("no such overload"),
    }
}

fn to_uint<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    const RANGE: &str = "unsigned integer overflow";
    match args {
        [Value::Uint(value)] => Ok(Value::Uint(*value)),
        [Value::Int(value)] => {
            u64::try_from(*value).map_or_else(|_| failed(RANGE), |value| Ok(Value::Uint(value)))
        }
        [Value::Double(value)] if *value >= 0.0 && *value < 1.8446744073709552e19 => {
            Ok(Value::Uint(*value as u64))
        }
        [Value::Double(_)] => failed(RANGE),
        // A number without a sign is none of those with one.
        [Value::String(text)] if text.starts_with('+') => no_conversion("uint"),
        [Value::String(text)] => {
            text.parse().map_or_else(|_| no_conversion("uint"), |value| Ok(Value::Uint(value)))
        }
        _ => failed("no such overload"),
    }
}

fn to_string<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let text = match args {
        [Value::String(_)] => return Ok(args[0].clone()),
        [Value::Bytes(bytes)] => {
            machine.make(bytes.len() as u64)?;
            match std::str::from_utf8(bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => return failed("invalid UTF-8 in bytes, cannot convert to string"),
            }
        }
        [Value::Bool(value)] => value.to_string(),
        [Value::Int(value)] => value.to_string(),
        [Value::Uint(value)] => value.to_string(),
        [Value::Double(value)] => format::shortest(*value),
        [Value::Duration(value)] => time::show_duration(*value),
        [Value::Timestamp(value)] => time::show_timestamp(*value),
        [Value::Opaque(opaque)] => match opaque.as_ref() {
            Opaque::Ip(ip) => ip.to_string(),
            Opaque::Cidr(cidr) => cidr.to_string(),
            _ => return failed("no such overload"),
        },
        _ => return failed("no such overload"),
    };
    Ok(Value::text(text))
}

fn to_timestamp<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Timestamp(value)] => Ok(Value::Timestamp(*value)),
        [Value::Int(seconds)] => {
            match jiff::Timestamp::from_second(*seconds).ok().filter(super::times::in_range) {
                Some(time) => Ok(Value::Timestamp(time)),
                None => failed("timestamp overflow"),
            }
        }
        [Value::String(text)] => match time::parse_timestamp(text) {
            Some(time) if super::times::in_range(&time) => Ok(Value::Timestamp(time)),
            Some(_) => failed("timestamp overflow"),
            None => no_conversion("google.protobuf.Timestamp"),
        },
        _ => failed("no such overload"),
    }
}
