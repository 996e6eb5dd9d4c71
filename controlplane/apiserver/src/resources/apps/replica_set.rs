//! ReplicaSets.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::{Fields, default, object_at};
use crate::resources::pod_spec::{defaults, warnings, workload};
use crate::resources::rules::{Errors, immutable, non_negative};
use crate::strategy::{Context, Strategy};

/// The strategy of `replicasets`.
pub(crate) struct ReplicaSets;

impl Strategy for ReplicaSets {
    fn default(&self, object: &mut Value) {
        let spec = object_at(object, "spec");
        default(spec, "replicas", 1);
        defaults::template(object_at(spec, "template"));
    }

    fn prepare_create(&self, _context: &Context<'_>, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (path, spec) = (Path::new("spec"), object.at("spec"));
        for field in ["replicas", "minReadySeconds"] {
            non_negative(&mut errors, &path.child(field), spec.int(field));
        }
        let template = path.child("template");
        if let Some(selector) =
            workload::selector(&mut errors, &path, spec, "deployment", "invalid label selector")
        {
            workload::matching_labels(&mut errors, &template, spec.at("template"), &selector);
            workload::lasting_template(&mut errors, &template, spec.at("template"), "ReplicaSet");
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate(object);
        immutable(
            &mut errors,
            &Path::new("spec.selector"),
            object.at("spec.selector"),
            old.at("spec.selector"),
        );
        errors
    }

    fn validate_subresource_update(&self, sub: &str, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if sub == "status" {
            status(&mut errors, object.at("status"));
        }
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::workload(object, old, "spec.template")
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = cells::containers(object, "spec.template.spec.containers");
        vec![
            cells::name(object),
            json!(object.int("spec.replicas")),
            json!(object.int("status.replicas")),
            json!(object.int("status.readyReplicas")),
            cells::age(object, now),
            names,
            images,
            cells::selector(object, "spec.selector"),
        ]
    }
}

/// The status of a ReplicaSet or ReplicationController.
pub(crate) fn status(errors: &mut Errors, status: &Value) {
    let path = Path::new("status");
    for field in
        ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"]
    {
        non_negative(errors, &path.child(field), status.int(field));
    }
    for (part, whole) in [
        ("fullyLabeledReplicas", "replicas"),
        ("readyReplicas", "replicas"),
        ("availableReplicas", "replicas"),
        ("availableReplicas", "readyReplicas"),
    ] {
        if status.int(part) > status.int(whole) {
            let noun = if whole == "replicas" { "status.replicas" } else { whole };
            let text = format!("cannot be greater than {noun}");
            errors.push(FieldError::invalid(path.child(part), status.int(part), text));
        }
    }
}
