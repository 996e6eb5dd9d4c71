//! Whether a schema is structural, so that every field of an object has one type that can be told without its value, and whether its
//! defaults are objects of their own schemas (Kubernetes' documentation, "Specifying a structural schema").

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::regexp;
use pagurus_controlplane_schema::structural::{self, META_FIELDS, Schema};
use serde_json::{Value, json};

use super::embedded;
use crate::resources::fields::{Fields, is_zero};
use crate::resources::rules::Errors;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// What keeps a schema from being structural, sorted.
pub(crate) fn structural(path: &Path, schema: &Value) -> Errors {
    let mut errors = Errors::new();
    invariants(&mut errors, path, schema, Level::Root);
    complete(&mut errors, schema, schema, path, path);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

fn invariants(errors: &mut Errors, path: &Path, schema: &Value, level: Level) {
    let type_ = schema.text("type");
    let items = schema.at("items");
    if type_ == "array" && items.is_null() {
        errors.push(FieldError::required(path.child("items"), "must be specified"));
    }
    if items.is_object() {
        invariants(errors, &path.child("items"), items, Level::Item);
    }
    for (name, property) in schema.entries("properties") {
        invariants(errors, &path.child("properties").key(name), property, Level::Field);
    }
    let additional = schema.at("additionalProperties");
    if !additional.is_null() {
        if level == Level::Root {
            let path = path.child("additionalProperties");
            errors.push(FieldError::forbidden(path, "must not be used at the root"));
        }
        if additional.is_object() {
            invariants(errors, &path.child("additionalProperties"), additional, Level::Field);
        }
    }
    if schema.flag(INT_OR_STRING) {
        for other in [PRESERVE, EMBEDDED] {
            if schema.flag(other) {
                let detail = "must be false if x-kubernetes-int-or-string is true";
                errors.push(FieldError::invalid(path.child(other), true, detail));
            }
        }
    }
    let (any_of, all_of) = (is_int_or_string(schema), is_int_or_string(&schema.at("allOf")[0]));
    value_rules(errors, path, schema, any_of, all_of, level);
    types(errors, path, schema, level);
    metadata(errors, path, schema, level);
}

/// `anyOf: [{type: integer}, {type: string}]`, the one place where types may stand in a branch.
fn is_int_or_string(schema: &Value) -> bool {
    *schema.at("anyOf") == json!([{"type": "integer"}, {"type": "string"}])
}

fn types(errors: &mut Errors, path: &Path, schema: &Value, level: Level) {
    let type_ = schema.text("type");
    let type_path = path.child("type");
    let embedded = schema.flag(EMBEDDED);
    if embedded && type_ != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match type_ {
            "" => FieldError::required(&type_path, detail),
            other => FieldError::invalid(&type_path, other, detail),
        });
    } else if type_.is_empty() && !schema.flag(INT_OR_STRING) && !schema.flag(PRESERVE) {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(&type_path, detail));
    }
    if embedded && schema.has("additionalProperties") {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(path.child("additionalProperties"), detail));
    }
    if level == Level::Root && !type_.is_empty() && type_ != "object" {
        errors.push(FieldError::invalid(&type_path, type_, "must be object at the root"));
    }
}

/// `apiVersion`, `kind` and `metadata`, which are what they are whatever a schema says.
fn metadata(errors: &mut Errors, path: &Path, schema: &Value, level: Level) {
    let embedded = schema.flag(EMBEDDED);
    let whole = level == Level::Root || embedded;
    let property = |name: &str| schema.at("properties").get(name);
    let place = |name: &str| path.child("properties").key(name);
    for name in ["kind", "apiVersion"] {
        if let Some(type_) = property(name).map(|p| p.text("type")).filter(|t| whole && *t != "string") {
            errors.push(FieldError::invalid(place(name).child("type"), type_, "must be string"));
        }
    }
    if let Some(metadata) = property("metadata") {
        let type_ = metadata.text("type");
        if whole && type_ != "object" {
            errors.push(FieldError::invalid(place("metadata").child("type"), type_, "must be object"));
        }
        if level == Level::Root && says_more_than_names(metadata) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(FieldError::forbidden(place("metadata"), detail));
        }
    }
    if embedded && !schema.flag(PRESERVE) && schema.entries("properties").next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(path.child("properties"), detail));
    }
}

