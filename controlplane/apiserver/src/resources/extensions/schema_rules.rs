//! What a definition's schema may not say, keyword by keyword. Whether it is structural is another question (`structural_rules`).

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, nothing};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];
/// The reasons that a rule may give for its failure.
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Which rules apply: those that a stored definition already breaks are not held against its update.
#[derive(Debug, Clone, Copy)]
pub(super) struct Required {
    /// Types are those of OpenAPI.
    pub(super) types: bool,
    /// Schemas are structural.
    pub(super) structural: bool,
    /// Defaults have no fields that would be pruned.
    pub(super) pruned_defaults: bool,
    /// Items of sets are scalars or replaced as a whole.
    pub(super) atomic_sets: bool,
    /// Keys of lists are always there.
    pub(super) list_keys: bool,
    /// Every version has a schema.
    pub(super) schemas: bool,
}

impl Required {
    /// All rules: those for a new definition.
    pub(super) const ALL: Self = Self {
        types: true,
        structural: true,
        pruned_defaults: true,
        atomic_sets: true,
        list_keys: true,
        schemas: true,
    };
}

/// Where in a schema we are.
#[derive(Clone, Copy)]
struct Context {
    required: Required,
    /// Why there may be no defaults here.
    no_defaults: Option<&'static str>,
    inside_metadata: bool,
}

/// What is wrong with the keywords of a schema and of those in it.
pub(super) fn keywords(path: &Path, schema: &Value, required: Required) -> Errors {
    let mut errors = Errors::new();
    let context = Context { required, no_defaults: None, inside_metadata: false };
    visit(&mut errors, path, schema, context, true);
    errors
}

