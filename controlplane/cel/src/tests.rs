//! Expressions with what they are expected to come to: value, type, costs and errors, library by library.

mod costs;
mod errors;
mod libraries;
mod random;

use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::library::format;
use crate::{CALL_LIMIT, DeclType, Program, Type, Value, Variable};

/// The variables of these tests: `self`, an object with a field of each kind, and `any`, of which nothing is declared.
fn variables() -> Vec<Variable> {
    let string = DeclType::simple(Type::String);
    let item = DeclType::object("Item", &[("name", string.clone()), ("port", DeclType::simple(Type::Int))]);
    let fields: [(&str, Arc<DeclType>); 9] = [
        ("a", string.clone()),
        ("n", DeclType::simple(Type::Int)),
        ("d", DeclType::simple(Type::Double)),
        ("b", DeclType::simple(Type::Bool)),
        ("l", DeclType::list(string.clone())),
        ("items", DeclType::list(item)),
        ("m", DeclType::map(string)),
        ("t", DeclType::simple(Type::Timestamp)),
        ("x", DeclType::dynamic()),
    ];
    vec![
        Variable { name: "self".to_owned(), declared: DeclType::object("Self", &fields) },
        Variable { name: "any".to_owned(), declared: DeclType::dynamic() },
    ]
}

fn object() -> Json {
    json!({
        "a": "hello", "n": 7, "d": 2, "b": true, "l": ["x", "y", "z"], "items": [{"name": "p", "port": 1}, {"name": "q", "port": 2}],
        "m": {"k": "v", "other": "w"}, "t": "2024-02-29T12:30:45.678Z", "x": 5
    })
}

/// What an expression comes to, as text; `error: ...` where it fails.
fn evaluate(text: &str) -> String {
    let program = match Program::compile(text, &variables()) {
        Ok(program) => program,
        Err(errors) => return format!("does not compile: {errors}"),
    };
    let (object, any) =
        (object(), json!({"s": "text", "n": 3, "list": [1, 2.5, "three", null], "o": {"k": 1}}));
    let declared = variables()[0].declared.clone();
    let run = program.run(
        &[("self", Value::from_json(&object, Some(&declared))), ("any", Value::from_json(&any, None))],
        CALL_LIMIT,
    );
    match run.value {
        Ok(value) => show(&value),
        Err(error) => format!("error: {error}"),
    }
}

/// A value as an expression would write it.
fn show(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => format!("'{}'", &**text),
        Value::Uint(value) => format!("{value}u"),
        Value::Double(value) => format!("{value:?}"),
        Value::List(list) => {
            format!("[{}]", list.iter().map(|item| show(&item)).collect::<Vec<_>>().join(", "))
        }
        Value::Map(map) => {
            let entries: Vec<String> = map
                .keys()
                .iter()
                .map(|key| {
                    format!("{}: {}", show(key), map.get(key).map_or_else(String::new, |value| show(&value)))
                })
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Optional(Some(value)) => format!("some({})", show(value)),
        Value::Optional(None) => "none".to_owned(),
        Value::Opaque(opaque) => format!("{opaque:?}"),
        other => format::plain(other),
    }
}

/// Checks rows of expression and result.
fn check(rows: &[(&str, &str)]) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(text, wanted)| {
            Some((text, wanted, evaluate(text))).filter(|(_, wanted, got)| got != *wanted)
        })
        .map(|(text, wanted, got)| format!("{text}\n  wanted {wanted}\n  got    {got}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
