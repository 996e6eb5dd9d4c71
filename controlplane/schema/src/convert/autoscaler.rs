//! Horizontal pod autoscalers: v1 knows one CPU target and carries everything else of v2 in annotations.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// `None` if the value is no object.
pub(super) fn to_v2(object: &mut Value) -> Option<()> {
    object.as_object()?;
    let mut carried = |key: &str| -> Option<Value> {
        let text = object["metadata"]["annotations"].as_object_mut()?.remove(key)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let list = |value: Option<Value>| if let Some(Value::Array(items)) = value { items } else { Vec::new() };
    let mut metrics: Vec<Value> = list(carried(METRICS)).iter().map(metric_to_v2).collect();
    let mut current: Vec<Value> = list(carried(CURRENT_METRICS)).iter().map(status_to_v2).collect();
    let (conditions, behavior) = (carried(CONDITIONS), carried(BEHAVIOR));
    drop_empty_annotations(object);

    let spec = section(object, "spec");
    if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    put_list(spec, "metrics", metrics);
    if let Some(behavior) = behavior {
        spec.insert("behavior".to_owned(), behavior);
    }
    let status = section(object, "status");
    if let Some(percent) = status.remove("currentCPUUtilizationPercentage")
        && current.is_empty()
    {
        current.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}));
    }
    put_list(status, "currentMetrics", current);
    put_list(status, "conditions", list(conditions));
    Some(())
}

/// `None` if the value is no object.
pub(super) fn to_v1(object: &mut Value) -> Option<()> {
    object.as_object()?;
    let take_list = |from: &mut Map<String, Value>, key: &str| match from.remove(key) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let spec = section(object, "spec");
    let (cpu, others): (Vec<Value>, Vec<Value>) =
        take_list(spec, "metrics").into_iter().partition(|m| cpu_percent(m, "target").is_some());
    if let Some(percent) = cpu.last().and_then(|m| cpu_percent(m, "target")) {
        spec.insert("targetCPUUtilizationPercentage".to_owned(), percent.clone());
    }
    let behavior = spec.remove("behavior").filter(|b| !b.is_null());
    let status = section(object, "status");
    let current = take_list(status, "currentMetrics");
    if let Some(percent) = current.iter().rev().find_map(|m| cpu_percent(m, "current")) {
        status.insert("currentCPUUtilizationPercentage".to_owned(), percent.clone());
    }
    let conditions = take_list(status, "conditions");

    let mut carry = |key: &str, value: Value| {
        section(section_value(object, "metadata"), "annotations")
            .insert(key.to_owned(), Value::String(value.to_string()));
    };
    if !others.is_empty() {
        carry(METRICS, others.iter().map(metric_to_v1).collect());
    }
    if !current.is_empty() {
        carry(CURRENT_METRICS, current.iter().map(status_to_v1).collect());
    }
    if !conditions.is_empty() {
        carry(CONDITIONS, Value::Array(conditions));
    }
    if let Some(behavior) = behavior {
        carry(BEHAVIOR, behavior);
    }
    Some(())
}

fn section_value<'a>(object: &'a mut Value, key: &str) -> &'a mut Value {
    let inner = &mut object[key];
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    inner
}

fn section<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    section_value(object, key).as_object_mut().expect("the line above made it an object")
}

fn drop_empty_annotations(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut()
        && metadata.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty)
    {
        metadata.remove("annotations");
    }
}

fn put_list(into: &mut Map<String, Value>, key: &str, items: Vec<Value>) {
    if !items.is_empty() {
        into.insert(key.to_owned(), Value::Array(items));
    }
}

/// The CPU percentage that v1 has a field for.
fn cpu_percent<'a>(metric: &'a Value, side: &str) -> Option<&'a Value> {
    let resource = &metric["resource"];
    let is_cpu = metric["type"] == "Resource" && resource["name"] == "cpu";
    Some(&resource[side]["averageUtilization"]).filter(|percent| is_cpu && !percent.is_null())
}

/// One row per source: v1's flat names and where v2 keeps the same.
type Paths = &'static [(&'static str, &'static [&'static str])];

const SOURCES: &[(&str, Paths)] = &[
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("averageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
];

const STATUSES: &[(&str, Paths)] = &[
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("averageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
];

fn metric_to_v2(metric: &Value) -> Value {
    let mut out = deepened(metric, SOURCES);
    for (source, _) in SOURCES {
        if let Some(target) =
            out.get_mut(*source).and_then(|s| s.get_mut("target")).and_then(Value::as_object_mut)
        {
            let kind = if target.contains_key("averageUtilization") {
                "Utilization"
            } else if target.contains_key("averageValue") {
                "AverageValue"
            } else {
                "Value"
            };
            target.insert("type".to_owned(), json!(kind));
        }
    }
    out
}

fn status_to_v2(status: &Value) -> Value {
    deepened(status, STATUSES)
}

fn metric_to_v1(metric: &Value) -> Value {
    flattened(metric, SOURCES)
}

fn status_to_v1(status: &Value) -> Value {
    flattened(status, STATUSES)
}

fn deepened(metric: &Value, rows: &[(&str, Paths)]) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, paths) in rows {
        let Some(flat) = metric.get(source).filter(|s| s.is_object()) else { continue };
        for (name, path) in *paths {
            if let Some(value) = flat.get(name).filter(|v| !v.is_null()) {
                let place = path.iter().fold(&mut out[*source], |at, step| &mut at[*step]);
                *place = value.clone();
            }
        }
    }
    out
}

fn flattened(metric: &Value, rows: &[(&str, Paths)]) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, paths) in rows {
        let Some(deep) = metric.get(source).filter(|s| s.is_object()) else { continue };
        for (name, path) in *paths {
            let value = path.iter().fold(deep, |at, step| &at[*step]);
            if !value.is_null() {
                out[*source][*name] = value.clone();
            }
        }
    }
    out
}
