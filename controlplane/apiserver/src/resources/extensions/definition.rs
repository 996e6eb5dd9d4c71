//! The strategy of CustomResourceDefinitions: what is filled in, what the server alone decides, and how one is deleted.

use std::collections::BTreeSet;

use jiff::Timestamp;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::{conditions, formats, go, time};
use pagurus_controlplane_schema::table::Resource;
use serde_json::{Value, json};

use super::spec_rules;
use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, existing, object_at, set};
use crate::strategy::{Context, Strategy, keep, keep_all_but};

/// Holds a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The strategy of `customresourcedefinitions`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Definitions;

impl Strategy for Definitions {
    fn default(&self, definition: &mut Value) {
        let spec = object_at(definition, "spec");
        let names = object_at(spec, "names");
        let kind = names.text("kind").to_owned();
        default_text(names, "singular", &kind.to_lowercase());
        if !kind.is_empty() {
            default_text(names, "listKind", &format!("{kind}List"));
        }
        if !spec.has("conversion") {
            set(spec, "conversion", Some(json!({"strategy": "None"})));
        }
        if let Some(service) = existing(spec, "conversion.webhook.clientConfig.service") {
            default(service, "port", 443);
        }
    }

    fn prepare_create(&self, _context: &Context<'_>, definition: &mut Value) {
        set(
            definition,
            "status",
            Some(
                json!({"acceptedNames": {"plural": "", "kind": ""}, "conditions": null, "storedVersions": null}),
            ),
        );
        remember_storage_version(definition);
    }

    fn prepare_update(&self, _context: &Context<'_>, definition: &mut Value, old: &Value) {
        keep(definition, old, "status");
        remember_storage_version(definition);
    }

    fn prepare_subresource_update(
        &self,
        _context: &Context<'_>,
        sub: &str,
        definition: &mut Value,
        old: &Value,
    ) {
        keep_all_but(definition, old, &["metadata", sub]);
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            let value = old.at("metadata").at(field);
            set(&mut definition["metadata"], field, (!value.is_null()).then(|| value.clone()));
        }
    }

    fn validate(&self, definition: &Value) -> Vec<FieldError> {
        spec_rules::validate(definition)
    }

    fn validate_update(&self, definition: &Value, old: &Value) -> Vec<FieldError> {
        spec_rules::validate_change(definition, old)
    }

    fn validate_subresource_update(&self, _sub: &str, definition: &Value, _old: &Value) -> Vec<FieldError> {
        spec_rules::validate_status(definition)
    }

    fn warnings(&self, definition: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut unknown = BTreeSet::new();
        for version in definition.items("spec.versions") {
            collect_formats(version.at("schema.openAPIV3Schema"), &mut unknown);
        }
        unknown.iter().map(|format| format!("unrecognized format {}", go::quote(format))).collect()
    }

    fn reset_fields(&self, _resource: &Resource, sub: &str) -> &'static [&'static str] {
        if sub == "status" { &["metadata", "spec"] } else { &["status"] }
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    /// Every definition is held once: so that its objects can be deleted first.
    fn holds_deletion(&self, definition: &Value) -> bool {
        !definition.has("metadata.deletionTimestamp")
    }

    fn mark_deleted(&self, definition: &mut Value) {
        let metadata = object_at(definition, "metadata");
        set(metadata, "deletionGracePeriodSeconds", None);
        if !metadata.texts("finalizers").any(|f| f == CLEANUP) {
            match metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
                Some(list) => list.push(CLEANUP.into()),
                None => metadata["finalizers"] = json!([CLEANUP]),
            }
        }
        // Marking is no change that the generation counts.
        if let Some(generation) = metadata.some_int("generation").filter(|g| *g > 1) {
            metadata["generation"] = (generation - 1).into();
        }
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        set_condition(definition, "Terminating", true, "InstanceDeletionPending", message);
    }

    fn cells(&self, definition: &Value, _now: Timestamp) -> Vec<Value> {
        let versions: Vec<&str> = definition.items("spec.versions").iter().map(|v| v.text("name")).collect();
        vec![
            cells::name(definition),
            definition.text("spec.scope").into(),
            versions.join(",").into(),
            cells::created_at(definition),
            definition.text("spec.group").into(),
            definition.text("spec.names.kind").into(),
            cells::joined(definition, "spec.names.shortNames").into(),
            conditions::is_true(definition, "Established").into(),
        ]
    }
}

/// Adds the storage version to those in which objects may be stored.
fn remember_storage_version(definition: &mut Value) {
    let storage = definition.items("spec.versions").iter().find(|v| v.flag("storage"));
    let Some(name) = storage.map(|v| v.text("name").to_owned()) else { return };
    let status = object_at(definition, "status");
    if status.texts("storedVersions").any(|stored| stored == name) {
        return;
    }
    match status.get_mut("storedVersions").and_then(Value::as_array_mut) {
        Some(list) => list.push(name.into()),
        None => status["storedVersions"] = json!([name]),
    }
}

/// The formats in a schema that mean nothing to anybody.
fn collect_formats(schema: &Value, unknown: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(format) if name == "format" && !format.is_empty() => {
                        if !formats::is_known(format) {
                            unknown.insert(format.clone());
                        }
                    }
                    _ if matches!(name.as_str(), "default" | "enum" | "example") => {}
                    value => collect_formats(value, unknown),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_formats(item, unknown)),
        _ => {}
    }
}

/// Sets a condition of a definition; whether it is another one than before. The time is that of the last change of its status.
pub(crate) fn set_condition(
    definition: &mut Value,
    type_: &str,
    holds: bool,
    reason: &str,
    message: &str,
) -> bool {
    let status = if holds { "True" } else { "False" };
    let before = conditions::get(definition, type_).cloned();
    let same_status = before.as_ref().is_some_and(|c| c.text("status") == status);
    let since = before
        .as_ref()
        .filter(|_| same_status)
        .map_or_else(time::now_text, |c| c.text("lastTransitionTime").to_owned());
    let condition = json!({"type": type_, "status": status, "lastTransitionTime": since, "reason": reason, "message": message});
    if before.as_ref() == Some(&condition) {
        return false;
    }
    let list = object_at(definition, "status");
    if !list.at("conditions").is_array() {
        list["conditions"] = json!([]);
    }
    let list = list.get_mut("conditions").and_then(Value::as_array_mut);
    let Some(list) = list else { return false };
    match list.iter_mut().find(|c| c.text("type") == type_) {
        Some(present) => *present = condition,
        None => list.push(condition),
    }
    true
}
