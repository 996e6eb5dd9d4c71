//! Expressions (CEL): whatever is written, it is refused with a place, or evaluates within its budget, the same each time.

use pagurus_controlplane_cel::{CALL_LIMIT, DeclType, EvalError, Program, Type, Value, Variable};
use serde_json::json;

/// An expression over an object of which something is declared, and one of which nothing is.
pub(crate) fn expression(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variables = variables();
    let compile = || Program::compile_with_bindings(text, &variables);
    let program = match compile() {
        Ok(program) => program,
        Err(errors) => {
            assert!(!errors.errors.is_empty(), "an error says what is wrong");
            let again = compile().expect_err("an expression that is wrong stays wrong");
            return assert_eq!(again.text, errors.text, "the same errors");
        }
    };
    assert!(program.cost().min <= program.cost().max, "an estimate is a range");
    let (object, any) = (
        json!({"name": "caf\u{e9}", "count": 3, "list": ["a", "b", "c"], "labels": {"k": "v"}, "at": "2024-02-29T12:00:00Z"}),
        json!({"list": [1, 2.5, "three", null, [4], {"a": 5}], "o": {"k": true}}),
    );
    let run = || {
        let declared = Some(&*variables[0].declared);
        program.run(
            &[("self", Value::from_json(&object, declared)), ("any", Value::from_json(&any, None))],
            CALL_LIMIT,
        )
    };
    let (first, second) = (run(), run());
    assert_eq!(first.cost, second.cost, "the same cost");
    assert_eq!(format!("{:?}", first.value), format!("{:?}", second.value), "the same value");
    if first.cost > CALL_LIMIT {
        assert_eq!(first.value.err(), Some(EvalError::OverBudget), "the budget ends what costs too much");
    }
}

fn variables() -> [Variable; 2] {
    let text = DeclType::simple(Type::String);
    let fields = [
        ("name", text.clone()),
        ("count", DeclType::simple(Type::Int)),
        ("list", DeclType::list(text.clone())),
        ("labels", DeclType::map(text)),
        ("at", DeclType::simple(Type::Timestamp)),
    ];
    let variable = |name: &str, declared| Variable { name: name.to_owned(), declared };
    [variable("self", DeclType::object("Self", &fields)), variable("any", DeclType::dynamic())]
}

pub(crate) fn expression_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "self.name.startsWith('caf') && self.count > 2 || size(self.list) == 0",
        "self.list.all(x, x.matches('^[a-z]+$')) ? self.labels['k'] : \"none\"",
        "any.list.map(x, dyn(x) == 1).filter(b, b).size() + int('4') * -2 % 3",
        "{'a': [1, 2u, 3.5e1], \"b\": null}.exists(k, v, k in self.labels && v != null)",
        "self.at + duration('1h30m') > timestamp('2024-01-01T00:00:00Z') && self.at.getFullYear('UTC') == 2024",
        "has(any.o.k) && any.?o.?z.orValue(false) == optional.none().or(optional.of(true)).value()",
        "quantity('1.5Gi').add(quantity('100m')).compareTo(quantity('2e9')) < 0 && isQuantity(self.name)",
        "url('https://u@h:80/p%20q?a=1&a=2#f').getQuery()['a'][0] == '1' && isURL('/x')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && ip('::1').family() == 6 && !isCIDR('x')",
        "semver('1.2.3-rc.1+b').isLessThan(semver('v2', true)) && isSemver('1.0')",
        "'%s %d %.2f %x %b %e'.format(['a', 1, 2.5, 255, true, 1e10]).replace(' ', '').split('', 5).join('-')",
        "format.dns1123Label().validate(self.name).hasValue() && strings.quote('\\u00e9\\n') != r'\\x'",
        "[3, 1, 2].sort().reverse().distinct().slice(0, 2).sum() + lists.range(5).max()",
        "[[1], [2, [3]]].flatten().size() == 3 && sets.contains([1, 2], [2]) && [1, 2].isSorted()",
        "self.list.transformMap(i, v, i > 0, v + '!').transformList(k, v, v)[0].substring(1, 2).charAt(0)",
        "cel.bind(x, self.list, x + x).sortBy(e, -size(e)).first().optMap(e, e.lowerAscii().trim())",
        "b'\\x41\\101' + bytes('\u{e9}') != b'''''' && type(self) == map || '''a''' == R\"\"\"b\"\"\"",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
