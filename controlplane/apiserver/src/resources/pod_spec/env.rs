//! The rules for environment variables and where their values come from.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::quantity::Quantity;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, names, required};

/// Fields of the pod that a variable may take its value from.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of the pod that a file may take its content from.
pub(super) const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields of a pod that have a name at all.
const POD_FIELDS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

/// Resources of a container that something may be taken from.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// `env` and `envFrom` of a container.
pub(super) fn check(errors: &mut Errors, path: &Path, container: &Value) {
    for (i, variable) in container.items("env").iter().enumerate() {
        let path = path.child("env").index(i);
        let name = variable.text("name");
        if required(errors, &path.child("name"), name) {
            names(errors, &path.child("name"), name, labels::environment_name(name));
        }
        if variable.has("valueFrom") {
            let given = !variable.text("value").is_empty();
            source(errors, &path.child("valueFrom"), variable.at("valueFrom"), given);
        }
    }
    for (i, whole) in container.items("envFrom").iter().enumerate() {
        env_from(errors, &path.child("envFrom"), i, whole);
    }
}

fn source(errors: &mut Errors, path: &Path, source: &Value, value_given: bool) {
    let mut count = 0;
    for kind in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
        let reference = source.at(kind);
        if reference.is_null() {
            continue;
        }
        count += 1;
        let path = path.child(kind);
        match kind {
            "fieldRef" => field_reference(errors, &path, reference, &ENV_FIELDS),
            "resourceFieldRef" => resource_reference(errors, &path, reference, false),
            "fileKeyRef" => file_key(errors, &path, reference),
            _ => key_reference(errors, &path, reference),
        }
    }
    let text = match count {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if value_given => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(FieldError::invalid(path, "", text));
}

/// A field of the pod. An index in brackets is allowed for labels and annotations.
pub(super) fn field_reference(errors: &mut Errors, path: &Path, reference: &Value, allowed: &[&str]) {
    let (version, field) = (reference.text("apiVersion"), reference.text("fieldPath"));
    if !required(errors, &path.child("apiVersion"), version) {
        return;
    }
    let path = path.child("fieldPath");
    if !required(errors, &path, field) {
        return;
    }
    let convert =
        |why: String| FieldError::invalid(&path, field, format!("error converting fieldPath: {why}"));
    if version != "v1" {
        errors.push(convert(format!("unsupported pod version: {version}")));
        return;
    }
    if let Some((base, index)) = subscript(field) {
        match base {
            "metadata.annotations" => {
                names(errors, &path, index, labels::qualified_name(&index.to_lowercase()));
            }
            "metadata.labels" => names(errors, &path, index, labels::qualified_name(index)),
            _ => errors.push(convert("does not support subscript".to_owned())),
        }
        return;
    }
    let field = if field == "spec.host" { "spec.nodeName" } else { field };
    if !POD_FIELDS.contains(&field) {
        errors.push(convert(format!("field label not supported: {field}")));
    } else if !allowed.contains(&field) {
        errors.push(FieldError::not_supported(&path, field, allowed));
    }
}

/// `base['index']` taken apart.
fn subscript(field: &str) -> Option<(&str, &str)> {
    let (base, index) = field.strip_suffix("']")?.split_once("['")?;
    (!base.is_empty()).then_some((base, index))
}

/// A resource of a container.
pub(super) fn resource_reference(errors: &mut Errors, path: &Path, reference: &Value, in_volume: bool) {
    if in_volume && reference.text("containerName").is_empty() {
        errors.push(FieldError::required(path.child("containerName"), ""));
        return;
    }
    let resource = reference.text("resource");
    if !required(errors, &path.child("resource"), resource) {
        return;
    }
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|p| resource.starts_with(p));
    if !RESOURCES.contains(&resource) && !huge {
        errors.push(FieldError::not_supported(path.child("resource"), resource, &RESOURCES));
        return;
    }
    let divisor = reference.at("divisor");
    let text = Quantity::from_json(divisor).map(|q| q.to_string()).unwrap_or_default();
    let (allowed, noun): (&[&str], &str) = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") => (&["1m", "1"], "cpu"),
        Some("memory") => (&MEMORY_DIVISORS, "memory"),
        Some("ephemeral-storage") => (&MEMORY_DIVISORS, "local ephemeral storage"),
        _ => (&MEMORY_DIVISORS, "hugepages"),
    };
    if text != "0" && !allowed.contains(&text.as_str()) {
        let list = if noun == "cpu" { "1m and 1".to_owned() } else { allowed.join(", ") };
        let text = format!("only divisor's values {list} are supported with the {noun} resource");
        errors.push(FieldError::invalid(path.child("divisor"), resource, text));
    }
}

const MEMORY_DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

fn key_reference(errors: &mut Errors, path: &Path, reference: &Value) {
    let (name, key) = (reference.text("name"), reference.text("key"));
    names(errors, &path.child("name"), name, labels::dns_subdomain(name));
    if required(errors, &path.child("key"), key) {
        names(errors, &path.child("key"), key, labels::config_key(key));
    }
}

fn file_key(errors: &mut Errors, path: &Path, reference: &Value) {
    let key = reference.text("key");
    if required(errors, &path.child("key"), key) {
        names(errors, &path.child("key"), key, labels::environment_name(key));
    }
    required(errors, &path.child("volumeName"), reference.text("volumeName"));
    let file = reference.text("path");
    if required(errors, &path.child("path"), file) {
        crate::resources::rules::unreserved_path(errors, &path.child("path"), file);
    }
}

fn env_from(errors: &mut Errors, list: &Path, index: usize, whole: &Value) {
    let path = list.index(index);
    let prefix = whole.text("prefix");
    if !prefix.is_empty() {
        names(errors, &path.child("prefix"), prefix, labels::environment_name(prefix));
    }
    let mut count = 0;
    for kind in ["configMapRef", "secretRef"] {
        if whole.has(kind) {
            count += 1;
            let (path, name) = (path.child(kind).child("name"), whole.at(kind).text("name"));
            if required(errors, &path, name) {
                names(errors, &path, name, labels::dns_subdomain(name));
            }
        }
    }
    if count != 1 {
        let text = match count {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(list, "", text));
    }
}
