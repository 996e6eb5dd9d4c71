//! ResourceQuotas.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{BadValue, FieldError, Path};
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::Fields;
use crate::resources::internal::{self, SCOPE_SELECTOR};
use crate::resources::pod_spec::{quantity, resource_name};
use crate::resources::rules::{Errors, IMMUTABLE, nothing, shown};
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
        scopes(&mut errors, &path.child("scopes"), object.at("spec"));
        let list = path.child("scopeSelector.matchExpressions");
        for entry in object.items("spec.scopeSelector.matchExpressions") {
            scope(&mut errors, &list, entry, object.at("spec"));
        }
        let selected: Vec<&str> =
            object.items("spec.scopeSelector.matchExpressions").iter().map(|e| e.text("scopeName")).collect();
        conflicts(&mut errors, &list, &selected, object.at("spec.scopes"));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate(object);
        let sorted = |object: &Value| {
            let mut scopes: Vec<String> = object.texts("spec.scopes").map(str::to_owned).collect();
            scopes.sort();
            scopes.dedup();
            scopes
        };
        if sorted(object) != sorted(old) {
            errors.push(FieldError::invalid("spec.scopes", listed(object.at("spec.scopes")), IMMUTABLE));
        }
        errors
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in object.entries("status.hard") {
            let used = object.at("status.used").get(name).and_then(Value::as_str).unwrap_or("0");
            let text = format!("{name}: {used}/{}", hard.as_str().unwrap_or_default());
            if name.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
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

/// Scopes of which no object has both.
const OPPOSITES: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
/// What pods use, beside being there.
const COMPUTE: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// Whether a limit on a standard resource can be narrowed to a scope.
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => resource == "pods" || COMPUTE.contains(&resource),
        _ => true,
    }
}

/// A list, or a bare `null` where there is none.
fn listed(list: &Value) -> BadValue {
    if list.is_null() { nothing() } else { shown(list) }
}

/// How many of the limits a scope does not fit.
fn misfits(spec: &Value, scope: &str) -> usize {
    spec.entries("hard").filter(|(name, _)| is_quota_name(name) && !fits(scope, name)).count()
}

fn conflicts(errors: &mut Errors, path: &Path, scopes: &[&str], value: &Value) {
    for pair in OPPOSITES {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            errors.push(FieldError::invalid(path, listed(value), "conflicting scopes"));
        }
    }
}

fn scopes(errors: &mut Errors, path: &Path, spec: &Value) {
    let value = spec.at("scopes");
    for scope in spec.texts("scopes") {
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(path, shown(value), "unsupported scope"));
        }
        for _ in 0..misfits(spec, scope) {
            errors.push(FieldError::invalid(path, shown(value), "unsupported scope applied to resource"));
        }
    }
    conflicts(errors, path, &spec.texts("scopes").collect::<Vec<_>>(), value);
}

fn scope(errors: &mut Errors, path: &Path, entry: &Value, spec: &Value) {
    let (name, operator) = (entry.text("scopeName"), entry.text("operator"));
    if !SCOPES.contains(&name) {
        errors.push(FieldError::invalid(path.child("scopeName"), name, "unsupported scope"));
    }
    for _ in 0..misfits(spec, name) {
        let value = internal::shown(spec.at("scopeSelector"), SCOPE_SELECTOR);
        errors.push(FieldError::invalid(path, value, "unsupported scope applied to resource"));
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
