//! ResourceQuotas.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::Fields;
use crate::resources::pod_spec::{quantity, resource_name};
use crate::resources::rules::{Errors, immutable, shown};
use crate::strategy::Strategy;

/// The strategy of `resourcequotas`.
pub(crate) struct ResourceQuotas;

impl Strategy for ResourceQuotas {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        for (name, amount) in object.entries("spec.hard") {
            let path = path.child("hard").key(name);
            resource_name(&mut errors, &path, name);
            if !name.contains('/') && !is_quota_name(name) {
                errors.push(FieldError::invalid(&path, name, "must be a standard resource for quota"));
            }
            quantity(&mut errors, &path, name, amount);
        }
        for scope in object.texts("spec.scopes") {
            if !SCOPES.contains(&scope) {
                errors.push(FieldError::invalid(
                    path.child("scopes"),
                    shown(object.at("spec.scopes")),
                    "unsupported scope",
                ));
            }
        }
        for entry in object.items("spec.scopeSelector.matchExpressions") {
            scope(&mut errors, &path.child("scopeSelector.matchExpressions"), entry);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate(object);
        for field in ["scopes", "scopeSelector"] {
            let path = Path::new("spec").child(field);
            immutable(&mut errors, &path, object.at("spec").at(field), old.at("spec").at(field));
        }
        errors
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in object.entries("status.hard") {
            let used = object.at("status.used").get(name).and_then(Value::as_str).unwrap_or("0");
            let text = format!("{name}: {used}/{}", hard.as_str().unwrap_or_default());
            if name.starts_with("limits") { limits.push(text) } else { requests.push(text) }
        }
        vec![
            cells::name(object),
            requests.join(", ").into(),
            limits.join(", ").into(),
            cells::age(object, now),
        ]
    }
}

/// What a quota may be narrowed to.
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Names without a domain that a quota may limit.
const NAMES: [&str; 18] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
];

fn is_quota_name(name: &str) -> bool {
    NAMES.contains(&name)
        || name == "services.nodeports"
        || ["hugepages-", "requests.hugepages-", "limits.hugepages-"].iter().any(|p| name.starts_with(p))
}

fn scope(errors: &mut Errors, path: &Path, entry: &Value) {
    let (name, operator) = (entry.text("scopeName"), entry.text("operator"));
    if !SCOPES.contains(&name) {
        errors.push(FieldError::invalid(path.child("scopeName"), name, "unsupported scope"));
    }
    let only_exists = SCOPES.contains(&name) && !matches!(name, "PriorityClass" | "VolumeAttributesClass");
    if only_exists && operator != "Exists" {
        let text = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(path.child("operator"), operator, text));
    }
    let values = entry.items("values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(path.child("values"), text));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(path.child("values"), entry.at("values").clone(), text));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            errors.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator"));
        }
    }
}
