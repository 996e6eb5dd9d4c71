//! Namespaces: made Active with the finalizer that holds them until they are empty.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::{Value, json};

use crate::registry::{FieldName, named};
use crate::resources::cells;
use crate::resources::fields::{Fields, object_at, set};
use crate::strategy::{Context, Strategy, keep, keep_all_but};
use crate::verbs::unqualified_finalizer;

/// The finalizer that the namespace controller takes off.
const FINALIZER: &str = "kubernetes";
/// The label that carries the name, so that selectors can select by it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn finalizer_errors(path: &Path, finalizer: &str) -> Vec<FieldError> {
    let complaints = labels::qualified_name(finalizer).into_iter();
    let errors = complaints.map(|complaint| FieldError::invalid(path, finalizer, complaint));
    errors.chain(unqualified_finalizer(path, finalizer)).collect()
}

fn phase_error(phase: &str, detail: &str) -> FieldError {
    FieldError::invalid("status.Phase", phase, detail)
}

/// The strategy of `namespaces`.
pub(crate) struct Namespaces;

impl Strategy for Namespaces {
    fn default(&self, object: &mut Value) {
        let name = object.text("metadata.name").to_owned();
        if !name.is_empty() {
            object_at(object, "metadata.labels")[NAME_LABEL] = name.into();
        }
    }

    fn prepare_create(&self, _context: &Context<'_>, object: &mut Value) {
        object["status"] = json!({"phase": "Active"});
        let spec = object_at(object, "spec");
        if !spec.texts("finalizers").any(|f| f == FINALIZER) {
            match spec.get_mut("finalizers").and_then(Value::as_array_mut) {
                Some(list) => list.push(FINALIZER.into()),
                None => spec["finalizers"] = json!([FINALIZER]),
            }
        }
    }

    fn prepare_update(&self, _context: &Context<'_>, object: &mut Value, old: &Value) {
        keep(object, old, "spec");
        keep(object, old, "status");
    }

    fn prepare_subresource_update(&self, _context: &Context<'_>, sub: &str, object: &mut Value, old: &Value) {
        match sub {
            "finalize" => keep(object, old, "status"),
            "status" => keep(object, old, "spec"),
            _ => keep_all_but(object, old, &["metadata"]),
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let path = Path::new("spec").child("finalizers");
        object.texts("spec.finalizers").flat_map(|finalizer| finalizer_errors(&path, finalizer)).collect()
    }

    fn validate_update(&self, _object: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_subresource_update(&self, sub: &str, object: &Value, _old: &Value) -> Vec<FieldError> {
        let (phase, deleted) = (object.text("status.phase"), object.has("metadata.deletionTimestamp"));
        match sub {
            "finalize" => {
                let path = Path::new("spec").child("finalizers");
                let finalizers = object.texts("spec.finalizers").enumerate();
                finalizers.flat_map(|(at, finalizer)| finalizer_errors(&path.index(at), finalizer)).collect()
            }
            "status" if !deleted && phase != "Active" => {
                vec![phase_error(phase, "may only be 'Active' if `deletionTimestamp` is empty")]
            }
            "status" if deleted && phase != "Terminating" => {
                vec![phase_error(phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")]
            }
            _ => Vec::new(),
        }
    }

    fn holds_deletion(&self, object: &Value) -> bool {
        !object.items("spec.finalizers").is_empty()
    }

    fn mark_deleted(&self, object: &mut Value) {
        object_at(object, "status")["phase"] = "Terminating".into();
        set(object_at(object, "metadata"), "deletionGracePeriodSeconds", None);
        // Namespaces have no grace period, not even one of zero seconds.
        if let Some(metadata) = object_at(object, "metadata").as_object_mut() {
            metadata.remove("deletionGracePeriodSeconds");
        }
    }

    fn name_errors(&self, name: &str, prefix: bool) -> Vec<String> {
        let name = if prefix { labels::mask_trailing_dash(name) } else { name.to_owned() };
        labels::dns_label(&name)
    }

    fn selectable_fields(&self) -> &[FieldName] {
        const { &[named("status.phase")] }
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        (name == "status.phase").then(|| object.text(name).to_owned())
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![cells::name(object), object.text("status.phase").into(), cells::age(object, now)]
    }
}