fn visit(errors: &mut Errors, path: &Path, schema: &Value, context: Context, root: bool) {
    if !schema.is_object() {
        return;
    }
    here(errors, path, schema, context);
    if schema.flag("uniqueItems") {
        errors.push(FieldError::forbidden(
            path.child("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    let has_properties = schema.entries("properties").next().is_some();
    let additional = schema.at("additionalProperties");
    if has_properties && !additional.is_null() && *additional != Value::Bool(true) {
        errors.push(FieldError::forbidden(
            path.child("additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ));
    }
    let mut inside = context;
    if context.inside_metadata {
        inside.no_defaults = Some("inside additionalProperties applying to object metadata");
    }
    visit(errors, &path.child("additionalProperties"), additional, inside, false);
    for (name, property) in schema.entries("properties") {
        let mut inside = context;
        if (root || schema.flag("x-kubernetes-embedded-resource")) && META.contains(&name) {
            inside.inside_metadata = true;
            if root {
                inside.no_defaults = Some(match name {
                    "apiVersion" => "in top-level apiVersion",
                    "kind" => "in top-level kind",
                    _ => "in top-level metadata",
                });
            }
        }
        visit(errors, &path.child("properties").key(name), property, inside, false);
    }
    visit(errors, &path.child("not"), schema.at("not"), context, false);
    for list in ["allOf", "oneOf", "anyOf"] {
        for (at, one) in schema.items(list).iter().enumerate() {
            visit(errors, &path.child(list).index(at), one, context, false);
        }
    }
    for map in ["definitions", "dependencies"] {
        for (name, one) in schema.entries(map) {
            visit(errors, &path.child(map).key(name), one, context, false);
        }
    }
    visit(errors, &path.child("items"), schema.at("items"), context, false);
    for (at, one) in schema.items("items").iter().enumerate() {
        visit(errors, &path.child("items").index(at), one, context, false);
    }
    extensions(errors, path, schema, context.required);
    rules(errors, path, schema);
}

/// Keywords that are not for custom resources.
fn here(errors: &mut Errors, path: &Path, schema: &Value, context: Context) {
    let type_ = schema.text("type");
    if context.required.types && !type_.is_empty() && !TYPES.contains(&type_) {
        errors.push(FieldError::not_supported(path.child("type"), type_, &TYPES));
    }
    if let Some(why) = context.no_defaults
        && schema.has("default")
    {
        errors.push(FieldError::forbidden(path.child("default"), format!("must not be set {why}")));
    }
    let given = |name: &str| match schema.at(name) {
        Value::Null => false,
        Value::String(text) => !text.is_empty() || name == "$ref",
        Value::Object(entries) => !entries.is_empty() || name == "additionalItems",
        _ => true,
    };
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if given(name) {
            errors.push(FieldError::forbidden(path.child(name), format!("{name} is not supported")));
        }
    }
    if type_ == "null" {
        let detail = "type cannot be set to null, use nullable as an alternative";
        errors.push(FieldError::forbidden(path.child("type"), detail));
    }
    if !schema.items("items").is_empty() {
        let detail = "items must be a schema object and not an array";
        errors.push(FieldError::forbidden(path.child("items"), detail));
    }
    if context.inside_metadata && schema.flag("x-kubernetes-embedded-resource") {
        let path = path.child("x-kubernetes-embedded-resource");
        errors.push(FieldError::forbidden(path, "must not be used inside of resource meta"));
    }
}

/// A type that another keyword asks for.
fn needs_type(errors: &mut Errors, path: &Path, schema: &Value, wanted: &str, keyword: &str) -> bool {
    let type_ = schema.text("type");
    if type_ == wanted {
        return true;
    }
    let detail = format!("must be {wanted} if {keyword} is specified");
    errors.push(match type_ {
        "" => FieldError::required(path.child("type"), detail),
        other => FieldError::invalid(path.child("type"), other, detail),
    });
    false
}

/// The keywords that begin with `x-kubernetes-`.
fn extensions(errors: &mut Errors, path: &Path, schema: &Value, required: Required) {
    if schema.at("x-kubernetes-preserve-unknown-fields") == &Value::Bool(false) {
        let path = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(path, false, "must be true or undefined"));
    }
    if let Some(map_type) = schema.some_text("x-kubernetes-map-type") {
        needs_type(errors, path, schema, "object", "x-kubernetes-map-type");
        let known = ["atomic", "granular"];
        if !known.contains(&map_type) {
            errors.push(FieldError::not_supported(path.child("x-kubernetes-map-type"), map_type, &known));
        }
    }
    let list_path = path.child("x-kubernetes-list-type");
    let list_type = schema.some_text("x-kubernetes-list-type");
    if let Some(list_type) = list_type {
        let is_array = needs_type(errors, path, schema, "array", "x-kubernetes-list-type");
        if is_array && required.atomic_sets && list_type == "set" {
            errors.extend(atomic_items(path, schema.at("items")));
        }
        let known = ["atomic", "set", "map"];
        if !known.contains(&list_type) {
            errors.push(FieldError::not_supported(&list_path, list_type, &known));
        }
    }
    let keyed = !schema.items("x-kubernetes-list-map-keys").is_empty();
    let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
    match list_type {
        None if keyed => errors.push(FieldError::required(&list_path, detail)),
        Some(other) if keyed && other != "map" => {
            errors.push(FieldError::invalid(&list_path, other, detail));
        }
        _ => {}
    }
    if list_type == Some("map") {
        keys(errors, path, schema);
    }
    if required.list_keys {
        errors.extend(keys_always_there(path, schema));
    }
}

/// What is wrong with the items of a set: an item that is merged cannot be told apart by its value.
pub(super) fn atomic_items(path: &Path, items: &Value) -> Option<FieldError> {
    let path = path.child("items");
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let list_type = items.some_text("x-kubernetes-list-type");
    match items.text("type") {
        "array" => {
            let other = list_type.filter(|list_type| *list_type != "atomic")?;
            Some(FieldError::invalid(path.child("x-kubernetes-list-type"), other, detail))
        }
        "object" if items.text("x-kubernetes-map-type") != "atomic" => {
            let path = path.child("x-kubernetes-map-type");
            // kube-apiserver shows the type of a list here.
            let shown = list_type.map_or_else(|| Value::Null, Value::from);
            Some(FieldError::invalid(path, shown, detail))
        }
        _ => None,
    }
}

/// The keys of a list of type map.
fn keys(errors: &mut Errors, path: &Path, schema: &Value) {
    let keys_path = path.child("x-kubernetes-list-map-keys");
    let keys = schema.at("x-kubernetes-list-map-keys");
    if schema.items("x-kubernetes-list-map-keys").is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&keys_path, detail));
    }
    let items = schema.at("items");
    let items_path = path.child("items");
    if items.is_null() {
        let detail = "must have a schema if x-kubernetes-list-type is map";
        errors.push(FieldError::required(items_path, detail));
        return;
    }
    if !items.is_object() {
        let detail = "must only have a single schema if x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(items_path, nothing(), detail));
        return;
    }
    if items.text("type") != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(items_path.child("type"), items.text("type"), detail));
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for key in schema.texts("x-kubernetes-list-map-keys") {
        match items.at("properties").get(key) {
            Some(property) if matches!(property.text("type"), "array" | "object") => {
                let path = items_path.child("properties").key(key).child("type");
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(FieldError::invalid(path, "object", detail));
            }
            Some(_) => {}
            None => {
                let detail = "entries must all be names of item properties";
                errors.push(FieldError::invalid(&keys_path, keys.clone(), detail));
            }
        }
        if seen.contains(&key) {
            let detail = "must not contain duplicate entries";
            errors.push(FieldError::invalid(&keys_path, keys.clone(), detail));
        }
        seen.push(key);
    }
}

/// Keys that an item could be without, and items that could be `null`.
pub(super) fn keys_always_there(path: &Path, schema: &Value) -> Errors {
    let mut errors = Errors::new();
    let (items, list_type) = (schema.at("items"), schema.text("x-kubernetes-list-type"));
    if !items.is_object() || !matches!(list_type, "set" | "map") {
        return errors;
    }
    let items_path = path.child("items");
    if items.flag("nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(FieldError::forbidden(items_path.child("nullable"), detail));
    }
    if list_type == "set" {
        return errors;
    }
    for key in schema.texts("x-kubernetes-list-map-keys") {
        let Some(property) = items.at("properties").get(key) else { continue };
        let path = items_path.child("properties").key(key);
        if !items.texts("required").any(|name| name == key) && !property.has("default") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(path.child("default"), detail));
        }
        if property.flag("nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(path.child("nullable"), detail));
        }
    }
    errors
}

