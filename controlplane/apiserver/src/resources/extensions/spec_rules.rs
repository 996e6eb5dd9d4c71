//! What a definition may say: all but its schemas' insides (`schema_rules`, `structural_rules`) and its names (`names`).

use pagurus_controlplane_api::conditions;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_schema::structural::{self, Schema, Type};
use serde_json::Value;

use super::hoist::Hoisted;
use super::schema_rules::{self, Required};
use super::{ca_bundle, names, shown, structural_rules};
use crate::resources::admission_registration::webhooks;
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, immutable, required_one_of};

/// The most fields that selectors may name.
const MOST_SELECTABLE: i64 = 8;
/// The most bytes of a warning about a version that goes away.
const MOST_WARNING: usize = 256;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// What is wrong with a definition.
pub(super) fn validate(definition: &Value) -> Errors {
    with(definition, None, Required::ALL)
}

/// What is wrong with a definition that was `old`: what was wrong before may stay wrong.
pub(super) fn validate_change(definition: &Value, old: &Value) -> Errors {
    let errors = with(definition, Some(old), Required::ALL);
    if errors.is_empty() {
        return errors;
    }
    with(definition, Some(old), required_of(old))
}

/// What is wrong with the status of a definition.
pub(super) fn validate_status(definition: &Value) -> Errors {
    let mut errors = Errors::new();
    names::names(
        &mut errors,
        &Path::new("status").child("acceptedNames"),
        definition.at("status.acceptedNames"),
    );
    errors
}

/// The rules that the stored definition keeps.
fn required_of(old: &Value) -> Required {
    let path = Path::new("spec");
    let schemas: Vec<&Value> =
        old.items("spec.versions").iter().map(|v| v.at("schema.openAPIV3Schema")).collect();
    let all = |keeps: &dyn Fn(&Value) -> bool| schemas.iter().all(|schema| schema.is_null() || keeps(schema));
    let keeps = |change: fn(&mut Required)| {
        let without = |schema: &Value, on: bool| {
            let mut required = Required {
                types: false,
                structural: false,
                pruned_defaults: false,
                atomic_sets: false,
                list_keys: false,
                schemas: false,
            };
            if on {
                change(&mut required);
            }
            schema_rules::keywords(&path, schema, required).len()
        };
        all(&|schema| without(schema, true) == without(schema, false))
    };
    let structural = all(&|schema| structural_rules::structural(&path, schema).is_empty());
    Required {
        types: keeps(|required| required.types = true),
        structural,
        pruned_defaults: all(&|schema| {
            let found = |pruned| structural_rules::defaults(&path, schema, pruned).len();
            found(true) == found(false)
        }),
        atomic_sets: keeps(|required| required.atomic_sets = true),
        list_keys: keeps(|required| required.list_keys = true),
        schemas: schemas.iter().all(|schema| !schema.is_null()),
    }
}

fn with(definition: &Value, old: Option<&Value>, required: Required) -> Errors {
    let mut errors = Errors::new();
    let (spec, path) = (definition.at("spec"), Path::new("spec"));
    if old.is_none() {
        let name = definition.text("metadata.name");
        let wanted = format!("{}.{}", spec.text("names.plural"), spec.text("group"));
        if !name.is_empty() && name != wanted {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid("metadata.name", name, detail));
        }
    }
    self::spec(&mut errors, &path, spec, old.map(|old| old.at("spec")), required);
    if let Some(old) = old {
        let mut still = |name: &str| {
            let place = name.split('.').fold(path.clone(), |path, part| path.child(part));
            immutable(&mut errors, &place, spec.at(name), old.at("spec").at(name));
        };
        if conditions::is_true(old, "Established") {
            still("scope");
            still("names.kind");
        }
        still("group");
        still("names.plural");
    }
    errors.extend(validate_status(definition));
    stored_versions(&mut errors, definition);
    names::approved(&mut errors, definition, old);
    let kept = old.is_some_and(|old| old.flag("spec.preserveUnknownFields"));
    if spec.flag("preserveUnknownFields") && !kept {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(path.child("preserveUnknownFields"), true, detail));
    }
    errors
}

