//! The operators. Those that need not look at all of their arguments (`&&`, `?:`) are evaluated elsewhere; their types are here.

use std::cmp::Ordering;
use std::rc::Rc;

use super::Row;
use crate::cost::Costing;
use crate::eval::{Machine, Outcome, failed};
use crate::value::{List, Value};

pub(super) static ROWS: &[Row] = &[
    ("_?_:_", &["conditional: (bool, A, A) -> A"], Costing::Ternary, elsewhere),
    ("_&&_", &["logical_and: (bool, bool) -> bool"], Costing::Logic, elsewhere),
    ("_||_", &["logical_or: (bool, bool) -> bool"], Costing::Logic, elsewhere),
    ("@not_strictly_false", &["not_strictly_false: (bool) -> bool"], Costing::Unit, elsewhere),
    ("_?._", &["select_optional_field: (dyn, string) -> optional(V)"], Costing::Unit, elsewhere),
    ("!_", &["logical_not: (bool) -> bool"], Costing::Unit, not),
    ("_==_", &["equals: (A, A) -> bool"], Costing::Equal, |_, args| {
        Ok(Value::Bool(args[0].equals(&args[1])))
    }),
    ("_!=_", &["not_equals: (A, A) -> bool"], Costing::Compare, |_, args| {
        Ok(Value::Bool(!args[0].equals(&args[1])))
    }),
    ("@in", &["in_list: (A, list(A)) -> bool"], Costing::InList, within),
    ("@in", &["in_map: (A, map(A, B)) -> bool"], Costing::Unit, within),
    ("_[_]", &["index_list: (list(A), int) -> A", "index_map: (map(A, B), A) -> B"], Costing::Index, index),
    (
        "_[_]",
        &[
            "optional_list_index_int: (optional(list(V)), int) -> optional(V)",
            "optional_map_index_value: (optional(map(K, V)), K) -> optional(V)",
        ],
        Costing::Unit,
        optional_index,
    ),
    (
        "_[?_]",
        &[
            "list_optindex_optional_int: (list(V), int) -> optional(V)",
            "optional_list_optindex_optional_int: (optional(list(V)), int) -> optional(V)",
            "map_optindex_optional_value: (map(K, V), K) -> optional(V)",
            "optional_map_optindex_optional_value: (optional(map(K, V)), K) -> optional(V)",
        ],
        Costing::Unit,
        optional_index,
    ),
    (
        "_+_",
        &[
            "add_int64: (int, int) -> int",
            "add_uint64: (uint, uint) -> uint",
            "add_double: (double, double) -> double",
        ],
        Costing::Unit,
        add,
    ),
    (
        "_+_",
        &[
            "add_duration_duration: (duration, duration) -> duration",
            "add_duration_timestamp: (duration, timestamp) -> timestamp",
            "add_timestamp_duration: (timestamp, duration) -> timestamp",
        ],
        Costing::Unit,
        add,
    ),
    (
        "_+_",
        &["add_bytes: (bytes, bytes) -> bytes", "add_string: (string, string) -> string"],
        Costing::AddText,
        add,
    ),
    ("_+_", &["add_list: (list(A), list(A)) -> list(A)"], Costing::AddList, add),
    (
        "_-_",
        &[
            "subtract_int64: (int, int) -> int",
            "subtract_uint64: (uint, uint) -> uint",
            "subtract_double: (double, double) -> double",
            "subtract_duration_duration: (duration, duration) -> duration",
            "subtract_timestamp_duration: (timestamp, duration) -> timestamp",
            "subtract_timestamp_timestamp: (timestamp, timestamp) -> duration",
        ],
        Costing::Unit,
        subtract,
    ),
    (
        "_*_",
        &[
            "multiply_int64: (int, int) -> int",
            "multiply_uint64: (uint, uint) -> uint",
            "multiply_double: (double, double) -> double",
        ],
        Costing::Unit,
        multiply,
    ),
    (
        "_/_",
        &[
            "divide_int64: (int, int) -> int",
            "divide_uint64: (uint, uint) -> uint",
            "divide_double: (double, double) -> double",
        ],
        Costing::Unit,
        divide,
    ),
    (
        "_%_",
        &["modulo_int64: (int, int) -> int", "modulo_uint64: (uint, uint) -> uint"],
        Costing::Unit,
        modulo,
    ),
    ("-_", &["negate_int64: (int) -> int", "negate_double: (double) -> double"], Costing::Unit, negate),
    ("_<_", LESS, Costing::Unit, |_, args| order(args, Ordering::is_lt)),
    (
        "_<_",
        &["less_string: (string, string) -> bool", "less_bytes: (bytes, bytes) -> bool"],
        Costing::Compare,
        |_, args| order(args, Ordering::is_lt),
    ),
    ("_<=_", LESS_EQUAL, Costing::Unit, |_, args| order(args, Ordering::is_le)),
    (
        "_<=_",
        &["less_equals_string: (string, string) -> bool", "less_equals_bytes: (bytes, bytes) -> bool"],
        Costing::Compare,
        |_, args| order(args, Ordering::is_le),
    ),
    ("_>_", GREATER, Costing::Unit, |_, args| order(args, Ordering::is_gt)),
    (
        "_>_",
        &["greater_string: (string, string) -> bool", "greater_bytes: (bytes, bytes) -> bool"],
        Costing::Compare,
        |_, args| order(args, Ordering::is_gt),
    ),
    ("_>=_", GREATER_EQUAL, Costing::Unit, |_, args| order(args, Ordering::is_ge)),
    (
        "_>=_",
        &["greater_equals_string: (string, string) -> bool", "greater_equals_bytes: (bytes, bytes) -> bool"],
        Costing::Compare,
        |_, args| order(args, Ordering::is_ge),
    ),
];

