//! Quantities (`1Gi`, `100m`).

use std::cmp::Ordering;

use pagurus_controlplane_api::quantity::{Format, Quantity};

use super::{Opaque, Row};
use crate::cost::Costing;
use crate::eval::{Outcome, failed};
use crate::value::Value;

/// A quantity as a value of expressions.
pub type Amount = Quantity;

pub(super) static ROWS: &[Row] = &[
    ("quantity", &["string_to_quantity: (string) -> kubernetes.Quantity"], Costing::Parse, |_, args| {
        match args {
            [Value::String(text)] => text.parse().map_or_else(
                |error: pagurus_controlplane_api::quantity::QuantityError| failed(error.to_string()),
                made,
            ),
            _ => failed("no such overload"),
        }
    }),
    ("isQuantity", &["is_quantity_string: (string) -> bool"], Costing::Parse, |_, args| match args {
        [Value::String(text)] => Ok(Value::Bool(text.parse::<Quantity>().is_ok())),
        _ => failed("no such overload"),
    }),
    // Unlike the others, and unlike its documentation, this one is not called on a quantity.
    ("sign", &["quantity_sign: (kubernetes.Quantity) -> int"], Costing::Unit, |_, args| {
        one(args, |a| Ok(Value::Int(a.sign().into())))
    }),
    ("isInteger", &["quantity_is_integer: kubernetes.Quantity.() -> bool"], Costing::Unit, |_, args| {
        one(args, |a| Ok(Value::Bool(whole(a).is_some())))
    }),
    ("asInteger", &["quantity_as_integer: kubernetes.Quantity.() -> int"], Costing::Unit, |_, args| {
        one(args, |a| {
            whole(a).map_or_else(|| failed("cannot convert value to integer"), |value| Ok(Value::Int(value)))
        })
    }),
    (
        "asApproximateFloat",
        &["quantity_as_float: kubernetes.Quantity.() -> double"],
        Costing::Unit,
        |_, args| one(args, |a| Ok(Value::Double(a.as_f64()))),
    ),
    (
        "add",
        &[
            "quantity_add: kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity",
            "quantity_add_int: kubernetes.Quantity.(int) -> kubernetes.Quantity",
        ],
        Costing::Unit,
        |_, args| two(args, |a, b| made(a + b)),
    ),
    (
        "sub",
        &[
            "quantity_sub: kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity",
            "quantity_sub_int: kubernetes.Quantity.(int) -> kubernetes.Quantity",
        ],
        Costing::Unit,
        |_, args| two(args, |a, b| made(a - b)),
    ),
    (
        "isLessThan",
        &["quantity_is_less_than: kubernetes.Quantity.(kubernetes.Quantity) -> bool"],
        Costing::Unit,
        |_, args| two(args, |a, b| Ok(Value::Bool(a < b))),
    ),
    (
        "isGreaterThan",
        &["quantity_is_greater_than: kubernetes.Quantity.(kubernetes.Quantity) -> bool"],
        Costing::Unit,
        |_, args| two(args, |a, b| Ok(Value::Bool(a > b))),
    ),
    (
        "compareTo",
        &["quantity_compare_to: kubernetes.Quantity.(kubernetes.Quantity) -> int"],
        Costing::Unit,
        |_, args| two(args, |a, b| Ok(Value::Int(sign(a.cmp(&b))))),
    ),
];

/// An order as a number.
pub(super) fn sign(order: Ordering) -> i64 {
    match order {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}

fn made<'a>(amount: Quantity) -> Outcome<'a> {
    Ok(Value::opaque(Opaque::Quantity(amount)))
}

/// The whole number it is, if it is one that fits.
fn whole(amount: Quantity) -> Option<i64> {
    (amount.is_integer() && amount.value() != i64::MAX).then(|| amount.value())
}

fn amount(value: &Value<'_>) -> Option<Quantity> {
    match value {
        Value::Opaque(opaque) if let Opaque::Quantity(amount) = opaque.as_ref() => Some(*amount),
        Value::Int(value) => Some(Quantity::from_value(*value, Format::DecimalSi)),
        _ => None,
    }
}

fn one<'a>(args: &[Value<'a>], make: fn(Quantity) -> Outcome<'a>) -> Outcome<'a> {
    args.first().and_then(amount).map_or_else(|| failed("no such overload"), make)
}

fn two<'a>(args: &[Value<'a>], make: fn(Quantity, Quantity) -> Outcome<'a>) -> Outcome<'a> {
    match (args.first().and_then(amount), args.get(1).and_then(amount)) {
        (Some(a), Some(b)) => make(a, b),
        _ => failed("no such overload"),
    }
}
