//! Lists as sets.

use super::Row;
use crate::cost::Costing;
use crate::eval::{Machine, Outcome, failed};
use crate::value::{List, Value};

pub(super) static ROWS: &[Row] = &[
    (
        "sets.contains",
        &["list_sets_contains_list: (list(T), list(T)) -> bool"],
        Costing::Sets(1),
        |machine, args| sets(machine, args, |a, b| b.iter().all(|item| a.contains(&item))),
    ),
    (
        "sets.equivalent",
        &["list_sets_equivalent_list: (list(T), list(T)) -> bool"],
        Costing::Sets(2),
        |machine, args| {
            sets(machine, args, |a, b| {
                b.iter().all(|item| a.contains(&item)) && a.iter().all(|item| b.contains(&item))
            })
        },
    ),
    (
        "sets.intersects",
        &["list_sets_intersects_list: (list(T), list(T)) -> bool"],
        Costing::Sets(1),
        |machine, args| sets(machine, args, |a, b| b.iter().any(|item| a.contains(&item))),
    ),
];

fn sets<'a>(
    machine: &mut Machine<'a>,
    args: &[Value<'a>],
    test: fn(&List<'a>, &List<'a>) -> bool,
) -> Outcome<'a> {
    match args {
        [Value::List(a), Value::List(b)] => {
            // Each is compared with each: that is counted before it is done.
            machine.make((a.len() as u64).saturating_mul(b.len() as u64) / 16)?;
            Ok(Value::Bool(test(a, b)))
        }
        _ => failed("no such overload"),
    }
}
