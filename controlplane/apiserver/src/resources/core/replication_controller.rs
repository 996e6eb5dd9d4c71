//! ReplicationControllers.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::selectors::LabelSelector;
use serde_json::{Value, json};

use crate::registry::{FieldName, named};
use crate::resources::apps::replica_set;
use crate::resources::cells;
use crate::resources::fields::{Fields, default, existing, object_at};
use crate::resources::pod_spec::{defaults, warnings, workload};
use crate::resources::rules::{Errors, non_negative};
use crate::strategy::{Context, Strategy};

/// The strategy of `replicationcontrollers`.
pub(crate) struct ReplicationControllers;

impl Strategy for ReplicationControllers {
    fn default(&self, object: &mut Value) {
        default(object_at(object, "spec"), "replicas", 1);
        let labels = object.at("spec.template.metadata.labels").clone();
        if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
            if object.entries("spec.selector").next().is_none() {
                object_at(object, "spec")["selector"] = labels.clone();
            }
            if object.entries("metadata.labels").next().is_none() {
                object_at(object, "metadata")["labels"] = labels;
            }
        }
        if let Some(template) = existing(object, "spec.template") {
            defaults::template(template);
        }
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
        let selector = spec.at("selector").as_object().filter(|s| !s.is_empty());
        if selector.is_none() {
            errors.push(FieldError::required(path.child("selector"), ""));
        }
        let template = path.child("template");
        if spec.has("template") {
            let selector = selector.map(LabelSelector::from_map).unwrap_or_default();
            workload::matching_labels(&mut errors, &template, spec.at("template"), &selector);
            workload::lasting_template(&mut errors, &template, spec.at("template"), "ReplicationController");
        } else {
            errors.push(FieldError::required(template, ""));
        }
        errors
    }

    fn validate_subresource_update(&self, sub: &str, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if sub == "status" {
            replica_set::status(&mut errors, object.at("status"));
        }
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::workload(object, old, "spec.template")
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &[FieldName] {
        const { &[named("status.replicas")] }
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        Some(object.int(name).to_string())
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
            cells::label_map(object, "spec.selector").into(),
        ]
    }
}