/// The overloads of an order for all but text.
macro_rules! ordered {
    ($name:ident, $prefix:literal) => {
        static $name: &[&str] = &[
            concat!($prefix, "_bool: (bool, bool) -> bool"),
            concat!($prefix, "_int64: (int, int) -> bool"),
            concat!($prefix, "_int64_double: (int, double) -> bool"),
            concat!($prefix, "_int64_uint64: (int, uint) -> bool"),
            concat!($prefix, "_uint64: (uint, uint) -> bool"),
            concat!($prefix, "_uint64_double: (uint, double) -> bool"),
            concat!($prefix, "_uint64_int64: (uint, int) -> bool"),
            concat!($prefix, "_double: (double, double) -> bool"),
            concat!($prefix, "_double_int64: (double, int) -> bool"),
            concat!($prefix, "_double_uint64: (double, uint) -> bool"),
            concat!($prefix, "_timestamp: (timestamp, timestamp) -> bool"),
            concat!($prefix, "_duration: (duration, duration) -> bool"),
        ];
    };
}

ordered!(LESS, "less");
ordered!(LESS_EQUAL, "less_equals");
ordered!(GREATER, "greater");
ordered!(GREATER_EQUAL, "greater_equals");

/// Never reached with the right number of arguments: these are evaluated where their arguments are.
fn elsewhere<'a>(_: &mut Machine<'a>, _: &[Value<'a>]) -> Outcome<'a> {
    failed("no such overload")
}

fn not<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => failed("no such overload"),
    }
}

fn within<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [item, Value::List(list)] => Ok(Value::Bool(list.contains(item))),
        [key, Value::Map(map)] => Ok(Value::Bool(map.get(key).is_some())),
        _ => failed("no such overload"),
    }
}

/// The place a number means, if it is a whole one.
fn place(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(at) => Some(*at),
        Value::Uint(at) => i64::try_from(*at).ok(),
        Value::Double(at) if at.fract() == 0.0 && at.abs() < 9e15 => Some(*at as i64),
        _ => None,
    }
}

fn index<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::List(list), at] => {
            let Some(at) = place(at) else { return failed("no such overload") };
            match usize::try_from(at).ok().and_then(|at| list.get(at)) {
                Some(item) => Ok(item),
                None => failed(format!("index out of bounds: {at}")),
            }
        }
        [Value::Map(map), key] => {
            map.get(key).map_or_else(|| failed(format!("no such key: {}", super::format::plain(key))), Ok)
        }
        _ => failed("no such overload"),
    }
}

