//! Regular expressions in RE2's syntax.

use super::Row;
use crate::cost::Costing;
use crate::eval::{EvalError, Machine, Outcome, failed};
use crate::value::Value;

pub(super) static ROWS: &[Row] = &[
    (
        "matches",
        &["matches: (string, string) -> bool", "matches_string: string.(string) -> bool"],
        Costing::Matches,
        matches,
    ),
    ("find", &["string_find_string: string.(string) -> string"], Costing::Find, find),
    (
        "findAll",
        &[
            "string_find_all_string: string.(string) -> list(string)",
            "string_find_all_string_int: string.(string, int) -> list(string)",
        ],
        Costing::Find,
        find_all,
    ),
];

fn matches<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            Ok(Value::Bool(machine.regex(pattern)?.is_match(text)))
        }
        _ => failed("no such overload"),
    }
}

/// Kubernetes' own functions say it so; `matches` is the language's.
fn illegal(error: EvalError) -> EvalError {
    match error {
        EvalError::Failed(why) => EvalError::Failed(format!("Illegal regex: {why}")),
        other => other,
    }
}

fn find<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            let regex = machine.regex(pattern).map_err(illegal)?;
            Ok(Value::text(regex.find(text).map_or("", |found| found.as_str())))
        }
        _ => failed("no such overload"),
    }
}

fn find_all<'a>(machine: &mut Machine<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, pattern, most) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, usize::MAX),
        [Value::String(text), Value::String(pattern), Value::Int(most)] => {
            (text, pattern, usize::try_from(*most).unwrap_or(usize::MAX))
        }
        _ => return failed("no such overload"),
    };
    let regex = machine.regex(pattern).map_err(illegal)?;
    let mut found = Vec::new();
    for part in regex.find_iter(text).take(most) {
        machine.make_items(1)?;
        machine.make(part.len() as u64)?;
        found.push(Value::text(part.as_str()));
    }
    Ok(Value::list(found))
}
