//! Cases for YAML both ways.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{decode, encode};

fn check(input: &str, expected: &Value) {
    assert_eq!(&decode(input.as_bytes()).unwrap().value, expected, "{input}");
}

#[test]
fn scalars_are_read_as_yaml_1_1() {
    check(
        "a: yes\nb: off\nc: 010\nd: 0x1f\ne: ~\nf: 1.5\ng: \"yes\"\nh: 1e3\ni: 1_000\nj: v1.2.3\nk: 12:30\n",
        &json!({
            "a": true, "b": false, "c": 8, "d": 31, "e": null, "f": 1.5, "g": "yes", "h": 1000.0, "i": 1000, "j": "v1.2.3", "k": "12:30"
        }),
    );
    check("{\"a\": [1, {\"b\": null}]}", &json!({"a": [1, {"b": null}]}));
    check("1: x\ntrue: y\n", &json!({"1": "x", "true": true}));
    check("", &Value::Null);
    check("a: |\n  x\n  y\nb: >-\n  p\n  q\n", &json!({"a": "x\ny\n", "b": "p q"}));
    check(
        "base: &b {x: 1, z: 2}\nuse:\n  <<: *b\n  z: 3\n",
        &json!({"base": {"x": 1, "z": 2}, "use": {"x": 1, "z": 3}}),
    );
    check("---\na: 1\n---\nb: 2\n", &json!({"a": 1}));
}

#[test]
fn keys_given_twice_are_told_with_their_line() {
    let decoded = decode(b"a: 1\nb: 2\na: 3\n").unwrap();
    assert_eq!(decoded.value, json!({"a": 3, "b": 2}));
    assert_eq!(decoded.duplicate_fields, ["line 3: key \"a\" already set in map"]);
}

#[test]
fn malformed_documents_are_refused() {
    for input in ["a: [1", "a: b: c", "*nowhere", "{? [a] : 1}"] {
        assert!(decode(input.as_bytes()).is_err(), "{input}");
    }
    assert!(decode(&[b'a', b':', b' ', 0xff]).is_err());
}

#[test]
fn output_is_block_style_with_sorted_keys() {
    let value = json!({"b": [{"x": 1, "y": []}, "t", [1, 2]], "a": {}, "c": "true", "d": "2025-01-02T03:04:05Z", "e": "l1\nl2\n",
        "f": "", "g": "- x", "h": "it's: x", "i": null});
    let text = "a: {}\nb:\n- x: 1\n  \"y\": []\n- t\n- - 1\n  - 2\nc: \"true\"\nd: \"2025-01-02T03:04:05Z\"\ne: |\n  l1\n  l2\nf: \"\"\ng: '- x'\nh: 'it''s: x'\ni: null\n";
    assert_eq!(String::from_utf8(encode(&value)).unwrap(), text);
}

#[test]
fn syntax_errors_read_as_clients_know_them() {
    let check = |input: &str, expected: &str| {
        assert_eq!(decode(input.as_bytes()).unwrap_err().to_string(), expected, "{input:?}")
    };
    check("a: [", "yaml: line 1: did not find expected node content");
    check("{a: 1", "yaml: line 1: did not find expected ',' or '}'");
    check("a: \"x", "yaml: line 1: found unexpected end of stream");
    check("a: b: c", "yaml: line 1: mapping values are not allowed in this context");
    check("a: @x", "yaml: line 1: found character that cannot start any token");
    check("- a\nb: 1", "yaml: line 2: did not find expected '-' indicator");
}

#[test]
fn bombs_of_aliases_and_depth_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let refused = |text: &str| decode(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(refused(&bomb), "yaml: document contains excessive aliasing");
    assert!(refused(&"[".repeat(2000)).starts_with("yaml: "));
    let many: String = (0..200).map(|at| format!("- {{k: *s, n: {at}}}\n")).collect();
    assert!(decode(format!("s: &s text\nitems:\n{many}").as_bytes()).is_ok());
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[ -~\n\t]{0,20}".prop_map(Value::from),
        "[-a-z0-9:#.'\" \\[\\]{}&*!|>%@,?\n]{0,10}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[-a-zA-Z0-9:#. /\n]{0,8}", inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back_equal(value in any_value()) {
        let text = encode(&value);
        let decoded = decode(&text).map_err(|e| TestCaseError::fail(format!("{e}: {}", String::from_utf8_lossy(&text))))?;
        prop_assert_eq!(decoded.value, value, "{}", String::from_utf8_lossy(&text));
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "([-a-z0-9:#.'\" \\[\\]{}&*!|>%@,?~<=\t\n]|\\PC){0,60}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        // What it says is another test's business.
        let _ = decode(text.as_bytes());
        let _ = decode(&bytes);
        let _ = crate::codec::json::decode(text.as_bytes());
    }
}