fn optional_index<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let [of, key] = args else { return failed("no such overload") };
    let of = match of {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => inner.as_ref(),
        other => other,
    };
    let found = match of {
        Value::List(list) => place(key).and_then(|at| usize::try_from(at).ok()).and_then(|at| list.get(at)),
        Value::Map(map) => map.get(key),
        _ => return failed("no such overload"),
    };
    Ok(Value::Optional(found.map(Rc::new)))
}

fn overflow<'a, T>(value: Option<T>, make: impl Fn(T) -> Value<'a>, what: &str) -> Outcome<'a> {
    value.map_or_else(|| failed(what), |value| Ok(make(value)))
}

const INT: &str = "integer overflow";
const UINT: &str = "unsigned integer overflow";
const TIME: &str = "timestamp overflow";

fn add<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => overflow(a.checked_add(*b), Value::Int, INT),
        [Value::Uint(a), Value::Uint(b)] => overflow(a.checked_add(*b), Value::Uint, UINT),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::Duration(a), Value::Duration(b)] => overflow(a.checked_add(*b), Value::Duration, INT),
        [Value::Timestamp(time), Value::Duration(span)] | [Value::Duration(span), Value::Timestamp(time)] => {
            moved(*time, i128::from(*span))
        }
        [Value::String(a), Value::String(b)] => {
            machine.make((a.len() + b.len()) as u64)?;
            Ok(Value::text(format!("{}{}", &**a, &**b)))
        }
        [Value::Bytes(a), Value::Bytes(b)] => {
            machine.make((a.len() + b.len()) as u64)?;
            Ok(Value::Bytes(a.iter().chain(b.iter()).copied().collect()))
        }
        [Value::List(a), Value::List(b)] => join(machine, a, b),
        _ => failed("no such overload"),
    }
}

fn join<'a>(machine: &mut Machine<'a>, a: &List<'a>, b: &List<'a>) -> Outcome<'a> {
    machine.make_items((a.len() + b.len()) as u64)?;
    Ok(Value::list(a.join(b)))
}

/// The time so many nanoseconds later.
fn moved<'a>(time: jiff::Timestamp, by: i128) -> Outcome<'a> {
    let moved = jiff::Timestamp::from_nanosecond(time.as_nanosecond() + by).ok();
    overflow(moved.filter(super::times::in_range), Value::Timestamp, TIME)
}

fn subtract<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => overflow(a.checked_sub(*b), Value::Int, INT),
        [Value::Uint(a), Value::Uint(b)] => overflow(a.checked_sub(*b), Value::Uint, UINT),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => overflow(a.checked_sub(*b), Value::Duration, INT),
        [Value::Timestamp(time), Value::Duration(span)] => moved(*time, -i128::from(*span)),
        [Value::Timestamp(a), Value::Timestamp(b)] => {
            overflow(i64::try_from(a.as_nanosecond() - b.as_nanosecond()).ok(), Value::Duration, INT)
        }
        _ => failed("no such overload"),
    }
}

fn multiply<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => overflow(a.checked_mul(*b), Value::Int, INT),
        [Value::Uint(a), Value::Uint(b)] => overflow(a.checked_mul(*b), Value::Uint, UINT),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => failed("no such overload"),
    }
}

fn divide<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => failed("division by zero"),
        [Value::Int(a), Value::Int(b)] => overflow(a.checked_div(*b), Value::Int, INT),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a / b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => failed("no such overload"),
    }
}

fn modulo<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => failed("modulus by zero"),
        [Value::Int(a), Value::Int(b)] => overflow(a.checked_rem(*b), Value::Int, INT),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a % b)),
        _ => failed("no such overload"),
    }
}

fn negate<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(value)] => overflow(value.checked_neg(), Value::Int, INT),
        [Value::Double(value)] => Ok(Value::Double(-value)),
        _ => failed("no such overload"),
    }
}

fn order<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    match args {
        [Value::Double(a), b]
            if a.is_nan() && matches!(b, Value::Int(_) | Value::Uint(_) | Value::Double(_)) =>
        {
            failed("NaN values cannot be ordered")
        }
        [_, Value::Double(b)] if b.is_nan() => failed("NaN values cannot be ordered"),
        [a, b] => {
            a.compare(b).map_or_else(|| failed("no such overload"), |order| Ok(Value::Bool(holds(order))))
        }
        _ => failed("no such overload"),
    }
}