/// The versions in which objects may still be stored.
fn stored_versions(errors: &mut Errors, definition: &Value) {
    let path = Path::new("status").child("storedVersions");
    let stored: Vec<&str> = definition.texts("status.storedVersions").collect();
    if stored.is_empty() {
        let shown = super::shown_list(definition.at("status.storedVersions"));
        errors.push(FieldError::invalid(path, shown, "must have at least one stored version"));
        return;
    }
    let versions = definition.items("spec.versions");
    for version in versions.iter().filter(|v| v.flag("storage") && !stored.contains(&v.text("name"))) {
        let detail = format!("must have the storage version {}", version.text("name"));
        errors.push(FieldError::invalid(&path, stored.clone(), detail));
    }
    for (at, name) in stored.iter().enumerate() {
        if !versions.iter().any(|v| v.text("name") == *name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(FieldError::invalid(path.index(at), *name, detail));
        }
    }
}

fn spec(errors: &mut Errors, path: &Path, spec: &Value, old: Option<&Value>, required: Required) {
    names::group(errors, &path.child("group"), spec.text("group"));
    required_one_of(errors, &path.child("scope"), spec.text("scope"), &["Cluster", "Namespaced"]);
    let hoisted = Hoisted::of(spec);
    let versions = spec.items("versions");
    let versions_path = path.child("versions");
    for (at, version) in versions.iter().enumerate() {
        self::version(errors, &versions_path.index(at), version, hoisted, required);
    }
    let names: Vec<&str> = versions.iter().map(|v| v.text("name")).collect();
    let complain = |errors: &mut Errors, detail: &str| {
        errors.push(FieldError::invalid(&versions_path, shown::versions(spec, &hoisted), detail));
    };
    if names.iter().enumerate().any(|(at, name)| names[..at].contains(name)) {
        complain(errors, "must contain unique version names");
    }
    if versions.iter().filter(|v| v.flag("storage")).count() != 1 {
        complain(errors, "must have exactly one version marked as storage version");
    }
    // In kube-apiserver's own form the first version's name stands above the versions too.
    if let Some(first) = names.first().filter(|name| !name.is_empty()) {
        let complaints = labels::dns1035_label(first);
        if !complaints.is_empty() {
            errors.push(FieldError::invalid(path.child("version"), *first, complaints.join(",")));
        }
    }
    names::all_there(errors, &path.child("names"), spec.at("names"));
    names::names(errors, &path.child("names"), spec.at("names"));
    if let Some(first) = versions.first() {
        let with_status = versions.iter().any(has_status);
        if hoisted.schema {
            schema(errors, &path.child("validation"), first.at("schema"), with_status, required);
        }
        if hoisted.subresources {
            subresources(errors, &path.child("subresources"), first.at("subresources"));
        }
        if hoisted.columns {
            columns(errors, &path.child("additionalPrinterColumns"), first);
        }
        if hoisted.selectable {
            selectable_fields(errors, &path.child("selectableFields"), first);
        }
    }
    let always = old.is_none_or(|old| {
        let had: Vec<&str> = old.texts("conversion.webhook.conversionReviewVersions").collect();
        had.is_empty() || had.iter().any(|version| REVIEW_VERSIONS.contains(version))
    });
    let conversion_path = path.child("conversion");
    conversion(errors, &conversion_path, spec.at("conversion"), always);
    let bundle = |spec: &Value| spec.text("conversion.webhook.clientConfig.caBundle").to_owned();
    let kept = old.is_some_and(|old| ca_bundle::problem(&bundle(old)).is_some());
    if spec.text("conversion.strategy") == "Webhook" && !kept {
        ca_bundle::check(errors, &conversion_path.child("webhookClientConfig"), &bundle(spec));
    }
}

fn has_status(version: &Value) -> bool {
    version.has("subresources.status")
}

fn version(errors: &mut Errors, path: &Path, version: &Value, hoisted: Hoisted, required: Required) {
    if required.schemas && !version.has("schema.openAPIV3Schema") {
        errors.push(FieldError::required(path.child("schema").child("openAPIV3Schema"), ""));
    }
    let name = version.text("name");
    let complaints = labels::dns1035_label(name);
    if !complaints.is_empty() {
        errors.push(FieldError::invalid(path.child("name"), name, complaints.join(",")));
    }
    deprecation(errors, &path.child("deprecationWarning"), version);
    if !hoisted.schema {
        schema(errors, &path.child("schema"), version.at("schema"), has_status(version), required);
    }
    if !hoisted.subresources {
        subresources(errors, &path.child("subresources"), version.at("subresources"));
    }
    if !hoisted.columns {
        columns(errors, &path.child("additionalPrinterColumns"), version);
    }
    if !hoisted.selectable {
        selectable_fields(errors, &path.child("selectableFields"), version);
    }
}