/// What a rule must say beside its expressions.
fn rules(errors: &mut Errors, path: &Path, schema: &Value) {
    for (at, rule) in schema.items("x-kubernetes-validations").iter().enumerate() {
        let path = path.child("x-kubernetes-validations").index(at);
        let broken = |text: &str| text.contains(['\n', '\r']);
        let (expression, message) = (rule.text("rule").trim(), rule.text("message"));
        let message_path = path.child("message");
        if expression.is_empty() {
            errors.push(FieldError::required(path.child("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            let detail = "message must be non-empty if specified";
            errors.push(FieldError::invalid(message_path, message, detail));
        } else if broken(message.trim()) {
            errors.push(FieldError::invalid(message_path, message, "message must not contain line breaks"));
        } else if broken(expression) && message.is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            errors.push(FieldError::required(message_path, detail));
        }
        let made = rule.text("messageExpression");
        if !made.is_empty() && made.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            errors.push(FieldError::required(path.child("messageExpression"), detail));
        }
        if let Some(reason) = rule.some_text("reason").filter(|reason| !REASONS.contains(reason)) {
            errors.push(FieldError::not_supported(path.child("reason"), reason, &REASONS));
        }
        field_path(errors, &path.child("fieldPath"), schema, rule.text("fieldPath"));
    }
}

/// The field that a rule names in its error.
fn field_path(errors: &mut Errors, path: &Path, schema: &Value, text: &str) {
    if text.is_empty() {
        return;
    }
    if text.trim().is_empty() {
        errors.push(FieldError::invalid(path, text, "fieldPath must be non-empty if specified"));
    }
    if text.contains(['\n', '\r']) {
        errors.push(FieldError::invalid(path, text, "fieldPath must not contain line breaks"));
    }
    if !leads_to_a_field(schema, text) {
        errors.push(FieldError::invalid(path, text, "fieldPath must be a valid path"));
    }
}

/// Whether a path of names (`.a`) and quoted names (`['a']`) leads to a field that the schema names.
fn leads_to_a_field(schema: &Value, path: &str) -> bool {
    let mut here = schema;
    let mut rest = path;
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            (name, rest) = after.split_at(end);
        } else if let Some(after) = rest.strip_prefix("['") {
            let Some((quoted, after)) = after.split_once("']") else { return false };
            (name, rest) = (quoted, after);
        } else {
            return false;
        }
        let additional = Some(here.at("additionalProperties")).filter(|a| a.is_object());
        match here.at("properties").get(name).or(additional) {
            Some(next) if !name.is_empty() => here = next,
            _ => return false,
        }
    }
    !path.is_empty()
}
