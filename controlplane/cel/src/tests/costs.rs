//! Costs: what runs cost, what is estimated, and budgets.

use serde_json::json;

use super::{object, variables};
use crate::{CALL_LIMIT, DeclType, EvalError, Program, Type, Value, Variable};

fn compile(text: &str, variables: &[Variable]) -> Program {
    Program::compile(text, variables).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn what_runs_cost() {
    let object = object();
    let declared = variables()[0].declared.clone();
    for (text, wanted) in [
        ("true", 0),
        ("self.n > 3", 3),
        ("self.a == 'hello'", 3),
        ("has(self.a)", 1),
        ("self.n > 3 && self.n < 9", 6),
        ("self.n > 3 || self.n < 9", 3),
        ("[1, 2, 3]", 0),
        ("[self.n]", 12),
        ("{'a': 1}", 0),
        ("{'a': self.n}", 32),
        ("self.a in ['x', 'y']", 2),
        ("type(self.t) == google.protobuf.Timestamp", 4),
        ("self.t > timestamp('2024-01-01T00:00:00Z')", 3),
        ("self.m.all(k, self.m[k] != '')", 2 + 2 * (2 + 1 + 3) + 1),
        ("self.m.exists_one(k, self.m[k] == 'v')", 2 + (3 + 1 + 2) + (3 + 1) + 2),
        ("self.b ? self.a : self.a", 2),
        ("self.l.filter(x, x == 'x')", 2 + (1 + 1 + 13) + 2 * 2 + 1),
        ("self.l.all(x, x != '')", 2 + 3 * (2 + 1 + 1) + 1),
        ("self.l.exists(x, x == 'x')", 2 + (3 + 1 + 1 + 1) + 3 + 1),
        ("self.a.startsWith('he')", 3),
        ("self.a.matches('h.*o')", 3),
        ("self.a + self.a", 5),
        ("self.l[0]", 3),
        ("'x' in self.l", 5),
        ("quantity('1Gi').isGreaterThan(quantity('1Mi'))", 3),
        ("self.l.map(x, x)", 2 + 3 * (1 + 1 + 10 + 1) + 1),
        ("[3, 1, 2].sort()", 10 + 1 + 18),
    ] {
        let program = compile(text, &variables());
        let run = program.run(&[("self", Value::from_json(&object, Some(&declared)))], CALL_LIMIT);
        assert!(run.value.is_ok(), "{text}: {:?}", run.value);
        assert_eq!(run.cost, wanted, "{text}");
    }
}

/// A variable `self` of a declared type.
fn of(declared: DeclType) -> Vec<Variable> {
    vec![Variable { name: "self".to_owned(), declared: declared.into() }]
}

fn string(max: u64) -> DeclType {
    DeclType { max_elements: max, ..DeclType::simple(Type::String).as_ref().clone() }
}

fn list(item: DeclType, max: u64) -> DeclType {
    DeclType { max_elements: max, ..DeclType::list(item.into()).as_ref().clone() }
}

#[test]
fn what_is_estimated() {
    let nested = || list(list(string(10), 20), 30);
    for (declared, text, wanted) in [
        (DeclType::simple(Type::Int).as_ref().clone(), "self > 3", 2),
        (string(10), "self == 'abc'", 2),
        (string(100), "self.startsWith('abc')", 2),
        (string(100), "self.contains('abc')", 11),
        (string(100), "self.matches('a.*c')", 12),
        (string(100), "self + self == 'x'", 23),
        (list(string(10), 20), "self.all(x, x == 'a')", 20 * 5 + 2),
        (list(string(10), 20), "'a' in self", 21),
        (nested(), "self.all(l, l.all(x, x == 'a'))", 30 * (2 + 1 + (20 * 5 + 2)) + 2),
        (string(100), "quantity(self) == quantity('1')", 13),
        (string(100), "url(self).getScheme() == 'https'", 13),
        (
            list(string(10), 20),
            "self.map(x, x + 'y').size() > 0",
            1 + 10 + 20 * (1 + 1 + 2 + 10 + 1) + 1 + 1 + 1,
        ),
    ] {
        assert_eq!(compile(text, &of(declared)).cost().max, wanted, "{text}");
    }
}

#[test]
fn texts_of_unknown_length_are_costly() {
    for text in ["'got ' + string(self)", "string(self) + 'x' == 'y'"] {
        let declared = DeclType::simple(Type::Int).as_ref().clone();
        assert!(compile(text, &of(declared)).cost().max > 1_000_000_000_000, "{text}");
    }
}

#[test]
fn budgets_end_what_costs_too_much() {
    let program = compile(
        "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))",
        &of(list(DeclType::simple(Type::Int).as_ref().clone(), 1000)),
    );
    let values = json!((0..200).collect::<Vec<i64>>());
    let run = program.run(&[("self", Value::from_json(&values, None))], CALL_LIMIT);
    assert_eq!(run.value.err(), Some(EvalError::OverBudget));
    assert!(run.cost <= CALL_LIMIT + 100);
    assert_eq!(EvalError::OverBudget.to_string(), "operation cancelled: actual cost limit exceeded");
}

#[test]
fn what_costs_little_but_grows_without_end_is_ended_too() {
    let doubled = "[[1, 2]]".to_owned() + &".map(a, a + a)".repeat(40);
    let text = "['ab']".to_owned() + &".map(a, a + a)".repeat(40);
    let ranged = "lists.range(9000000).map(a, lists.range(9000000))";
    let replaced = "'%s'.format([[1]]).replace('', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')".to_owned()
        + &".replace('x', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')".repeat(12);
    let optional = "optional.of(1)".to_owned() + &".optMap(x, x)".repeat(60);
    for text in [doubled.as_str(), &text, ranged, &replaced, &optional] {
        match Program::compile(text, &variables()) {
            Ok(program) => assert_eq!(
                program.run(&[], CALL_LIMIT).value.err(),
                Some(EvalError::OverBudget),
                "{text:.60}"
            ),
            Err(errors) => assert!(errors.text.contains("too large"), "{errors}"),
        }
    }
}

#[test]
fn what_nests_as_deep_as_it_may_runs_on_a_small_stack() {
    let nested = "[".repeat(110) + "1" + &"]".repeat(110);
    let looped = "[1].all(x, ".repeat(80) + "true" + &")".repeat(80);
    let branched = "false ? 1 : ".repeat(100) + "2";
    let called = "int(".repeat(110) + "1" + &")".repeat(110);
    for text in [
        "1".to_owned() + &" + 1".repeat(240),
        nested,
        looped,
        branched,
        called,
        "a".to_owned() + &".b".repeat(240),
    ] {
        let run = move || {
            let variables = [Variable { name: "a".to_owned(), declared: DeclType::dynamic() }];
            let program = compile(&text, &variables);
            let empty = json!({});
            let _ = program.run(&[("a", Value::from_json(&empty, None))], CALL_LIMIT);
        };
        // As small as the stacks of the threads that serve requests.
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run);
        assert!(thread.is_ok_and(|thread| thread.join().is_ok()));
    }
}

#[test]
fn long_expressions_are_read_in_reasonable_time() {
    let begun = std::time::Instant::now();
    let wrong = "nope && ".repeat(12_000) + "'\u{e9}' == ''";
    let errors = Program::compile(&wrong, &[]).err();
    let text = errors.map(|errors| errors.text).unwrap_or_default();
    assert!(text.ends_with("\n11900 more errors were truncated"), "{:.300}", text);
    // Quadratic reading takes minutes.
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}
