//! Deployments.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_schema::table::Resource;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, object_at, same, set};
use crate::resources::internal::{self, DEPLOYMENT_STRATEGY};
use crate::resources::pod_spec::{defaults, warnings, workload};
use crate::resources::rules::{Errors, immutable, non_negative};
use crate::strategy::{Context, Strategy, keep_all_but};

/// The strategy of `deployments`.
pub(crate) struct Deployments;

impl Strategy for Deployments {
    fn default(&self, object: &mut Value) {
        let spec = object_at(object, "spec");
        default(spec, "replicas", 1);
        default(spec, "revisionHistoryLimit", 10);
        default(spec, "progressDeadlineSeconds", 600);
        let strategy = object_at(spec, "strategy");
        default_text(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate" {
            let rolling = object_at(strategy, "rollingUpdate");
            default(rolling, "maxUnavailable", "25%");
            default(rolling, "maxSurge", "25%");
        }
        defaults::template(object_at(spec, "template"));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (path, spec) = (Path::new("spec"), object.at("spec"));
        non_negative(&mut errors, &path.child("replicas"), spec.int("replicas"));
        let template = path.child("template");
        if let Some(selector) =
            workload::selector(&mut errors, &path, spec, "deployment", "invalid label selector")
        {
            workload::matching_labels(&mut errors, &template, spec.at("template"), &selector);
            workload::lasting_template(&mut errors, &template, spec.at("template"), "ReplicaSet");
        }
        strategy(&mut errors, &path.child("strategy"), spec.at("strategy"));
        for field in ["minReadySeconds", "revisionHistoryLimit"] {
            non_negative(&mut errors, &path.child(field), spec.int(field));
        }
        if let Some(seconds) = spec.some_int("progressDeadlineSeconds") {
            let path = path.child("progressDeadlineSeconds");
            non_negative(&mut errors, &path, seconds);
            if seconds <= spec.int("minReadySeconds") {
                errors.push(FieldError::invalid(path, seconds, "must be greater than minReadySeconds"));
            }
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

    fn prepare_subresource_update(&self, _context: &Context<'_>, sub: &str, object: &mut Value, old: &Value) {
        keep_all_but(object, old, &["metadata", sub]);
        if sub == "status" {
            let labels = old.at("metadata.labels");
            set(&mut object["metadata"], "labels", (!labels.is_null()).then(|| labels.clone()));
        }
    }

    fn reset_fields(&self, _resource: &Resource, sub: &str) -> &'static [&'static str] {
        match sub {
            "status" => &["spec", "metadata.labels"],
            "" => &["status"],
            _ => &[],
        }
    }

    fn generation_changes(&self, _resource: &Resource, object: &Value, old: &Value) -> bool {
        ["spec", "metadata.annotations"].iter().any(|part| !same(object.at(part), old.at(part)))
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = cells::containers(object, "spec.template.spec.containers");
        vec![
            cells::name(object),
            format!("{}/{}", object.int("status.readyReplicas"), object.int("spec.replicas")).into(),
            json!(object.int("status.updatedReplicas")),
            json!(object.int("status.availableReplicas")),
            cells::age(object, now),
            names,
            images,
            cells::selector(object, "spec.selector"),
        ]
    }
}

fn strategy(errors: &mut Errors, path: &Path, strategy: &Value) {
    let rolling = strategy.at("rollingUpdate");
    let path_of = path.child("rollingUpdate");
    match strategy.text("type") {
        "Recreate" => {
            if !rolling.is_null() {
                let text = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden(path_of, text));
            }
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            workload::number_or_percent(errors, &path_of.child("maxUnavailable"), unavailable);
            workload::number_or_percent(errors, &path_of.child("maxSurge"), surge);
            if workload::amount(unavailable) == 0 && workload::amount(surge) == 0 {
                let text = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(path_of.child("maxUnavailable"), unavailable.clone(), text));
            }
            workload::at_most_all(errors, &path_of.child("maxUnavailable"), unavailable);
        }
        _ => {
            let shown = internal::shown(strategy, DEPLOYMENT_STRATEGY);
            errors.push(FieldError::not_supported(path, shown, &["Recreate", "RollingUpdate"]));
        }
    }
}

fn status(errors: &mut Errors, status: &Value) {
    let path = Path::new("status");
    let counts = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
    ];
    for field in counts {
        non_negative(errors, &path.child(field), status.int(field));
    }
    for (part, whole) in [
        ("updatedReplicas", "replicas"),
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
