//! What does not compile, in cel-go's words.

use super::variables;
use crate::Program;

#[test]
fn type_errors() {
    let rows: &[(&str, &str)] = &[
        ("nope", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^"),
        ("self.zzz == 1", "ERROR: <input>:1:5: undefined field 'zzz'\n | self.zzz == 1\n | ....^"),
        (
            "self.n + 'a'",
            "ERROR: <input>:1:8: found no matching overload for '_+_' applied to '(int, string)'\n | self.n + 'a'\n | .......^",
        ),
        (
            "self.n == 1.0",
            "ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, double)'\n | self.n == 1.0\n | .......^",
        ),
        (
            "self.a.nope()",
            "ERROR: <input>:1:12: undeclared reference to 'nope' (in container '')\n | self.a.nope()\n | ...........^",
        ),
        (
            "self.a.startsWith(1)",
            "ERROR: <input>:1:18: found no matching overload for 'startsWith' applied to 'string.(int)'\n | self.a.startsWith(1)\n | .................^",
        ),
        (
            "self.n.x",
            "ERROR: <input>:1:7: type 'int' does not support field selection\n | self.n.x\n | ......^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        (
            "{'a': 1, 'b': 'c'}",
            "ERROR: <input>:1:15: expected type 'int' but found 'string'\n | {'a': 1, 'b': 'c'}\n | ..............^",
        ),
        (
            "[?optional.of(1), 'a', 2]",
            "ERROR: <input>:1:19: expected type 'int' but found 'string'\n | [?optional.of(1), 'a', 2]\n | ..................^",
        ),
        (
            "self.n.all(x, true)",
            "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | self.n.all(x, true)\n | ....^",
        ),
        (
            "self.l.all(x, x)",
            "ERROR: <input>:1:11: found no matching overload for '_&&_' applied to '(bool, string)'\n | self.l.all(x, x)\n | ..........^",
        ),
        (
            "'a'.matches('(')",
            "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('(')\n | ............^",
        ),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument\n | duration('x')\n | .........^"),
        (
            "self.n && self.a",
            "ERROR: <input>:1:8: found no matching overload for '_&&_' applied to '(int, string)'\n | self.n && self.a\n | .......^",
        ),
        (
            "Foo{a: 1}",
            "ERROR: <input>:1:4: undeclared reference to 'Foo' (in container '')\n | Foo{a: 1}\n | ...^",
        ),
        (
            "cel.bind(x, 1, x)",
            "ERROR: <input>:1:1: undeclared reference to 'cel' (in container '')\n | cel.bind(x, 1, x)\n | ^\nERROR: <input>:1:9: undeclared reference to 'bind' (in container '')\n | cel.bind(x, 1, x)\n | ........^\nERROR: <input>:1:10: undeclared reference to 'x' (in container '')\n | cel.bind(x, 1, x)\n | .........^\nERROR: <input>:1:16: undeclared reference to 'x' (in container '')\n | cel.bind(x, 1, x)\n | ...............^",
        ),
        (
            "a + b",
            "ERROR: <input>:1:1: undeclared reference to 'a' (in container '')\n | a + b\n | ^\nERROR: <input>:1:5: undeclared reference to 'b' (in container '')\n | a + b\n | ....^",
        ),
        (
            "'é' + nope",
            "ERROR: <input>:1:7: undeclared reference to 'nope' (in container '')\n | 'é' + nope\n | .．....^",
        ),
        (
            "1 +\n  nope",
            "ERROR: <input>:2:3: undeclared reference to 'nope' (in container '')\n |   nope\n | ..^",
        ),
    ];
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(text, wanted)| {
            let got = Program::compile(text, &variables())
                .map_or_else(|errors| errors.text, |program| format!("compiles to {}", program.result()));
            (got != *wanted).then(|| format!("{text}\n  wanted {wanted}\n  got    {got}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn results_have_types() {
    for (text, wanted) in [
        ("self.n > 3", "bool"),
        ("self", "Self"),
        ("self.l", "list(string)"),
        ("self.l.map(x, size(x))", "list(int)"),
        ("[]", "list(dyn)"),
        ("{}", "map(dyn, dyn)"),
        ("self.m", "map(string, string)"),
        ("any.a", "dyn"),
        ("any.a + 1", "int"),
        ("any.a + any.b", "dyn"),
        ("self.?a", "optional_type(string)"),
        ("self.?a.orValue('x')", "string"),
        ("optional.none().or(optional.of(1))", "optional_type(int)"),
        ("self.b ? self.n : 2", "int"),
        ("self.items.filter(i, i.port > 1)", "list(Item)"),
        ("{'a': [1]}['a'][0]", "int"),
        ("self.l.transformMap(i, v, v)", "map(int, string)"),
        ("type(1)", "type(int)"),
        ("ip('::1')", "net.IP"),
    ] {
        let got = Program::compile(text, &variables())
            .map_or_else(|errors| errors.text, |program| program.result().to_string());
        assert_eq!(got, wanted, "{text}");
    }
}

#[test]
fn variables_used_are_known() {
    let program = Program::compile("self.l.all(any, any != '')", &variables())
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert!(program.uses("self"));
    assert!(!program.uses("any"));
}
