//! Expressions made at random: whatever is written, nothing panics, and what was checked evaluates or fails with an error.

use proptest::prelude::*;
use serde_json::json;

use super::{object, variables};
use crate::{CALL_LIMIT, Program, Value};

fn atom() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("1".to_owned()),
        Just("-9223372036854775808".to_owned()),
        Just("0u".to_owned()),
        Just("1.5".to_owned()),
        Just("'é'".to_owned()),
        Just("b'x'".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("any".to_owned()),
        Just("any.list".to_owned()),
        Just("self.a".to_owned()),
        Just("self.l".to_owned()),
        Just("self.m".to_owned()),
        Just("self.items".to_owned()),
        Just("self.t".to_owned()),
        Just("duration('1h')".to_owned()),
        Just("quantity('1Gi')".to_owned()),
        Just("ip('::1')".to_owned()),
        Just("cidr('10.0.0.0/8')".to_owned()),
        Just("optional.of(any)".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    atom().prop_recursive(4, 24, 3, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "<", "&&", "||", "in"]);
        let method = prop::sample::select(vec![
            "size",
            "sum",
            "sort",
            "reverse",
            "distinct",
            "flatten",
            "trim",
            "lowerAscii",
            "hasValue",
            "value",
            "getHours",
            "isSorted",
            "min",
            "first",
            "join",
            "split",
            "substring",
            "charAt",
            "indexOf",
            "format",
            "matches",
            "findAll",
            "contains",
            "containsIP",
            "replace",
            "add",
            "or",
            "orValue",
            "slice",
            "validate",
        ]);
        let function = prop::sample::select(vec![
            "int",
            "uint",
            "double",
            "string",
            "bytes",
            "bool",
            "duration",
            "timestamp",
            "dyn",
            "type",
            "size",
            "quantity",
            "semver",
            "url",
            "ip",
            "cidr",
            "isURL",
            "lists.range",
            "sets.contains",
            "has",
        ]);
        let looped =
            prop::sample::select(vec!["all", "exists", "exists_one", "map", "filter", "sortBy", "optMap"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone())
                .prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            (inner.clone(), method, prop::collection::vec(inner.clone(), 0..3))
                .prop_map(|(target, method, args)| format!("dyn({target}).{method}({})", args.join(", "))),
            (function, inner.clone()).prop_map(|(function, arg)| format!("{function}(dyn({arg}))")),
            (inner.clone(), looped, inner.clone())
                .prop_map(|(target, looped, body)| format!("{target}.{looped}(x, {body} == dyn(x))")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} == {b} ? dyn({b}) : dyn({c}))")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("dyn({a})[{b}]")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("{{'k': dyn({a}), 'l': dyn({b})}}.?k")),
        ]
    })
}

fn run(text: &str) {
    let Ok(program) = Program::compile(text, &variables()) else { return };
    let (object, any) = (object(), json!({"list": [1, 2.5, "three", null, [4]], "o": {"k": 1}}));
    let declared = variables()[0].declared.clone();
    let run = program.run(
        &[("self", Value::from_json(&object, Some(&declared))), ("any", Value::from_json(&any, None))],
        CALL_LIMIT,
    );
    assert!(run.cost <= CALL_LIMIT || run.value.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn expressions_made_of_parts(text in expression()) {
        run(&text);
    }

    #[test]
    fn any_text(text in "[-a-c0-9.,:?(){}\\[\\] '\"+*/%<>=!&|\\\\\u{e9}\n`]{0,40}") {
        run(&text);
    }

    #[test]
    fn any_characters(text in any::<String>()) {
        run(&text);
    }
}
