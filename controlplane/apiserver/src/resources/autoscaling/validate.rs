//! The rules for HorizontalPodAutoscalers.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::quantity::Quantity;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, names, non_negative, one_of, optional_one_of};

const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const LONGEST_WINDOW: i64 = 3600;
const LONGEST_PERIOD: i64 = 1800;

/// What is wrong with an autoscaler.
pub(super) fn autoscaler(autoscaler: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = autoscaler.at("spec");
    let (min, max) = (spec.some_int("minReplicas"), spec.int("maxReplicas"));
    if let Some(min) = min {
        // Zero is for autoscalers that look at something else than the pods.
        non_negative(&mut errors, &path.child("minReplicas"), min);
    }
    let max_path = path.child("maxReplicas");
    match max {
        0 => errors.push(FieldError::required(&max_path, "")),
        1.. => {}
        _ => errors.push(FieldError::invalid(&max_path, max, "must be greater than or equal to 1")),
    }
    if min.is_some_and(|min| max < min) {
        errors.push(FieldError::invalid(&max_path, max, "must be greater than or equal to `minReplicas`"));
    }
    target(&mut errors, &path.child("scaleTargetRef"), spec.at("scaleTargetRef"), false);
    let metrics = spec.items("metrics");
    for (i, metric) in metrics.iter().enumerate() {
        self::metric(&mut errors, &path.child("metrics").index(i), metric);
    }
    let outside = metrics.iter().any(|m| matches!(m.text("type"), "Object" | "External"));
    if min == Some(0) && !outside {
        let text = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden(path.child("metrics"), text));
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = spec.at("behavior").at(direction);
        if !rules.is_null() {
            self::rules(&mut errors, &path.child("behavior").child(direction), rules);
        }
    }
    errors
}

/// Another object. Only what has a scale must be of a named group.
fn target(errors: &mut Errors, path: &Path, target: &Value, any_group: bool) {
    for field in ["kind", "name"] {
        let text = target.text(field);
        if text.is_empty() {
            errors.push(FieldError::required(path.child(field), ""));
        } else {
            names(errors, &path.child(field), text, labels::path_segment_name(text, false));
        }
    }
    let version = target.text("apiVersion");
    let group = version.split_once('/').map(|(group, _)| group).unwrap_or_default();
    if version.matches('/').count() > 1 {
        let text = format!("unexpected GroupVersion string: {version}");
        errors.push(FieldError::invalid(path.child("apiVersion"), version, text));
    } else if !any_group
        && group.is_empty()
        && !(version == "v1" && target.text("kind") == "ReplicationController")
    {
        let text = "apiVersion must specify API group";
        errors.push(FieldError::invalid(path.child("apiVersion"), version, text));
    }
}

fn metric(errors: &mut Errors, path: &Path, metric: &Value) {
    let kind = metric.text("type");
    let known = SOURCES.map(|(kind, _)| kind);
    if kind.is_empty() {
        errors.push(FieldError::required(path.child("type"), "must specify a metric source type"));
    }
    one_of(errors, &path.child("type"), kind, &known);
    // Only the first of several sources is looked at, in this order.
    let there = |field: &str| metric.has(field);
    if let Some(field) =
        ["object", "external", "pods", "resource", "containerResource"].into_iter().find(|f| there(f))
    {
        source(errors, &path.child(field), field, metric.at(field));
    }
    let many = SOURCES.iter().filter(|(_, field)| there(field)).count() > 1;
    for (other, field) in SOURCES {
        if other == kind && !there(field) {
            let text = "must populate information for the given metric source";
            errors.push(FieldError::required(path.child(field), text));
        }
        if other != kind && there(field) && many {
            let text = "must populate the given metric source only";
            errors.push(FieldError::forbidden(path.child(field), text));
        }
    }
}

