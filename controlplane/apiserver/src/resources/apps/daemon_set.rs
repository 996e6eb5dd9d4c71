//! DaemonSets.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::selectors::LabelSelector;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, object_at, same};
use crate::resources::internal::{self, DEPLOYMENT_STRATEGY};
use crate::resources::pod_spec::{defaults, warnings, workload};
use crate::resources::rules::{Errors, immutable, label_selector, non_negative, shown};
use crate::strategy::{Context, Strategy, drop_status, keep_status};

/// How often the template changed, kept as an annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &Value) -> i64 {
    labels::annotation(object, TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn set_template_generation(object: &mut Value, generation: i64) {
    if generation > 0 {
        object_at(object, "metadata.annotations")[TEMPLATE_GENERATION] = generation.to_string().into();
    }
}

/// The strategy of `daemonsets`.
pub(crate) struct DaemonSets;

impl Strategy for DaemonSets {
    fn default(&self, object: &mut Value) {
        let spec = object_at(object, "spec");
        default(spec, "revisionHistoryLimit", 10);
        let strategy = object_at(spec, "updateStrategy");
        default_text(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate" {
            let rolling = object_at(strategy, "rollingUpdate");
            default(rolling, "maxUnavailable", 1);
            default(rolling, "maxSurge", 0);
        }
        defaults::template(object_at(spec, "template"));
        default(object_at(object, "metadata.annotations"), TEMPLATE_GENERATION, "0");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (path, spec) = (Path::new("spec"), object.at("spec"));
        let selector = spec.at("selector");
        label_selector(&mut errors, &path.child("selector"), selector, false);
        let template = path.child("template");
        if let Ok(selector) = LabelSelector::from_json(selector)
            && !selector.matches_object(spec.at("template"))
        {
            let any = LabelSelector::nothing();
            workload::matching_labels(&mut errors, &template, spec.at("template"), &any);
        }
        let empty =
            selector.entries("matchLabels").next().is_none() && selector.items("matchExpressions").is_empty();
        if !selector.is_null() && empty {
            let text = "empty selector is invalid for daemonset";
            errors.push(FieldError::invalid(path.child("selector"), shown(selector), text));
        }
        workload::lasting_template(&mut errors, &template, spec.at("template"), "DaemonSet");
        non_negative(&mut errors, &path.child("minReadySeconds"), spec.int("minReadySeconds"));
        strategy(&mut errors, &path.child("updateStrategy"), spec.at("updateStrategy"));
        non_negative(&mut errors, &path.child("revisionHistoryLimit"), spec.int("revisionHistoryLimit"));
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
            for (field, count) in object.entries("status").filter_map(|(f, v)| Some((f, v.as_i64()?))) {
                non_negative(&mut errors, &Path::new("status").child(field), count);
            }
        }
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::changed_template(object, old, "spec.template")
    }

    fn prepare_create(&self, context: &Context<'_>, object: &mut Value) {
        drop_status(context.resource, object);
        let given = template_generation(object);
        set_template_generation(object, given.max(1));
    }

    fn prepare_update(&self, context: &Context<'_>, object: &mut Value, old: &Value) {
        keep_status(context.resource, object, old);
        let changed = !same(object.at("spec.template"), old.at("spec.template"));
        set_template_generation(object, template_generation(old) + i64::from(changed));
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn field_annotations(&self) -> &'static [&'static str] {
        &[TEMPLATE_GENERATION]
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = cells::containers(object, "spec.template.spec.containers");
        let number = |name: &str| json!(object.at("status").int(name));
        vec![
            cells::name(object),
            number("desiredNumberScheduled"),
            number("currentNumberScheduled"),
            number("numberReady"),
            number("updatedNumberScheduled"),
            number("numberAvailable"),
            cells::label_map(object, "spec.template.spec.nodeSelector").into(),
            cells::age(object, now),
            names,
            images,
            cells::selector(object, "spec.selector"),
        ]
    }
}

fn strategy(errors: &mut Errors, path: &Path, strategy: &Value) {
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let (path, rolling) = (path.child("rollingUpdate"), strategy.at("rollingUpdate"));
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            workload::number_or_percent(errors, &path.child("maxUnavailable"), unavailable);
            workload::number_or_percent(errors, &path.child("maxSurge"), surge);
            match (workload::amount(unavailable) != 0, workload::amount(surge) != 0) {
                (true, true) => {
                    let text = "may not be set when maxUnavailable is non-zero";
                    errors.push(FieldError::invalid(path.child("maxSurge"), surge.clone(), text));
                }
                (false, false) => {
                    let text = "cannot be 0 when maxSurge is 0";
                    errors.push(FieldError::required(path.child("maxUnavailable"), text));
                }
                _ => {}
            }
            workload::at_most_all(errors, &path.child("maxUnavailable"), unavailable);
            workload::at_most_all(errors, &path.child("maxSurge"), surge);
        }
        _ => {
            let shown = internal::shown(strategy, DEPLOYMENT_STRATEGY);
            errors.push(FieldError::not_supported(path, shown, &["RollingUpdate", "OnDelete"]));
        }
    }
}
