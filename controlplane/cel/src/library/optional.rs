//! Values that may be absent.

use super::Row;
use crate::cost::Costing;
use crate::eval::{Machine, Outcome, failed};
use crate::value::Value;

pub(super) static ROWS: &[Row] = &[
    ("optional.none", &["optional_none: () -> optional(V)"], Costing::Unit, |_, _| Ok(Value::Optional(None))),
    ("optional.of", &["optional_of: (V) -> optional(V)"], Costing::Unit, |_, args| {
        Ok(Value::some(args[0].clone()))
    }),
    ("optional.ofNonZeroValue", &["optional_ofNonZeroValue: (V) -> optional(V)"], Costing::Unit, of_non_zero),
    ("hasValue", &["optional_hasValue: optional(V).() -> bool"], Costing::Unit, |_, args| {
        Ok(Value::Bool(matches!(args[0], Value::Optional(Some(_)))))
    }),
    ("value", &["optional_value: optional(V).() -> V"], Costing::Unit, value),
    ("or", &["optional_or_optional: optional(V).(optional(V)) -> optional(V)"], Costing::Unit, |_, _| {
        failed("no such overload")
    }),
    ("orValue", &["optional_orValue_value: optional(V).(V) -> V"], Costing::Unit, |_, _| {
        failed("no such overload")
    }),
    ("first", &["list_first: list(V).() -> optional(V)"], Costing::Unit, |_, args| end(args, false)),
    ("last", &["list_last: list(V).() -> optional(V)"], Costing::Unit, |_, args| end(args, true)),
    ("optional.unwrap", &["optional_unwrap: (list(optional(V))) -> list(V)"], Costing::Unit, unwrap),
    ("unwrapOpt", &["optional_unwrapOpt: list(optional(V)).() -> list(V)"], Costing::Unit, unwrap),
];

fn of_non_zero<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let zero = match &args[0] {
        Value::Null
        | Value::Bool(false)
        | Value::Int(0)
        | Value::Uint(0)
        | Value::Duration(0)
        | Value::Optional(None) => true,
        Value::Double(value) => *value == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.len() == 0,
        Value::Map(map) => map.len() == 0,
        _ => false,
    };
    Ok(if zero { Value::Optional(None) } else { Value::some(args[0].clone()) })
}

fn value<'a>(_: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Optional(Some(value)) => Ok(value.as_ref().clone()),
        Value::Optional(None) => failed("optional.none() dereference"),
        _ => failed("no such overload"),
    }
}

fn end<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    match &args[0] {
        Value::List(list) => {
            let at = if last { list.len().checked_sub(1) } else { Some(0) };
            Ok(at.and_then(|at| list.get(at)).map_or(Value::Optional(None), Value::some))
        }
        _ => failed("no such overload"),
    }
}

fn unwrap<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::List(list) = &args[0] else { return failed("no such overload") };
    machine.make_items(list.len() as u64)?;
    let mut there = Vec::new();
    for item in list.iter() {
        match item {
            Value::Optional(Some(value)) => there.push(value.as_ref().clone()),
            Value::Optional(None) => {}
            _ => return failed("no such overload"),
        }
    }
    Ok(Value::list(there))
}
