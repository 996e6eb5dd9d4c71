//! A row per keyword: what is kept, what is filled in, what is wrong.
#![allow(clippy::unwrap_used, reason = "tests")]

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::{Value, json};

use super::*;

fn errors(schema: Value, value: Value) -> Vec<String> {
    let whole = json!({"type": "object", "properties": {"a": schema}});
    let found = validate(&Path::default(), &json!({"a": value}), &Schema::parse(&whole));
    found.iter().map(FieldError::to_string).collect()
}

#[test]
fn values() {
    let check = |schema: Value, value: Value, expected: &[&str]| {
        assert_eq!(errors(schema.clone(), value.clone()), expected, "{schema} {value}");
    };
    check(
        json!({"type": "integer"}),
        json!("x"),
        &["a: Invalid value: \"string\": a in body must be of type integer: \"string\""],
    );
    check(
        json!({"type": "string"}),
        Value::Null,
        &["a: Invalid value: \"null\": a in body must be of type string: \"null\""],
    );
    check(json!({"type": "string", "nullable": true}), Value::Null, &[]);
    check(
        json!({"type": "integer", "multipleOf": 2}),
        json!(2.5),
        &[
            "a: Invalid value: \"number\": a in body must be of type integer: \"number\"",
            "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in a",
            "a: Invalid value: 2.5: a in body should be a multiple of 2",
        ],
    );
    check(json!({"type": "integer"}), json!(2.0), &[]);
    check(json!({"type": "number"}), json!(2), &[]);
    check(
        json!({"type": "integer", "format": "int32"}),
        json!(99_999_999_999_i64),
        &["<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in a"],
    );
    check(
        json!({"type": "integer", "minimum": 1, "maximum": 10}),
        json!(0),
        &["a: Invalid value: 0: a in body should be greater than or equal to 1"],
    );
    check(
        json!({"type": "integer", "maximum": 10}),
        json!(11),
        &["a: Invalid value: 11: a in body should be less than or equal to 10"],
    );
    check(
        json!({"type": "integer", "maximum": 10, "exclusiveMaximum": true}),
        json!(10),
        &["a: Invalid value: 10: a in body should be less than 10"],
    );
    check(
        json!({"type": "number", "minimum": 0.5, "exclusiveMinimum": true}),
        json!(0.5),
        &["a: Invalid value: 0.5: a in body should be greater than 0.5"],
    );
    check(
        json!({"type": "string", "maxLength": 3}),
        json!("äöüß"),
        &["a: Too long: may not be more than 3 bytes"],
    );
    check(
        json!({"type": "string", "minLength": 2, "pattern": "^b"}),
        json!("a"),
        &["a: Invalid value: \"a\": a in body should be at least 2 chars long"],
    );
    check(
        json!({"type": "string", "pattern": "^b"}),
        json!("a"),
        &["a: Invalid value: \"a\": a in body should match '^b'"],
    );
    check(
        json!({"type": "string", "format": "date-time"}),
        json!("yesterday"),
        &["a: Invalid value: \"yesterday\": a in body must be of type date-time: \"yesterday\""],
    );
    check(json!({"type": "string", "format": "frob"}), json!("x"), &[]);
    check(
        json!({"type": "string", "format": "date"}),
        json!(5),
        &["a: Invalid value: \"int64\": a in body must be of type date: \"int64\""],
    );
    check(
        json!({"type": "string", "enum": ["x", "y"]}),
        json!("z"),
        &["a: Unsupported value: \"z\": supported values: \"x\", \"y\""],
    );
    check(
        json!({"type": "integer", "enum": [1, 2]}),
        json!(3),
        &["a: Unsupported value: 3: supported values: \"1\", \"2\""],
    );
    check(
        json!({"x-kubernetes-int-or-string": true}),
        json!(true),
        &["a: Invalid value: \"boolean\": a in body must be of type integer,string: \"boolean\""],
    );
    check(
        json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
        json!([]),
        &["a: Invalid value: 0: a in body should have at least 1 items"],
    );
    check(
        json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
        json!(["a", 1]),
        &[
            "a[1]: Invalid value: \"integer\": a[1] in body must be of type string: \"integer\"",
            "a: Too many: 2: must have at most 1 item",
        ],
    );
    check(
        json!({"type": "object", "required": ["b"], "properties": {"b": {"type": "string"}}}),
        json!({}),
        &["a.b: Required value"],
    );
    check(
        json!({"type": "object", "minProperties": 1}),
        json!({}),
        &["a: Invalid value: 0: a in body should have at least 1 properties"],
    );
    check(
        json!({"type": "object", "maxProperties": 1}),
        json!({"b": 1, "c": 2}),
        &["a: Too many: 2: must have at most 1 item"],
    );
    check(
        json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        json!({"b": "x"}),
        &["a.b: Invalid value: \"string\": a.b in body must be of type integer: \"string\""],
    );
    check(
        json!({"type": "object", "additionalProperties": false}),
        json!({"b": "x"}),
        &["a: Invalid value: \"b\": a.b in body is a forbidden property"],
    );
}

