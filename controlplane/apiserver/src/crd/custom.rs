//! A custom resource: the rules of its objects, made of its definition. What is the same for all kinds is the engine's business.

use std::sync::Arc;

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, FieldErrorKind, Path};
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::structural;
use pagurus_controlplane_schema::table::Resource;
use serde_json::{Number, Value};

use super::convert::{self, Converter};
use super::json_path::JsonPath;
use super::{Scale, Version, establish};
use crate::objects::Objects;
use crate::registry::FieldName;
use crate::resources::extensions::embedded;
use crate::resources::fields::{Fields, set};
use crate::strategy::{Context, Strategy, drop_status, keep_all_but, keep_status};

/// See the module's description.
#[derive(Debug)]
pub struct Custom {
    /// Its definition's name, and where definitions are: documents show of a schema what nothing else needs.
    name: String,
    definitions: Looks,
    group: Arc<str>,
    /// Where in `versions` the one is that objects are stored in.
    storage: usize,
    versions: Vec<Version>,
    selectable: Vec<FieldName>,
    converter: Converter,
}

/// Looks at stored objects.
struct Looks(Arc<dyn Objects>);

impl std::fmt::Debug for Looks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Looks")
    }
}

impl Custom {
    /// Of a definition that is sound.
    pub(super) fn of(definition: &Value, objects: Arc<dyn Objects>) -> Self {
        let converter = Converter::of(definition, objects.clone());
        let (group, kind) = (definition.text("spec.group"), definition.text("spec.names.kind"));
        let given = definition.items("spec.versions");
        let versions: Vec<Version> = given.iter().map(|v| Version::of(group, kind, v)).collect();
        let mut selectable: Vec<FieldName> =
            versions.iter().flat_map(|v| v.selectable.iter().cloned()).collect();
        selectable.sort();
        selectable.dedup();
        let storage = given.iter().position(|v| v.flag("storage")).unwrap_or_default();
        let (name, definitions) = (definition.text("metadata.name").to_owned(), Looks(objects));
        Self { name, definitions, group: group.into(), storage, versions, selectable, converter }
    }

    /// All versions, those that are not served too.
    pub(super) fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The version that objects are stored in.
    pub(super) fn storage(&self) -> &Version {
        &self.versions[self.storage]
    }

    /// The version of this name; that of the storage for an unknown one.
    pub(crate) fn version(&self, name: &str) -> &Version {
        self.versions.iter().find(|v| &*v.name == name).unwrap_or_else(|| self.storage())
    }

    /// Whether stored objects may be in other versions than that of the storage.
    pub(crate) fn is_mixed(&self) -> bool {
        self.versions.len() > 1 && matches!(self.converter, Converter::Webhook(_))
    }

    /// Brings an object from a client into the form of a version: drops fields that the schema does not have and `null`s that mean
    /// nothing. The paths of the fields, or why it is no object of a custom resource at all.
    pub(crate) fn receive(&self, version: &str, object: &mut Value) -> Result<Vec<String>, String> {
        let schema = &self.version(version).schema;
        whole_numbers(object);
        let mut unknown = embedded::coerce_metadata(object)?;
        unknown.extend(structural::prune(object, schema, true));
        structural::drop_nulls(object, schema);
        let inner = embedded::coerce(&Path::default(), object, schema, false);
        unknown.extend(inner.map_err(|error| error.to_string())?);
        Ok(unknown)
    }

    /// Fills in the defaults of a version.
    pub(crate) fn fill(&self, version: &str, object: &mut Value) {
        structural::default(object, &self.version(version).schema);
    }

    /// An object in another version. It may wait for a webhook.
    pub(crate) fn convert(&self, object: Value, version: &str) -> Result<Value, ApiError> {
        let wanted = format!("{}/{version}", self.group);
        if object.text("apiVersion") == wanted {
            return Ok(object);
        }
        let mut converted = self.converter.one(object, &wanted)?;
        self.settle(version, &mut converted);
        Ok(converted)
    }

    /// Converts many objects beforehand, so that [`Self::convert`] finds them done.
    pub(crate) async fn prepare(&self, objects: Vec<Value>, version: &str) -> Result<(), ApiError> {
        self.converter.prepare(objects, &format!("{}/{version}", self.group)).await
    }

    /// What conversion or an older definition left behind.
    fn settle(&self, version: &str, object: &mut Value) {
        let schema = &self.version(version).schema;
        structural::prune(object, schema, true);
        structural::drop_nulls(object, schema);
        structural::default(object, schema);
    }

