//! Definitions as messages show them: in kube-apiserver's own form, where what all versions have in common stands above them.

use pagurus_controlplane_api::field::BadValue;
use pagurus_controlplane_api::go;
use serde_json::{Value, json};

use super::hoist::Hoisted;
use crate::resources::fields::Fields;

/// What a member of a schema looks like when it is printed.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Flag,
    Any,
    Schema,
    Schemas,
    SchemaMap,
    SchemaOrBool,
    SchemaOrArray,
    Rules,
}

/// The members of a schema: in JSON, in the message, and what they look like.
const SCHEMA: &[(&str, &str, Shape)] = &[
    ("id", "ID", Shape::Text),
    ("$schema", "Schema", Shape::Text),
    ("$ref", "Ref", Shape::Any),
    ("description", "Description", Shape::Text),
    ("type", "Type", Shape::Text),
    ("nullable", "Nullable", Shape::Flag),
    ("format", "Format", Shape::Text),
    ("title", "Title", Shape::Text),
    ("default", "Default", Shape::Any),
    ("maximum", "Maximum", Shape::Any),
    ("exclusiveMaximum", "ExclusiveMaximum", Shape::Flag),
    ("minimum", "Minimum", Shape::Any),
    ("exclusiveMinimum", "ExclusiveMinimum", Shape::Flag),
    ("maxLength", "MaxLength", Shape::Any),
    ("minLength", "MinLength", Shape::Any),
    ("pattern", "Pattern", Shape::Text),
    ("maxItems", "MaxItems", Shape::Any),
    ("minItems", "MinItems", Shape::Any),
    ("uniqueItems", "UniqueItems", Shape::Flag),
    ("multipleOf", "MultipleOf", Shape::Any),
    ("enum", "Enum", Shape::Any),
    ("maxProperties", "MaxProperties", Shape::Any),
    ("minProperties", "MinProperties", Shape::Any),
    ("required", "Required", Shape::Any),
    ("items", "Items", Shape::SchemaOrArray),
    ("allOf", "AllOf", Shape::Schemas),
    ("oneOf", "OneOf", Shape::Schemas),
    ("anyOf", "AnyOf", Shape::Schemas),
    ("not", "Not", Shape::Schema),
    ("properties", "Properties", Shape::SchemaMap),
    ("additionalProperties", "AdditionalProperties", Shape::SchemaOrBool),
    ("patternProperties", "PatternProperties", Shape::SchemaMap),
    ("dependencies", "Dependencies", Shape::Any),
    ("additionalItems", "AdditionalItems", Shape::SchemaOrBool),
    ("definitions", "Definitions", Shape::SchemaMap),
    ("externalDocs", "ExternalDocs", Shape::Any),
    ("example", "Example", Shape::Any),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields", Shape::Any),
    ("x-kubernetes-embedded-resource", "XEmbeddedResource", Shape::Flag),
    ("x-kubernetes-int-or-string", "XIntOrString", Shape::Flag),
    ("x-kubernetes-list-map-keys", "XListMapKeys", Shape::Any),
    ("x-kubernetes-list-type", "XListType", Shape::Any),
    ("x-kubernetes-map-type", "XMapType", Shape::Any),
    ("x-kubernetes-validations", "XValidations", Shape::Rules),
];

/// The members that the root of a schema may have beside a `status` subresource.
const AT_THE_ROOT: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

/// The members that are given, by their names in messages, in order.
pub(super) fn members_of(schema: &Value) -> impl Iterator<Item = &'static str> {
    let given = SCHEMA.iter().filter(|(json, _, _)| !crate::resources::fields::is_zero(schema.at(json)));
    given.map(|(_, name, _)| *name)
}

/// Whether the root of a schema may have the member beside a `status` subresource.
pub(super) fn is_allowed_at_root(member: &str) -> bool {
    AT_THE_ROOT.contains(&member)
}

/// The list of those members, as the message has it.
pub(super) fn allowed_at_root() -> String {
    format!("[{}]", AT_THE_ROOT.join(" "))
}

/// A whole schema.
pub(super) fn schema(value: &Value) -> BadValue {
    BadValue::Text(object(value))
}

/// A rule of a schema.
pub(crate) fn rule(value: &Value) -> BadValue {
    BadValue::Text(rule_text(value))
}

/// All versions.
pub(super) fn versions(spec: &Value, hoisted: &Hoisted) -> BadValue {
    let Some(list) = spec.at("versions").as_array() else { return BadValue::Text("null".to_owned()) };
    let texts: Vec<String> = list.iter().map(|v| version(v, hoisted)).collect();
    BadValue::Text(format!("[{}]", texts.join(",")))
}

