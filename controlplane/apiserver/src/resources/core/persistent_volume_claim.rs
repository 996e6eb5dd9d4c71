//! PersistentVolumeClaims.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{BadValue, FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::quantity::Quantity;
use serde_json::{Value, json};

use super::persistent_volume::storage_class;
use crate::resources::cells;
use crate::resources::deprecations;
use crate::resources::fields::{Fields, default, default_text, existing, object_at, same, set};
use crate::resources::internal::{self, pod::CLAIM_SPEC};
use crate::resources::line_diff;
use crate::resources::pod_spec::quantity;
use crate::resources::rules::{
    Errors, annotations_map, immutable, label_selector, labels_map, names, one_of, required,
};
use crate::strategy::{Context, Strategy, keep_status};

/// `dataSource` is the older form of `dataSourceRef`: what is given in one is copied to the other.
fn agree_on_source(spec: &mut Value, old: &Value) {
    // What else than a claim or a snapshot is named in the older field alone is forgotten, as long as nothing is named yet.
    let named = |spec: &Value| spec.has("dataSource") || spec.has("dataSourceRef");
    if !named(old) && !spec.has("dataSourceRef") && !is_claim_or_snapshot(spec.at("dataSource")) {
        set(spec, "dataSource", None);
    }
    let (source, reference) = (spec.at("dataSource").clone(), spec.at("dataSourceRef").clone());
    if !source.is_null() && reference.is_null() {
        let mut reference = source;
        default(&mut reference, "apiGroup", Value::Null);
        spec["dataSourceRef"] = reference;
    } else if source.is_null() && reference.text("namespace").is_empty() && is_claim_or_snapshot(&reference) {
        spec["dataSource"] = reference;
    }
}

/// Whether a volume may come from it by the older field.
fn is_claim_or_snapshot(source: &Value) -> bool {
    matches!(
        (source.text("apiGroup"), source.text("kind")),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    )
}

/// What a volume is filled from.
fn sources(errors: &mut Errors, path: &Path, spec: &Value) {
    for field in ["dataSource", "dataSourceRef"] {
        let (path, source) = (path.child(field), spec.at(field));
        if source.is_null() {
            continue;
        }
        for part in ["name", "kind"] {
            required(errors, &path.child(part), source.text(part));
        }
        let (group, kind) = (source.text("apiGroup"), source.text("kind"));
        if !group.is_empty() {
            names(errors, &path.child("apiGroup"), group, labels::dns_subdomain(group));
        } else if kind != "PersistentVolumeClaim" {
            let text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(&path, kind, text));
        }
        let namespace = source.text("namespace");
        if !namespace.is_empty() {
            names(errors, &path.child("namespace"), namespace, labels::dns_label(namespace));
        }
    }
    let (source, reference) = (spec.at("dataSource"), spec.at("dataSourceRef"));
    if source.is_null() || reference.is_null() {
        return;
    }
    let shown = || BadValue::Text(path.child("dataSource").as_str().to_owned());
    let parts = ["apiGroup", "kind", "name"];
    if !reference.text("namespace").is_empty() {
        let text = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(FieldError::invalid(path, shown(), text));
    } else if parts.iter().any(|part| source.text(part) != reference.text(part)) {
        errors.push(FieldError::invalid(path, shown(), "must match dataSourceRef"));
    }
}

/// The strategy of `persistentvolumeclaims`.
pub(crate) struct PersistentVolumeClaims;

/// Fills in a claim, also one that is a template in a StatefulSet.
pub(crate) fn default_claim(claim: &mut Value) {
    default_text(object_at(claim, "status"), "phase", "Pending");
    if let Some(spec) = existing(claim, "spec") {
        default(spec, "volumeMode", "Filesystem");
    }
}