fn says_more_than_names(metadata: &Value) -> bool {
    let names = metadata.entries("properties").all(|(name, _)| matches!(name, "name" | "generateName"));
    let others = metadata.as_object().into_iter().flatten();
    let said = |(name, value): (&String, &Value)| {
        !matches!(name.as_str(), "type" | "properties" | "default") && !is_zero(value)
    };
    !names || others.into_iter().any(said)
}

/// The branches `anyOf`, `allOf`, `oneOf` and `not`, and the pattern.
fn value_rules(
    errors: &mut Errors,
    path: &Path,
    schema: &Value,
    skip_any: bool,
    skip_first_all: bool,
    level: Level,
) {
    for list in ["anyOf", "allOf", "oneOf"] {
        if list == "anyOf" && skip_any {
            continue;
        }
        for (at, branch) in schema.items(list).iter().enumerate() {
            let skip = list == "allOf" && skip_first_all && at == 0;
            nested(errors, &path.child(list).index(at), branch, skip, level);
        }
    }
    if schema.at("not").is_object() {
        nested(errors, &path.child("not"), schema.at("not"), false, level);
    }
    let source = schema.text("pattern");
    if !source.is_empty()
        && let Err(error) = regexp::compile(source)
    {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(path.child("pattern"), source, detail));
    }
}

/// A branch, which may only say what values are allowed.
fn nested(errors: &mut Errors, path: &Path, schema: &Value, skip_any: bool, level: Level) {
    value_rules(errors, path, schema, skip_any, false, level);
    if schema.at("items").is_object() {
        nested(errors, &path.child("items"), schema.at("items"), false, level);
    }
    for (name, property) in schema.entries("properties") {
        nested(errors, &path.child("properties").key(name), property, false, Level::Field);
    }
    let mut forbid = |name: &str, detail: &str| errors.push(FieldError::forbidden(path.child(name), detail));
    let said = |name: &str| !is_zero(schema.at(name));
    for name in ["type", "title", "description", "x-kubernetes-list-map-keys", "x-kubernetes-validations"] {
        if said(name) {
            forbid(name, "must be empty to be structural");
        }
    }
    for name in ["additionalProperties", "default", "x-kubernetes-list-type", "x-kubernetes-map-type"] {
        if schema.has(name) {
            forbid(name, "must be undefined to be structural");
        }
    }
    for name in ["nullable", PRESERVE, EMBEDDED, INT_OR_STRING] {
        if schema.flag(name) {
            forbid(name, "must be false to be structural");
        }
    }
    if schema.at("properties").get("metadata").is_some() {
        let path = path.child("properties").key("metadata");
        errors.push(FieldError::forbidden(path, "must not be specified in a nested context"));
    }
}

/// Every field that a branch names must be named outside of it. `path` is the place of `schema`, `said` that of `branches`.
fn complete(errors: &mut Errors, branches: &Value, schema: &Value, path: &Path, said: &Path) {
    let mut visit = |branch: &Value, said: Path| complete_branch(errors, branch, schema, path, &said);
    if branches.at("not").is_object() {
        visit(branches.at("not"), said.child("not"));
    }
    for list in ["allOf", "anyOf", "oneOf"] {
        for (at, branch) in branches.items(list).iter().enumerate() {
            visit(branch, said.child(list).index(at));
        }
    }
}

