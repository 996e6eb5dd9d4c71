//! Lists: Kubernetes' own functions, and cel-go's list extension in version 3.

use std::cmp::Ordering;

use super::Row;
use crate::cost::Costing;
use crate::eval::{Machine, Outcome, failed};
use crate::value::{List, Value};

/// Overloads for each type that has an order.
macro_rules! comparable {
    ($prefix:literal, $suffix:literal, $args:literal, $result:literal, $($name:literal : $of:literal),*) => {
        &[$(concat!($prefix, $name, $suffix, ": list(", $of, ").(", $args, ") -> ", $result)),*]
    };
}

pub(super) static ROWS: &[Row] = &[
    (
        "isSorted",
        comparable!("list_", "_is_sorted_bool", "", "bool", "int": "int", "uint": "uint", "double": "double", "bool": "bool", "duration": "duration", "timestamp": "timestamp", "string": "string", "bytes": "bytes"),
        Costing::Scan,
        is_sorted,
    ),
    ("sum", &["list_int_sum_int: list(int).() -> int"], Costing::Scan, |_, args| sum(args, Value::Int(0))),
    ("sum", &["list_uint_sum_uint: list(uint).() -> uint"], Costing::Scan, |_, args| {
        sum(args, Value::Uint(0))
    }),
    ("sum", &["list_double_sum_double: list(double).() -> double"], Costing::Scan, |_, args| {
        sum(args, Value::Double(0.0))
    }),
    ("sum", &["list_duration_sum_duration: list(duration).() -> duration"], Costing::Scan, |_, args| {
        sum(args, Value::Duration(0))
    }),
    ("min", MIN, Costing::Scan, |_, args| extreme(args, Ordering::Less, "min")),
    ("max", MAX, Costing::Scan, |_, args| extreme(args, Ordering::Greater, "max")),
    ("indexOf", &["list_a_index_of_int: list(A).(A) -> int"], Costing::Scan, |_, args| place(args, false)),
    ("lastIndexOf", &["list_a_last_index_of_int: list(A).(A) -> int"], Costing::Scan, |_, args| {
        place(args, true)
    }),
    ("slice", &["list_slice: list(T).(int, int) -> list(T)"], Costing::Output, slice),
    (
        "flatten",
        &["list_flatten: list(list(T)).() -> list(T)", "list_flatten_int: list(dyn).(int) -> list(dyn)"],
        Costing::Flatten,
        flatten,
    ),
    (
        "sort",
        &[
            "list_int_sort: list(int).() -> list(int)",
            "list_uint_sort: list(uint).() -> list(uint)",
            "list_double_sort: list(double).() -> list(double)",
            "list_bool_sort: list(bool).() -> list(bool)",
            "list_google.protobuf.Duration_sort: list(duration).() -> list(duration)",
            "list_google.protobuf.Timestamp_sort: list(timestamp).() -> list(timestamp)",
            "list_string_sort: list(string).() -> list(string)",
            "list_bytes_sort: list(bytes).() -> list(bytes)",
        ],
        Costing::Sort,
        |machine, args| sort(machine, &[args[0].clone(), args[0].clone()]),
    ),
    (
        "@sortByAssociatedKeys",
        &[
            "list_int_sortByAssociatedKeys: list(T).(list(int)) -> list(T)",
            "list_uint_sortByAssociatedKeys: list(T).(list(uint)) -> list(T)",
            "list_double_sortByAssociatedKeys: list(T).(list(double)) -> list(T)",
            "list_bool_sortByAssociatedKeys: list(T).(list(bool)) -> list(T)",
            "list_google.protobuf.Duration_sortByAssociatedKeys: list(T).(list(duration)) -> list(T)",
            "list_google.protobuf.Timestamp_sortByAssociatedKeys: list(T).(list(timestamp)) -> list(T)",
            "list_string_sortByAssociatedKeys: list(T).(list(string)) -> list(T)",
            "list_bytes_sortByAssociatedKeys: list(T).(list(bytes)) -> list(T)",
        ],
        Costing::SortBy,
        sort,
    ),
    ("lists.range", &["lists_range: (int) -> list(int)"], Costing::Output, range),
    ("reverse", &["list_reverse: list(T).() -> list(T)"], Costing::Output, reverse),
    ("distinct", &["list_distinct: list(T).() -> list(T)"], Costing::Distinct, distinct),
];

/// The overloads of `min` and `max`: an item of the list's type.
macro_rules! extremes {
    ($name:ident, $what:literal) => {
        static $name: &[&str] = &[
            concat!("list_int_", $what, "_int: list(int).() -> int"),
            concat!("list_uint_", $what, "_uint: list(uint).() -> uint"),
            concat!("list_double_", $what, "_double: list(double).() -> double"),
            concat!("list_bool_", $what, "_bool: list(bool).() -> bool"),
            concat!("list_duration_", $what, "_duration: list(duration).() -> duration"),
            concat!("list_timestamp_", $what, "_timestamp: list(timestamp).() -> timestamp"),
            concat!("list_string_", $what, "_string: list(string).() -> string"),
            concat!("list_bytes_", $what, "_bytes: list(bytes).() -> bytes"),
        ];
    };
}

extremes!(MIN, "min");
extremes!(MAX, "max");

fn list<'l, 'a>(args: &'l [Value<'a>]) -> Result<&'l List<'a>, crate::eval::EvalError> {
    match args.first() {
        Some(Value::List(list)) => Ok(list),
        _ => failed("no such overload"),
    }
}

fn is_sorted<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut previous: Option<Value<'a>> = None;
    for item in list(args)?.iter() {
        if let Some(previous) = &previous {
            match previous.compare(&item) {
                Some(Ordering::Greater) => return Ok(Value::Bool(false)),
                Some(_) => {}
                None => return failed("no such overload"),
            }
        }
        previous = Some(item);
    }
    Ok(Value::Bool(true))
}