/// The rules for a claim that is a template in a pod's ephemeral volume.
pub(crate) fn template(errors: &mut Errors, path: &Path, template: &Value) {
    labels_map(errors, &path.child("metadata.labels"), template.at("metadata.labels"));
    annotations_map(errors, &path.child("metadata.annotations"), template.at("metadata.annotations"));
    spec(errors, &path.child("spec"), template.at("spec"));
}

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// The rules for what a claim asks for.
pub(crate) fn spec(errors: &mut Errors, path: &Path, spec: &Value) {
    let modes = path.child("accessModes");
    if spec.items("accessModes").is_empty() {
        errors.push(FieldError::required(&modes, "at least 1 access mode is required"));
    }
    label_selector(errors, &path.child("selector"), spec.at("selector"), false);
    for mode in spec.texts("accessModes") {
        one_of(errors, &modes, mode, &MODES);
    }
    let has = |mode: &str| spec.texts("accessModes").any(|m| m == mode);
    if has("ReadWriteOncePod") && spec.texts("accessModes").any(|m| m != "ReadWriteOncePod") {
        let text = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(&modes, text));
    }
    let storage = path.child("resources").key("storage");
    match spec.at("resources.requests").get("storage") {
        None => errors.push(FieldError::required(&storage, "")),
        Some(amount) => {
            quantity(errors, &storage, "storage", amount);
            let positive = Quantity::from_json(amount).is_ok_and(|q| q.sign() > 0);
            if !positive {
                let shown = Quantity::from_json(amount).unwrap_or_default().to_string();
                let path = path.child("resources").key("storage");
                errors.push(FieldError::invalid(path, shown, "must be greater than zero"));
            }
        }
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        names(errors, &path.child("storageClassName"), class, labels::dns_subdomain(class));
    }
    if let Some(mode) = spec.some_text("volumeMode") {
        one_of(errors, &path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    sources(errors, path, spec);
    let class = spec.text("volumeAttributesClassName");
    if !class.is_empty() {
        names(errors, &path.child("volumeAttributesClassName"), class, labels::dns_subdomain(class));
    }
}

impl Strategy for PersistentVolumeClaims {
    fn default(&self, object: &mut Value) {
        default_claim(object);
    }

    fn prepare_create(&self, _context: &Context<'_>, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
        agree_on_source(object_at(object, "spec"), &Value::Null);
    }

    fn prepare_update(&self, context: &Context<'_>, object: &mut Value, old: &Value) {
        keep_status(context.resource, object, old);
        agree_on_source(object_at(object, "spec"), old.at("spec"));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        spec(&mut errors, &Path::new("spec"), object.at("spec"));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate(object);
        change(&mut errors, object, old);
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        deprecations::storage_class(&mut out, object);
        deprecations::claim(&mut out, &Path::new("spec"), object.at("spec"));
        out
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let volume = object.text("spec.volumeName");
        let phase = if object.has("metadata.deletionTimestamp") {
            "Terminating"
        } else {
            object.text("status.phase")
        };
        let (modes, capacity) = match volume {
            "" => (String::new(), String::new()),
            _ => {
                let capacity = object.some_text("status.capacity.storage").unwrap_or("0");
                (cells::access_modes(object, "status.accessModes"), capacity.to_owned())
            }
        };
        vec![
            cells::name(object),
            phase.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            storage_class(object).into(),
            cells::or_unset(object.text("spec.volumeAttributesClassName")),
            cells::age(object, now),
            cells::or_unset(object.text("spec.volumeMode")),
        ]
    }
}

/// A bound claim may grow and change its attributes class; the volume it is bound to is set once.
fn change(errors: &mut Errors, claim: &Value, old: &Value) {
    let (new, before) = (claim.at("spec"), old.at("spec"));
    let mut fixed = new.clone();
    if before.text("volumeName").is_empty() {
        set(&mut fixed, "volumeName", None);
    }
    let bound = old.text("status.phase") == "Bound";
    if bound {
        if let Some(amount) = before.at("resources.requests").get("storage") {
            object_at(&mut fixed, "resources.requests")["storage"] = amount.clone();
        }
        let (now, was) = (Quantity::from_json(storage(new)), Quantity::from_json(storage(old.at("spec"))));
        let capacity = Quantity::from_json(old.at("status.capacity").at("storage"));
        if let (Ok(now), Ok(was), Ok(capacity)) = (now, was, capacity)
            && now < was
            && now <= capacity
        {
            let text = "field can not be less than status.capacity";
            errors.push(FieldError::forbidden("spec.resources.requests.storage", text));
        }
    }
    let class = before.at("volumeAttributesClassName");
    set(&mut fixed, "volumeAttributesClassName", (!class.is_null()).then(|| class.clone()));
    immutable(errors, &Path::new("volumeMode"), new.at("volumeMode"), before.at("volumeMode"));
    let (now, was) = (new.some_text("volumeAttributesClassName"), class.as_str());
    let text = match (was, now) {
        (Some(_), None) => Some("update from non-nil value to nil is forbidden"),
        (Some(was), Some("")) if !was.is_empty() => {
            Some("update from non-nil value to an empty string is forbidden")
        }
        _ => None,
    };
    if let Some(text) = text {
        errors.push(FieldError::forbidden("spec.volumeAttributesClassName", text));
    }
    if !same(&fixed, before) {
        let text = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        let [from, to] = [before, &fixed].map(|spec| internal::indented(spec, CLAIM_SPEC));
        errors.push(FieldError::forbidden("spec", format!("{text}\n{}", line_diff::unified(&from, &to))));
    }
}

fn storage(spec: &Value) -> &Value {
    spec.at("resources.requests").at("storage")
}
