//! From a definition's JSON to a [`Schema`]. It must not judge: what makes no sense is passed over.

use pagurus_controlplane_api::formats;
use serde_json::Value;

use super::{Additional, Limits, Pattern, Rule, Schema, Type};
use crate::table::ListType;

pub(super) fn schema(given: &Value) -> Schema {
    let text = |name: &str| given.get(name).and_then(Value::as_str).unwrap_or_default();
    let flag = |name: &str| given.get(name).and_then(Value::as_bool).unwrap_or_default();
    let list = |name: &str| given.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let limits = limits(given);
    Schema {
        type_: Type::named(text("type")).unwrap_or_default(),
        nullable: flag("nullable"),
        preserve: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        atomic: text("x-kubernetes-map-type") == "atomic",
        list_type: match text("x-kubernetes-list-type") {
            "set" => ListType::Set,
            "map" => ListType::Map,
            "atomic" => ListType::Atomic,
            _ => ListType::Unset,
        },
        map_keys: texts(list("x-kubernetes-list-map-keys")),
        default: given.get("default").filter(|value| !value.is_null()).cloned().map(Box::new),
        properties: properties(given.get("properties")),
        additional: match given.get("additionalProperties") {
            Some(Value::Bool(any)) => Some(Additional::Any(*any)),
            Some(value @ Value::Object(_)) => Some(Additional::Of(Box::new(schema(value)))),
            _ => None,
        },
        items: given.get("items").filter(|items| items.is_object()).map(|items| Box::new(schema(items))),
        limits: (limits != Limits::default()).then(|| Box::new(limits)),
        rules: list("x-kubernetes-validations").iter().map(rule).collect(),
    }
}

fn properties(given: Option<&Value>) -> Vec<(Box<str>, Schema)> {
    // The keys of a JSON object come sorted, which `Schema::property` relies on.
    let entries = given.and_then(Value::as_object).into_iter().flatten();
    let mut properties: Vec<(Box<str>, Schema)> =
        entries.map(|(name, value)| (name.as_str().into(), schema(value))).collect();
    properties.sort_by(|a, b| a.0.cmp(&b.0));
    properties
}

fn texts(items: &[Value]) -> Vec<Box<str>> {
    items.iter().filter_map(Value::as_str).map(Into::into).collect()
}

fn limits(given: &Value) -> Limits {
    let number = |name: &str| given.get(name).and_then(Value::as_f64);
    let count = |name: &str| given.get(name).and_then(Value::as_i64);
    let flag = |name: &str| given.get(name).and_then(Value::as_bool).unwrap_or_default();
    let list = |name: &str| given.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let some_text = |name: &str| given.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let schemas = |name: &str| list(name).iter().map(schema).collect();
    Limits {
        format: some_text("format").filter(|format| formats::is_known(format)).map(Into::into),
        maximum: number("maximum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        multiple_of: number("multipleOf"),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern: some_text("pattern").map(Pattern::new),
        max_items: count("maxItems"),
        min_items: count("minItems"),
        unique_items: flag("uniqueItems"),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        required: texts(list("required")),
        values: list("enum").to_vec(),
        all_of: schemas("allOf"),
        any_of: schemas("anyOf"),
        one_of: schemas("oneOf"),
        not: given.get("not").filter(|not| not.is_object()).map(schema),
    }
}

fn rule(given: &Value) -> Rule {
    let text = |name: &str| given.get(name).and_then(Value::as_str);
    let some = |name: &str| text(name).filter(|text| !text.is_empty()).map(Into::into);
    Rule {
        rule: text("rule").unwrap_or_default().into(),
        message: some("message"),
        message_expression: some("messageExpression"),
        reason: text("reason").map(Into::into),
        field_path: some("fieldPath"),
        optional_old_self: given.get("optionalOldSelf").and_then(Value::as_bool),
    }
}