/// What to tell users of a version that goes away.
fn deprecation(errors: &mut Errors, path: &Path, version: &Value) {
    let Some(text) = version.some_text("deprecationWarning") else { return };
    let mut complain = |detail: &str| errors.push(FieldError::invalid(path, text, detail));
    if !version.flag("deprecated") {
        complain("can only be set for deprecated versions");
        return;
    }
    if text.len() > MOST_WARNING {
        complain("must be <= 256 characters long");
    }
    if text.is_empty() {
        complain("must not be an empty string");
    }
    let unprintable = |c: &char| c.is_control() || (c.is_whitespace() && *c != ' ');
    if let Some((at, _)) = text.char_indices().find(|(_, c)| unprintable(c)) {
        complain(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
}

fn schema(errors: &mut Errors, path: &Path, validation: &Value, with_status: bool, required: Required) {
    let schema = validation.at("openAPIV3Schema");
    if schema.is_null() {
        return;
    }
    let path = path.child("openAPIV3Schema");
    if with_status {
        beside_status(errors, &path, schema);
    }
    if schema.flag("nullable") {
        errors.push(FieldError::forbidden(path.child("nullable"), "nullable cannot be true at the root"));
    }
    let mut sound = required.structural;
    let keywords = schema_rules::keywords(&path, schema, required);
    if required.structural && keywords.is_empty() && errors.is_empty() && names_a_dialect(schema) {
        let detail = "OpenAPIV3Schema 'schema' is not supported";
        errors.push(FieldError::invalid(&path, "", detail));
    }
    if required.structural && !is_unsupported(schema) {
        let mut found = structural_rules::structural(&path, schema);
        if found.is_empty() {
            found = structural_rules::defaults(&path, schema, required.pruned_defaults);
        }
        sound &= found.is_empty();
        errors.extend(found);
    }
    sound &= keywords.is_empty();
    errors.extend(keywords);
    if sound {
        errors.extend(super::expressions(&path, schema));
    }
}

/// Keywords with which a schema cannot be read as a structural one at all.
fn is_unsupported(schema: &Value) -> bool {
    let keywords =
        ["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"];
    anywhere(schema, &|schema| {
        keywords.iter().any(|name| !crate::resources::fields::is_zero(schema.at(name)))
            || schema.at("x-kubernetes-preserve-unknown-fields") == &Value::Bool(false)
            || schema.at("items").is_array()
    })
}

/// Whether a schema says which dialect it is written in: the one keyword that nothing else complains about.
fn names_a_dialect(schema: &Value) -> bool {
    anywhere(schema, &|schema| !schema.text("$schema").is_empty())
}

/// Whether something holds of a schema or of one in it.
fn anywhere(schema: &Value, holds: &dyn Fn(&Value) -> bool) -> bool {
    let lists = ["allOf", "anyOf", "oneOf"].iter().flat_map(|list| schema.items(list));
    let single = ["items", "not", "additionalProperties"].iter().map(|name| schema.at(name));
    let mut below = schema.entries("properties").map(|(_, one)| one).chain(lists).chain(single);
    holds(schema) || below.any(|one| one.is_object() && anywhere(one, holds))
}

/// A schema's root when the status is validated on its own.
fn beside_status(errors: &mut Errors, path: &Path, schema: &Value) {
    for member in shown::members_of(schema) {
        if member == "Type" {
            if schema.text("type") != "object" {
                let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                errors.push(FieldError::invalid(path.child("type"), schema.text("type"), detail));
                return;
            }
        } else if !shown::is_allowed_at_root(member) {
            let detail = format!(
                "only {} fields are allowed at the root of the schema if the status subresource is enabled",
                shown::allowed_at_root()
            );
            errors.push(FieldError::invalid(path, shown::schema(schema), detail));
            return;
        }
    }
}

fn subresources(errors: &mut Errors, path: &Path, subresources: &Value) {
    let scale = subresources.at("scale");
    if scale.is_null() {
        return;
    }
    let path = path.child("scale");
    for (field, begin, below) in [
        ("specReplicasPath", ".spec.", "should be a json path under .spec"),
        ("statusReplicasPath", ".status.", "should be a json path under .status"),
    ] {
        let (path, text) = (path.child(field), scale.text(field));
        if text.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if json_path(errors, &path, text) && !text.starts_with(begin) {
            errors.push(FieldError::invalid(path, text, below));
        }
    }
    let (path, text) = (path.child("labelSelectorPath"), scale.text("labelSelectorPath"));
    let below = [".spec.", ".status."].iter().any(|begin| text.starts_with(begin));
    if !text.is_empty() && json_path(errors, &path, text) && !below {
        errors.push(FieldError::invalid(path, text, "should be a json path under either .spec or .status"));
    }
}

/// Whether a path begins as one.
fn json_path(errors: &mut Errors, path: &Path, text: &str) -> bool {
    let good = text.starts_with('.');
    if !good {
        errors.push(FieldError::invalid(path, text, "must be a simple json path starting with ."));
    }
    good
}

fn columns(errors: &mut Errors, path: &Path, version: &Value) {
    for (at, column) in version.items("additionalPrinterColumns").iter().enumerate() {
        let path = path.index(at);
        if column.text("name").is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        }
        let type_ = column.text("type");
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        if type_.is_empty() {
            errors.push(FieldError::required(path.child("type"), detail));
        } else if !COLUMN_TYPES.contains(&type_) {
            errors.push(FieldError::invalid(path.child("type"), type_, detail));
        }
        let format = column.text("format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(FieldError::invalid(path.child("format"), format, detail));
        }
        let (path, text) = (path.child("JSONPath"), column.text("jsonPath"));
        if text.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else {
            json_path(errors, &path, text);
        }
    }
}

fn selectable_fields(errors: &mut Errors, path: &Path, version: &Value) {
    let fields = version.items("selectableFields");
    if fields.is_empty() || !version.has("schema.openAPIV3Schema") {
        return;
    }
    let schema = Schema::parse(version.at("schema.openAPIV3Schema"));
    let mut seen: Vec<&str> = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let path = path.index(at).child("jsonPath");
        let text = field.text("jsonPath");
        if text.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        let found = match structural::field_at(&schema, text) {
            Ok(found) => found,
            Err(problem) => {
                errors.push(FieldError::invalid(path, text, format!("is an invalid path: {problem}")));
                continue;
            }
        };
        if text.starts_with(".metadata") {
            errors.push(FieldError::invalid(&path, text, "must not point to fields in metadata"));
        }
        if !matches!(found.type_, Type::String | Type::Boolean | Type::Integer) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(FieldError::invalid(&path, text, detail));
        }
        if seen.contains(&text) {
            errors.push(FieldError::duplicate(&path, text));
        } else {
            seen.push(text);
        }
    }
    if seen.len() as i64 > MOST_SELECTABLE {
        errors.push(FieldError::too_many(path, seen.len() as i64, MOST_SELECTABLE));
    }
}