fn complete_branch(errors: &mut Errors, branch: &Value, schema: &Value, path: &Path, said: &Path) {
    complete(errors, branch, schema, path, said);
    let missing =
        |path: Path, said: Path| FieldError::required(path, format!("because it is defined in {said}"));
    let items = branch.at("items");
    if items.is_object() {
        let (path, said) = (path.child("items"), said.child("items"));
        match schema.at("items") {
            Value::Null => errors.push(missing(path, said)),
            of_items => complete_branch(errors, items, of_items, &path, &said),
        }
    }
    for (name, property) in branch.entries("properties") {
        let (path, said) = (path.child("properties").key(name), said.child("properties").key(name));
        match schema.at("properties").get(name) {
            None => errors.push(missing(path, said)),
            Some(of_field) => complete_branch(errors, property, of_field, &path, &said),
        }
    }
}

/// What is wrong with the defaults of a structural schema.
pub(super) fn defaults(path: &Path, schema: &Value, pruned: bool) -> Errors {
    let mut errors = Errors::new();
    let inside = Inside { meta: false, holder: &[] };
    default(&mut errors, path, schema, true, pruned, inside);
    errors
}

/// Where in an embedded object a default stands.
#[derive(Clone, Copy)]
struct Inside<'a> {
    meta: bool,
    /// The names from the embedded object to here.
    holder: &'a [&'a str],
}

fn default(errors: &mut Errors, path: &Path, schema: &Value, root: bool, pruned: bool, inside: Inside<'_>) {
    let embedded = root || schema.flag(EMBEDDED);
    let inside = if embedded { Inside { meta: false, holder: &[] } } else { inside };
    let value = schema.at("default");
    if !value.is_null() {
        let parsed = Schema::parse(schema);
        errors.extend(one_default(&path.child("default"), value, &parsed, pruned, inside));
    }
    if schema.at("items").is_object() {
        default(errors, &path.child("items"), schema.at("items"), false, pruned, inside);
    }
    for (name, property) in schema.entries("properties") {
        let meta = inside.meta || (embedded && META_FIELDS.contains(&name));
        let mut holder = inside.holder.to_vec();
        holder.push(name);
        let inside = Inside { meta, holder: &holder };
        default(errors, &path.child("properties").key(name), property, false, pruned, inside);
    }
}

fn one_default(path: &Path, value: &Value, schema: &Schema, pruned: bool, inside: Inside<'_>) -> Errors {
    let embedded = schema.embedded;
    if inside.meta {
        // A part of an object's metadata is judged as a part of an object.
        let mut whole = json!({"apiVersion": "validation/v1", "kind": "Validation"});
        let pointer = whole_with(&mut whole, inside.holder, value);
        let refused = |why: String| {
            vec![FieldError::invalid(path, value.clone(), format!("must result in valid metadata: {why}"))]
        };
        if let Err(error) = pointer.and_then(|()| embedded::coerce_metadata(&mut whole)) {
            return refused(error);
        }
        let found = embedded::validate(&Path::default(), &whole, &Schema::default(), true);
        if !found.is_empty() {
            return refused(pagurus_controlplane_api::field::aggregate(&found));
        }
        return structural::validate(path, value, schema);
    }
    let mut errors = Errors::new();
    let mut kept = value.clone();
    structural::prune(&mut kept, schema, embedded);
    if pruned && kept != *value {
        errors.push(FieldError::invalid(path, value.clone(), "must not have unknown fields"));
    }
    let mut coerced = value.clone();
    if let Err(error) = embedded::coerce(path, &mut coerced, schema, embedded) {
        errors.push(error);
        return errors;
    }
    let found = embedded::validate(path, value, schema, embedded);
    errors.extend(if found.is_empty() { structural::validate(path, value, schema) } else { found });
    errors
}

/// Puts a value into an object below names.
fn whole_with(whole: &mut Value, names: &[&str], value: &Value) -> Result<(), String> {
    let Some((last, above)) = names.split_last() else { return Ok(()) };
    let mut here = whole;
    for name in above {
        if !here.at(name).is_object() {
            here[*name] = json!({});
        }
        here = &mut here[*name];
    }
    here[*last] = value.clone();
    Ok(())
}