#[test]
fn alternatives() {
    let check = |schema: Value, value: Value, expected: &[&str]| {
        assert_eq!(errors(schema.clone(), value.clone()), expected, "{schema} {value}");
    };
    let any = json!({"type": "string", "anyOf": [{"minLength": 3}, {"pattern": "^x"}]});
    check(any.clone(), json!("xy"), &[]);
    check(
        any,
        json!("y"),
        &[
            "<nil>: Invalid value: \"\": \"a\" must validate at least one schema (anyOf)",
            "a: Invalid value: \"y\": a in body should be at least 3 chars long",
        ],
    );
    let one = json!({"type": "string", "oneOf": [{"minLength": 1}, {"pattern": "^x"}]});
    check(one.clone(), json!("y"), &[]);
    check(
        one,
        json!("x"),
        &[
            "<nil>: Invalid value: \"\": \"a\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ],
    );
    check(
        json!({"type": "string", "allOf": [{"minLength": 3}, {"pattern": "^x"}]}),
        json!("y"),
        &[
            "a: Invalid value: \"y\": a in body should be at least 3 chars long",
            "a: Invalid value: \"y\": a in body should match '^x'",
            "<nil>: Invalid value: \"\": \"a\" must validate all the schemas (allOf). None validated",
        ],
    );
    check(
        json!({"type": "string", "not": {"enum": ["x"]}}),
        json!("x"),
        &["<nil>: Invalid value: \"\": \"a\" must not validate the schema (not)"],
    );
    check(
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": "^[0-9]+Mi$"}),
        json!("5Mi"),
        &[],
    );
}

#[test]
fn what_did_not_change_is_not_looked_at() {
    let schema = Schema::parse(&json!({"type": "object", "properties": {
        "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1},
        "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
              "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}}}}));
    let old = json!({"a": "long", "b": "x", "l": [{"k": "1", "v": "long"}]});
    let new = json!({"a": "long", "b": "long", "l": [{"k": "2", "v": "y"}, {"k": "1", "v": "long"}]});
    let found = validate_change(&Path::default(), &new, Some(&old), &schema);
    assert_eq!(found.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn pruning() {
    let check = |schema: Value, value: Value, expected: Value, gone: &[&str]| {
        let mut value = value;
        assert_eq!(prune(&mut value, &Schema::parse(&schema), true), gone);
        assert_eq!(value, expected);
    };
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"a": {"type": "integer"}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "object"}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "integer"}}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer"}}}},
        "emb": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"q": {"type": "integer"}}}}});
    check(
        schema,
        json!({"apiVersion": "v", "kind": "K", "metadata": {"any": 1}, "x": 1,
            "spec": {"a": 1, "b": 2}, "free": {"a": {"b": 1}, "c": {"d": 1}}, "map": {"k": {"x": 1, "y": 2}},
            "list": [{"x": 1}, {"y": 2}], "emb": {"kind": "P", "q": 1, "z": 1}}),
        json!({"apiVersion": "v", "kind": "K", "metadata": {"any": 1},
            "spec": {"a": 1}, "free": {"a": {}, "c": {"d": 1}}, "map": {"k": {"x": 1}},
            "list": [{"x": 1}, {}], "emb": {"kind": "P", "q": 1}}),
        &["emb.z", "free.a.b", "list[1].y", "map.k.y", "spec.b", "x"],
    );
}

#[test]
fn defaulting() {
    let schema = Schema::parse(&json!({"type": "object", "properties": {
        "d": {"type": "string", "default": "dd"}, "n": {"type": "string", "nullable": true, "default": "nn"},
        "s": {"type": "string"}, "k": {"type": "string", "nullable": true},
        "o": {"type": "object", "default": {}, "properties": {"x": {"type": "integer", "default": 7}}},
        "l": {"type": "array", "items": {"type": "object", "properties": {"v": {"type": "integer", "default": 1}}}}}}));
    let mut value = json!({"d": null, "n": null, "s": null, "k": null, "l": [{}]});
    drop_nulls(&mut value, &schema);
    default(&mut value, &schema);
    assert_eq!(value, json!({"d": "dd", "n": null, "k": null, "o": {"x": 7}, "l": [{"v": 1}]}));
}

#[test]
fn lists_without_doubles() {
    let schema = Schema::parse(&json!({"type": "object", "properties": {
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}));
    let value =
        json!({"set": ["a", "b", "a", "a"], "map": [{"k": "x"}, {"k": "y"}, {"k": "x", "v": 1}, {}, {}]});
    let found = duplicates(&Path::default(), &value, &schema);
    let texts: Vec<String> = found.iter().map(FieldError::to_string).collect();
    assert_eq!(
        texts,
        [
            "map[2]: Duplicate value: {\"k\":\"x\"}",
            "map[4]: Duplicate value: {}",
            "set[2]: Duplicate value: \"a\"",
        ]
    );
}

#[test]
fn paths_to_fields() {
    let schema =
        Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "string"}}}}}));
    let check = |path: &str, expected: Result<Type, PathProblem>| {
        assert_eq!(field_at(&schema, path).map(|found| found.type_), expected, "{path}");
    };
    check(".spec.a", Ok(Type::String));
    check(".spec.b", Err(PathProblem::Unknown));
    check("spec.a", Err(PathProblem::Start("s".to_owned())));
    check(".spec.", Err(PathProblem::End));
    check(".spec.a[0]", Err(PathProblem::Index));
}