fn conversion(errors: &mut Errors, path: &Path, conversion: &Value, recognized: bool) {
    if conversion.is_null() {
        return;
    }
    let strategy = conversion.text("strategy");
    required_one_of(errors, &path.child("strategy"), strategy, &["None", "Webhook"]);
    let client = conversion.at("webhook.clientConfig");
    let versions = conversion.at("webhook.conversionReviewVersions");
    let (client_path, versions_path) =
        (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    if strategy != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if !client.is_null() {
            errors.push(FieldError::forbidden(client_path, detail));
        }
        if !conversion.items("webhook.conversionReviewVersions").is_empty() {
            errors.push(FieldError::forbidden(versions_path, detail));
        }
        return;
    }
    if client.is_null() {
        errors.push(FieldError::required(client_path, "required when strategy is set to Webhook"));
    } else {
        webhooks::client(errors, &client_path, client);
    }
    review_versions(errors, &versions_path, versions, recognized);
}

fn review_versions(errors: &mut Errors, path: &Path, list: &Value, recognized: bool) {
    let versions: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if versions.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    for (at, version) in versions.iter().enumerate() {
        if versions[..at].contains(version) {
            errors.push(FieldError::invalid(path.index(at), *version, "duplicate version"));
            continue;
        }
        for complaint in labels::dns1035_label(version) {
            errors.push(FieldError::invalid(path.index(at), *version, complaint));
        }
    }
    if recognized && !versions.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        let detail = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(path, versions, detail));
    }
}