/// The sum, which is `zero` of nothing.
fn sum<'a>(args: &[Value<'a>], zero: Value<'a>) -> Outcome<'a> {
    let overflow = |what: &str| failed(format!("{what} overflow"));
    let mut sum = zero;
    for item in list(args)?.iter() {
        sum = match (sum, item) {
            (Value::Int(a), Value::Int(b)) => {
                a.checked_add(b).map_or_else(|| overflow("integer"), |sum| Ok(Value::Int(sum)))?
            }
            (Value::Uint(a), Value::Uint(b)) => {
                a.checked_add(b).map_or_else(|| overflow("unsigned integer"), |sum| Ok(Value::Uint(sum)))?
            }
            (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
            (Value::Duration(a), Value::Duration(b)) => {
                a.checked_add(b).map_or_else(|| overflow("integer"), |sum| Ok(Value::Duration(sum)))?
            }
            _ => return failed("no such overload"),
        };
    }
    Ok(sum)
}

fn extreme<'a>(args: &[Value<'a>], wanted: Ordering, name: &str) -> Outcome<'a> {
    let mut found: Option<Value<'a>> = None;
    for item in list(args)?.iter() {
        found = Some(match found {
            None => item,
            Some(other) => match item.compare(&other) {
                Some(order) if order == wanted => item,
                Some(_) => other,
                None => return failed("no such overload"),
            },
        });
    }
    found.map_or_else(|| failed(format!("{name} called on empty list")), Ok)
}

fn place<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let (list, [_, wanted]) = (list(args)?, args) else { return failed("no such overload") };
    let mut places = (0..list.len()).filter(|at| list.get(*at).is_some_and(|item| item.equals(wanted)));
    let found = if last { places.next_back() } else { places.next() };
    Ok(Value::Int(found.map_or(-1, |at| at as i64)))
}

fn slice<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, [_, Value::Int(start), Value::Int(end)]) = (list(args)?, args) else {
        return failed("no such overload");
    };
    let length = list.len() as i64;
    let problem = match () {
        () if *start < 0 || *end < 0 => Some("negative indexes not supported".to_owned()),
        () if start > end => Some("start index must be less than or equal to end index".to_owned()),
        () if length < *end => Some(format!("list is length {length}")),
        () => None,
    };
    if let Some(problem) = problem {
        return failed(format!("cannot slice({start}, {end}), {problem}"));
    }
    machine.make_items((end - start) as u64)?;
    Ok(Value::list((*start as usize..*end as usize).filter_map(|at| list.get(at)).collect()))
}

fn flatten<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let depth = match args.get(1) {
        None => 1,
        Some(Value::Int(depth)) if *depth >= 0 => *depth,
        Some(Value::Int(_)) => return failed("level must be non-negative"),
        Some(_) => return failed("no such overload"),
    };
    let mut flat = Vec::new();
    // Lists nest no deeper than expressions and objects do.
    spread(machine, list(args)?, depth, &mut flat)?;
    Ok(Value::list(flat))
}

fn spread<'a>(
    machine: &mut Machine<'a>,
    list: &List<'a>,
    depth: i64,
    flat: &mut Vec<Value<'a>>,
) -> Result<(), crate::eval::EvalError> {
    for item in list.iter() {
        match item {
            Value::List(inner) if depth > 0 => spread(machine, &inner, depth - 1, flat)?,
            item => {
                machine.make_items(1)?;
                flat.push(item);
            }
        }
    }
    Ok(())
}

fn sort<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), Value::List(keys)] = args else { return failed("no such overload") };
    if list.len() != keys.len() {
        return failed(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            list.len(),
            keys.len()
        ));
    }
    machine.make_items(list.len() as u64)?;
    let keys: Vec<Value<'a>> = keys.iter().collect();
    let Some(first) = keys.first() else { return Ok(args[0].clone()) };
    let ordered = |value: &Value<'a>| {
        matches!(
            value,
            Value::Int(_)
                | Value::Uint(_)
                | Value::Double(_)
                | Value::Bool(_)
                | Value::Duration(_)
                | Value::Timestamp(_)
                | Value::String(_)
                | Value::Bytes(_)
        )
    };
    if !ordered(first) {
        return failed("list elements must be comparable");
    }
    if keys.iter().any(|key| std::mem::discriminant(key) != std::mem::discriminant(first)) {
        return failed("list elements must have the same type");
    }
    let mut places: Vec<usize> = (0..keys.len()).collect();
    places.sort_by(|a, b| keys[*a].compare(&keys[*b]).unwrap_or(Ordering::Equal));
    Ok(Value::list(places.into_iter().filter_map(|at| list.get(at)).collect()))
}

fn range<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(size)] if *size < 0 => {
            failed(format!("lists.range: size must be non-negative, got {size}"))
        }
        [Value::Int(size)] => {
            machine.make_items(*size as u64)?;
            Ok(Value::list((0..*size).map(Value::Int).collect()))
        }
        _ => failed("no such overload"),
    }
}

fn reverse<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let list = list(args)?;
    machine.make_items(list.len() as u64)?;
    Ok(Value::list((0..list.len()).rev().filter_map(|at| list.get(at)).collect()))
}

fn distinct<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let list = list(args)?;
    // Each is compared with each: that is counted before it is done.
    let length = list.len() as u64;
    machine.make(length.saturating_mul(length) / 16)?;
    let mut found: Vec<Value<'a>> = Vec::new();
    for item in list.iter() {
        if !found.iter().any(|other| other.equals(&item)) {
            found.push(item);
        }
    }
    Ok(Value::list(found))
}
