//! HorizontalPodAutoscalers (stored as v2; v1 is converted).

mod validate;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells;
use super::fields::{Fields, default, existing, object_at};
use super::plain::Plain;

/// How many metrics the row shows.
const SHOWN: usize = 2;

/// The strategy of `horizontalpodautoscalers`.
pub(crate) static HORIZONTAL_POD_AUTOSCALERS: Plain = Plain {
    default: default_autoscaler,
    cells: autoscaler_cells,
    validate: validate::autoscaler,
    generations: true,
    ..Plain::NEW
};

fn default_autoscaler(autoscaler: &mut Value) {
    let v1 = autoscaler.text("apiVersion") == "autoscaling/v1";
    let spec = object_at(autoscaler, "spec");
    default(spec, "minReplicas", 1);
    if v1 {
        return;
    }
    if spec.items("metrics").is_empty() {
        spec["metrics"] = json!([{"type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    }
    if let Some(behavior) = existing(spec, "behavior") {
        default_rules(
            behavior,
            "scaleUp",
            &json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]),
        );
        default_rules(
            behavior,
            "scaleDown",
            &json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
        );
        default(object_at(behavior, "scaleUp"), "stabilizationWindowSeconds", 0);
    }
}

fn default_rules(behavior: &mut Value, direction: &str, policies: &Value) {
    let rules = object_at(behavior, direction);
    default(rules, "selectPolicy", "Max");
    default(rules, "policies", policies.clone());
}

fn autoscaler_cells(autoscaler: &Value, now: Timestamp) -> Vec<Value> {
    let target = autoscaler.at("spec.scaleTargetRef");
    let min = autoscaler.some_int("spec.minReplicas").map_or("<unset>".to_owned(), |n| n.to_string());
    vec![
        cells::name(autoscaler),
        format!("{}/{}", target.text("kind"), target.text("name")).into(),
        metrics(autoscaler).into(),
        min.into(),
        json!(autoscaler.int("spec.maxReplicas")),
        json!(autoscaler.int("status.currentReplicas")),
        cells::age(autoscaler, now),
    ]
}

fn metrics(autoscaler: &Value) -> String {
    let specs = autoscaler.items("spec.metrics");
    if specs.is_empty() {
        return cells::NONE.to_owned();
    }
    let current = autoscaler.items("status.currentMetrics");
    let all: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| metric(spec, current.get(i).unwrap_or(&Value::Null)))
        .collect();
    let shown = all[..all.len().min(SHOWN)].join(", ");
    if all.len() > SHOWN { format!("{shown} + {} more...", all.len() - SHOWN) } else { shown }
}

fn metric(spec: &Value, status: &Value) -> String {
    let (field, per_resource) = match spec.text("type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let target = spec.at(field).at("target");
    let current = |name: &str| {
        let value = status.at(field).at("current").at(name);
        value.as_str().map_or("<unknown>".to_owned(), str::to_owned)
    };
    if per_resource {
        let name = spec.at(field).text("name");
        if target.has("averageValue") {
            return format!("{name}: {}/{}", current("averageValue"), target.text("averageValue"));
        }
        let percent = |value: Option<i64>, none: &str| value.map_or(none.to_owned(), |n| format!("{n}%"));
        let have = status.at(field).at("current").some_int("averageUtilization");
        let want = target.some_int("averageUtilization");
        return format!("{name}: {}/{}", percent(have, "<unknown>"), percent(want, "<auto>"));
    }
    match (field, target.has("averageValue")) {
        ("pods", _) => format!("{}/{}", current("averageValue"), target.text("averageValue")),
        (_, true) => format!("{}/{} (avg)", current("averageValue"), target.text("averageValue")),
        (_, false) => format!("{}/{}", current("value"), target.text("value")),
    }
}