    /// What is wrong with an object of a version, new or changed.
    pub(crate) fn errors(&self, version: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let root = Path::default();
        let version = self.version(version);
        let schema = &version.schema;
        let mut errors = structural::validate_change(&root, object, old, schema);
        if let Some(scale) = &version.scale {
            errors.extend(scale_errors(scale, object));
        }
        errors.extend(embedded::validate(&root, object, schema, false));
        if old.is_none_or(|old| structural::duplicates(&root, old, schema).is_empty()) {
            errors.extend(structural::duplicates(&root, object, schema));
        }
        if schema.has_rules() {
            if errors.iter().any(keeps_rules_from_running) {
                errors.push(FieldError::invalid("<nil>", Value::Null, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"));
            } else {
                errors.extend(version.check_rules(object, old));
            }
        }
        errors
    }
}

/// After such errors expressions cannot rely on what they are given.
fn keeps_rules_from_running(error: &FieldError) -> bool {
    use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
}

/// What is wrong with the fields that `scale` shows.
fn scale_errors(scale: &Scale, object: &Value) -> Vec<FieldError> {
    let at = |path: &str| JsonPath::parse(path).and_then(|p| p.find(object).first().map(|v| (*v).clone()));
    let mut errors = Vec::new();
    for path in [&scale.spec, &scale.status] {
        let Some(value) = at(path) else { continue };
        let Some(number) = value.as_i64() else {
            let detail = format!(
                "{path} accessor error: {value} is of the type {}, expected int64",
                convert::go_type(&value)
            );
            errors.push(FieldError::invalid(path.as_str(), 0, detail));
            continue;
        };
        if number < 0 {
            errors.push(FieldError::invalid(path.as_str(), number, "should be a non-negative integer"));
        } else if number > i64::from(i32::MAX) {
            let detail = format!("should be less than or equal to {}", i32::MAX);
            errors.push(FieldError::invalid(path.as_str(), number, detail));
        }
    }
    if let Some(path) = &scale.selector
        && let Some(value) = at(path)
        && !value.is_string()
    {
        let detail = format!(
            "{path} accessor error: {value} is of the type {}, expected string",
            convert::go_type(&value)
        );
        errors.push(FieldError::invalid(path.as_str(), "", detail));
    }
    errors
}

/// Numbers that are whole are integers, however they were written: `1.0` is `1`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or_default();
            if float.fract() == 0.0 && float.abs() < 9.0e15 {
                *number = Number::from(float as i64);
            }
        }
        _ => {}
    }
}

impl Strategy for Custom {
    fn custom(&self) -> Option<&Custom> {
        Some(self)
    }

    fn prepare_create(&self, context: &Context<'_>, object: &mut Value) {
        drop_status(context.resource, object);
    }

    fn prepare_update(&self, context: &Context<'_>, object: &mut Value, old: &Value) {
        keep_status(context.resource, object, old);
    }

    fn prepare_subresource_update(&self, _context: &Context<'_>, sub: &str, object: &mut Value, old: &Value) {
        let managed = object.at("metadata.managedFields").clone();
        keep_all_but(object, old, &[sub]);
        set(&mut object["metadata"], "managedFields", (!managed.is_null()).then_some(managed));
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let Some(old) = old else { return Vec::new() };
        let version = object.text("apiVersion").rsplit('/').next().unwrap_or_default();
        self.version(version).kept_failures(object, old).iter().map(ToString::to_string).collect()
    }

    fn deprecation(&self, version: &str) -> Option<&str> {
        self.version(version).deprecation.as_deref()
    }

    fn selectable_fields(&self) -> &[FieldName] {
        &self.selectable
    }

    fn selectable_in(&self, version: &str) -> &[FieldName] {
        &self.version(version).selectable
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        match object.at(name) {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        }
    }

    fn stored_form(&self, object: &Value) -> Option<Value> {
        let storage = self.storage();
        let old = object.text("apiVersion") != format!("{}/{}", self.group, storage.name);
        if old && matches!(self.converter, Converter::Webhook(_)) {
            return None;
        }
        let mut now = object.clone();
        if old {
            now["apiVersion"] = format!("{}/{}", self.group, storage.name).into();
        }
        self.settle(&storage.name, &mut now);
        (now != *object).then_some(now)
    }

    fn published_schema(&self, version: &str) -> Option<Value> {
        let Looks(objects) = &self.definitions;
        let definition = objects.get(establish::GROUP, establish::PLURAL, "", &self.name)?.value();
        let version = definition.items("spec.versions").iter().find(|v| v.text("name") == version)?;
        Some(version.at("schema.openAPIV3Schema").clone())
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn generation_changes(&self, resource: &Resource, object: &Value, old: &Value) -> bool {
        let status_alone = resource.subresource("status").is_some();
        let counted = |fields: &Value| {
            let mut fields = fields.as_object().cloned().unwrap_or_default();
            fields.remove("metadata");
            if status_alone {
                fields.remove("status");
            }
            fields
        };
        counted(object) != counted(old)
    }

    fn reset_fields(&self, resource: &Resource, sub: &str) -> &'static [&'static str] {
        match sub {
            "status" => &["spec", "metadata"],
            "" if resource.subresource("status").is_some() => &["status"],
            _ => &[],
        }
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object.text("apiVersion").rsplit('/').next().unwrap_or_default();
        let cells = self.version(name).columns.iter().map(|column| column.cell(object, now));
        std::iter::once(object.text("metadata.name").into()).chain(cells).collect()
    }
}