fn version(version: &Value, hoisted: &Hoisted) -> String {
    let own = |hoisted: bool, text: String| if hoisted { "null".to_owned() } else { text };
    let given = |name: &str| version.has(name);
    let schema_text = match version.at("schema") {
        Value::Null => "null".to_owned(),
        schema => format!("{{\"OpenAPIV3Schema\":{}}}", pointer(schema.at("openAPIV3Schema"))),
    };
    let columns: Vec<String> = version.items("additionalPrinterColumns").iter().map(column).collect();
    let selectable: Vec<String> = version
        .items("selectableFields")
        .iter()
        .map(|f| format!("{{\"JSONPath\":{}}}", text(f.at("jsonPath"))))
        .collect();
    let list = |name: &str, items: Vec<String>| {
        if given(name) { format!("[{}]", items.join(",")) } else { "null".to_owned() }
    };
    format!(
        "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{},\"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
        text(version.at("name")),
        version.flag("served"),
        version.flag("storage"),
        version.flag("deprecated"),
        go::json(version.at("deprecationWarning")),
        own(hoisted.schema, schema_text),
        own(hoisted.subresources, subresources(version.at("subresources"))),
        own(hoisted.columns, list("additionalPrinterColumns", columns)),
        own(hoisted.selectable, list("selectableFields", selectable)),
    )
}

fn subresources(value: &Value) -> String {
    if value.is_null() {
        return "null".to_owned();
    }
    let status = if value.has("status") { "{}" } else { "null" };
    let scale = value.at("scale");
    let scale = if scale.is_null() {
        "null".to_owned()
    } else {
        format!(
            "{{\"SpecReplicasPath\":{},\"StatusReplicasPath\":{},\"LabelSelectorPath\":{}}}",
            text(scale.at("specReplicasPath")),
            text(scale.at("statusReplicasPath")),
            go::json(scale.at("labelSelectorPath"))
        )
    };
    format!("{{\"Status\":{status},\"Scale\":{scale}}}")
}

fn column(column: &Value) -> String {
    format!(
        "{{\"Name\":{},\"Type\":{},\"Format\":{},\"Description\":{},\"Priority\":{},\"JSONPath\":{}}}",
        text(column.at("name")),
        text(column.at("type")),
        text(column.at("format")),
        text(column.at("description")),
        column.int("priority"),
        text(column.at("jsonPath"))
    )
}

fn text(value: &Value) -> String {
    go::json(&json!(value.as_str().unwrap_or_default()))
}

fn pointer(schema: &Value) -> String {
    if schema.is_null() { "null".to_owned() } else { object(schema) }
}

fn list(value: &Value, item: fn(&Value) -> String) -> String {
    match value.as_array() {
        Some(items) => format!("[{}]", items.iter().map(item).collect::<Vec<_>>().join(",")),
        None => "null".to_owned(),
    }
}

fn rule_text(rule: &Value) -> String {
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        text(rule.at("rule")),
        text(rule.at("message")),
        text(rule.at("messageExpression")),
        go::json(rule.at("reason")),
        text(rule.at("fieldPath")),
        go::json(rule.at("optionalOldSelf"))
    )
}

fn object(schema: &Value) -> String {
    let members: Vec<String> = SCHEMA
        .iter()
        .map(|(json, name, shape)| format!("\"{name}\":{}", member(schema.at(json), *shape)))
        .collect();
    format!("{{{}}}", members.join(","))
}

fn member(value: &Value, shape: Shape) -> String {
    match (shape, value) {
        (Shape::Text, value) => text(value),
        (Shape::Flag, value) => value.as_bool().unwrap_or_default().to_string(),
        (Shape::Any, value) => go::json(value),
        (Shape::Schema, value) => pointer(value),
        (Shape::Schemas, value) => list(value, object),
        (Shape::Rules, value) => list(value, rule_text),
        (_, Value::Null) => "null".to_owned(),
        (Shape::SchemaMap, value) => {
            let entries = value.as_object().into_iter().flatten();
            let entries = entries.map(|(k, v)| format!("{}:{}", go::json(&json!(k)), object(v)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        (Shape::SchemaOrBool, Value::Bool(allows)) => format!("{{\"Allows\":{allows},\"Schema\":null}}"),
        (Shape::SchemaOrBool, schema) => format!("{{\"Allows\":true,\"Schema\":{}}}", object(schema)),
        (Shape::SchemaOrArray, Value::Array(_)) => {
            format!("{{\"Schema\":null,\"JSONSchemas\":{}}}", list(value, object))
        }
        (Shape::SchemaOrArray, schema) => format!("{{\"Schema\":{},\"JSONSchemas\":null}}", object(schema)),
    }
}