fn source(errors: &mut Errors, path: &Path, field: &str, source: &Value) {
    let target = source.at("target");
    let target_path = path.child("target");
    match field {
        "resource" | "containerResource" => {
            if field == "containerResource" && source.text("container").is_empty() {
                errors.push(FieldError::required(path.child("container"), "must specify a container name"));
            }
            if source.text("name").is_empty() {
                errors.push(FieldError::required(path.child("name"), "must specify a resource name"));
            }
            metric_target(errors, &target_path, target);
            let (average, utilization) = (target.has("averageValue"), target.has("averageUtilization"));
            if !average && !utilization {
                let text = "must set either a target raw value or a target utilization";
                errors.push(FieldError::required(target_path.child("averageUtilization"), text));
            }
            if average && utilization {
                let text = "may not set both a target raw value and a target utilization";
                errors.push(FieldError::forbidden(target_path.child("averageValue"), text));
            }
            return;
        }
        "object" => self::target(errors, &path.child("describedObject"), source.at("describedObject"), true),
        _ => {}
    }
    let metric = path.child("metric");
    let name = source.text("metric.name");
    if name.is_empty() {
        errors.push(FieldError::required(metric.child("name"), "must specify a metric name"));
    } else {
        names(errors, &metric.child("name"), name, labels::path_segment_name(name, false));
    }
    metric_target(errors, &target_path, target);
    match field {
        "pods" => {
            if !is_positive(target.at("averageValue")) {
                let text = "must specify a positive target averageValue";
                errors.push(FieldError::required(target_path.child("averageValue"), text));
            }
        }
        _ => {
            if !target.has("value") && !target.has("averageValue") {
                let text = match field {
                    "external" => "must set either a target value for metric or a per-pod target",
                    _ => "must set either a target value or averageValue",
                };
                errors.push(FieldError::required(target_path.child("averageValue"), text));
            }
            if field == "external" && target.has("value") && target.has("averageValue") {
                let text = "may not set both a target value for metric and a per-pod target";
                errors.push(FieldError::forbidden(target_path.child("value"), text));
            }
        }
    }
}

fn is_positive(value: &Value) -> bool {
    !value.is_null() && Quantity::from_json(value).is_ok_and(|q| q.sign() > 0)
}

fn metric_target(errors: &mut Errors, path: &Path, target: &Value) {
    let kind = target.text("type");
    if kind.is_empty() {
        errors.push(FieldError::required(path.child("type"), "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let text = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(path.child("type"), kind, text));
    }
    for field in ["value", "averageValue"] {
        let value = target.at(field);
        if !value.is_null() && !is_positive(value) {
            let path = path.child(field);
            errors.push(FieldError::invalid(path, value.clone(), "must be positive"));
        }
    }
    if let Some(percent) = target.some_int("averageUtilization").filter(|p| *p < 1) {
        let path = path.child("averageUtilization");
        errors.push(FieldError::invalid(path, percent, "must be greater than 0"));
    }
}

fn rules(errors: &mut Errors, path: &Path, rules: &Value) {
    if let Some(window) = rules.some_int("stabilizationWindowSeconds") {
        let path = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.push(FieldError::invalid(&path, window, "must be greater than or equal to zero"));
        }
        if window > LONGEST_WINDOW {
            let text = format!("must be less than or equal to {LONGEST_WINDOW}");
            errors.push(FieldError::invalid(&path, window, text));
        }
    }
    if Quantity::from_json(rules.at("tolerance")).is_ok_and(|q| q.sign() < 0) {
        let path = path.child("tolerance");
        errors.push(FieldError::invalid(
            path,
            rules.at("tolerance").clone(),
            "must be greater than or equal to 0",
        ));
    }
    let choice = rules.some_text("selectPolicy");
    optional_one_of(errors, &path.child("selectPolicy"), choice, &["Disabled", "Max", "Min"]);
    let policies = path.child("policies");
    if rules.items("policies").is_empty() {
        errors.push(FieldError::required(&policies, "must specify at least one Policy"));
    }
    for (i, policy) in rules.items("policies").iter().enumerate() {
        let path = policies.index(i);
        one_of(errors, &path.child("type"), policy.text("type"), &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            let number = policy.int(field);
            let path = path.child(field);
            if number <= 0 {
                errors.push(FieldError::invalid(&path, number, "must be greater than zero"));
            }
            if field == "periodSeconds" && number > LONGEST_PERIOD {
                let text = format!("must be less than or equal to {LONGEST_PERIOD}");
                errors.push(FieldError::invalid(&path, number, text));
            }
        }
    }
}
