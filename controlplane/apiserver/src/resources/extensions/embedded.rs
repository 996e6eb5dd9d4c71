//! Whole objects inside of objects (`x-kubernetes-embedded-resource`): what they must say of themselves, and their metadata.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::key::GroupVersion;
use pagurus_controlplane_api::labels;
use pagurus_controlplane_schema::structural::Schema;
use pagurus_controlplane_schema::{Table, structural};
use serde_json::{Value, json};

use crate::resources::fields::Fields;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Brings the metadata of the object into the form of its type: the paths of the fields that it does not have, or why it is none.
pub(crate) fn coerce_metadata(object: &mut Value) -> Result<Vec<String>, String> {
    let Some(metadata) = object.get_mut("metadata") else { return Ok(Vec::new()) };
    let table = Table::builtin();
    let Some(id) = table.type_named(OBJECT_META) else { return Err("no ObjectMeta".to_owned()) };
    let mut checked = metadata.clone();
    let found = structural(table, id, &mut checked);
    if let Some(error) = found.errors.into_iter().next() {
        return Err(error);
    }
    *metadata = checked;
    Ok(found.unknown.into_iter().map(|path| format!("metadata.{path}")).collect())
}

/// Brings the metadata of all embedded objects into form; the unknown fields of all of them. `root` is whether the value itself is one.
pub(crate) fn coerce(
    path: &Path,
    value: &mut Value,
    schema: &Schema,
    root: bool,
) -> Result<Vec<String>, FieldError> {
    let mut unknown = Vec::new();
    visit(path, value, schema, root, &mut |path, object| {
        let given = object.at("metadata").clone();
        let found = coerce_metadata(object)
            .map_err(|error| FieldError::invalid(path.child("metadata"), given, error))?;
        unknown.extend(found.iter().map(|name| path.child(name).as_str().to_owned()));
        Ok(())
    })?;
    Ok(unknown)
}

fn visit<E>(
    path: &Path,
    value: &mut Value,
    schema: &Schema,
    root: bool,
    see: &mut impl FnMut(&Path, &mut Value) -> Result<(), E>,
) -> Result<(), E> {
    if value.is_object() && (root || schema.embedded) {
        see(path, value)?;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(of_field) = schema.property(name) {
                    visit(&path.child(name), value, of_field, false, see)?;
                } else if let Some(of_others) = schema.additional_schema() {
                    visit(&path.key(name), value, of_others, false, see)?;
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                if let Some(of_items) = &schema.items {
                    visit(&path.index(at), item, of_items, false, see)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// What is wrong with embedded objects: what they say of themselves, and their metadata.
pub(crate) fn validate(path: &Path, value: &Value, schema: &Schema, root: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut value = value.clone();
    let seen = visit(path, &mut value, schema, root, &mut |path, object| {
        errors.extend(object_errors(path, object));
        Ok::<(), std::convert::Infallible>(())
    });
    match seen {
        Ok(()) => errors,
    }
}

fn object_errors(path: &Path, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for name in ["apiVersion", "kind"] {
        let place = path.child(name);
        match object.at(name) {
            Value::Null if object.get(name).is_none() => errors.push(FieldError::required(place, "")),
            Value::String(text) if text.is_empty() => errors.push(FieldError::required(place, "")),
            Value::String(text) if name == "apiVersion" => {
                if let Err(error) = text.parse::<GroupVersion>() {
                    errors.push(FieldError::invalid(place, text.as_str(), error.to_string()));
                }
            }
            Value::String(text) => {
                let complaints = labels::dns1035_label(&text.to_lowercase());
                if !complaints.is_empty() {
                    let detail =
                        format!("may have mixed case, but should otherwise match: {}", complaints.join(","));
                    errors.push(FieldError::invalid(place, text.as_str(), detail));
                }
            }
            other => errors.push(FieldError::invalid(place, other.clone(), "must be a string")),
        }
    }
    if object.has("metadata") {
        let mut copy = json!({"metadata": object.at("metadata").clone()});
        match coerce_metadata(&mut copy) {
            Err(error) => {
                let given = object.at("metadata").clone();
                errors.push(FieldError::invalid(path.child("metadata"), given, error));
            }
            Ok(_) => errors.extend(crate::verbs::embedded_metadata(&copy).into_iter().map(|mut error| {
                error.path = path.child(&error.path).as_str().to_owned();
                error
            })),
        }
    }
    errors
}
