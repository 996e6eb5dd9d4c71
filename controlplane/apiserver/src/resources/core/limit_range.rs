//! LimitRanges.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::quantity::Quantity;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::{Fields, default, items_mut, object_at};
use crate::resources::pod_spec::{container_resource_name, resource_name};
use crate::resources::rules::{Errors, names};
use crate::strategy::Strategy;

/// The strategy of `limitranges`.
pub(crate) struct LimitRanges;

impl Strategy for LimitRanges {
    fn default(&self, object: &mut Value) {
        for item in items_mut(object, "spec.limits").filter(|item| item.text("type") == "Container") {
            for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
                for (name, quantity) in item.at(from).as_object().cloned().into_iter().flatten() {
                    default(object_at(item, to), &name, quantity);
                }
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let mut taken = std::collections::HashSet::new();
        for (i, item) in object.items("spec.limits").iter().enumerate() {
            let path = Path::new("spec.limits").index(i);
            let kind = item.text("type");
            let of = path.child("type");
            let complaints = labels::qualified_name(kind);
            if complaints.is_empty() && !kind.contains('/') && !TYPES.contains(&kind) {
                let text = "must be a standard limit type or fully qualified";
                errors.push(FieldError::invalid(&of, kind, text));
            }
            names(&mut errors, &of, kind, complaints);
            if !taken.insert(kind) {
                errors.push(FieldError::duplicate(&of, kind));
            }
            limits(&mut errors, &path, item);
        }
        errors
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![cells::name(object), cells::created_at(object)]
    }
}

/// What limits may be about.
const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

fn limits(errors: &mut Errors, path: &Path, item: &Value) {
    let kind = item.text("type");
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let path = path.child(field);
        if kind == "Pod" && field.starts_with("default") {
            if item.entries(field).next().is_some() {
                errors.push(FieldError::forbidden(&path, "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (name, _) in item.entries(field) {
            match kind {
                "Container" | "Pod" => container_resource_name(errors, &path.key(name), name),
                _ => resource_name(errors, &path.key(name), name),
            }
        }
    }
    if kind == "PersistentVolumeClaim"
        && item.at("min").get("storage").is_none()
        && item.at("max").get("storage").is_none()
    {
        let text = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(path, text));
    }
    relations(errors, path, item);
}

/// The smallest is not larger than the default, the default not larger than the largest.
fn relations(errors: &mut Errors, path: &Path, item: &Value) {
    let amount = |field: &str, name: &str| item.at(field).get(name).and_then(|q| Quantity::from_json(q).ok());
    let names: std::collections::BTreeSet<&str> =
        ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"]
            .iter()
            .flat_map(|field| item.entries(field).map(|(name, _)| name))
            .collect();
    for name in names {
        let pairs = [
            ("min", "min", "max", "min value"),
            ("min", "defaultRequest", "defaultRequest", ""),
            ("defaultRequest", "defaultRequest", "max", "default request value"),
            ("defaultRequest", "defaultRequest", "default", "default request value"),
            ("default", "default", "max", "default value"),
            ("min", "default", "default", "min value"),
        ];
        for (small, at, large, noun) in pairs {
            let (Some(a), Some(b)) = (amount(small, name), amount(large, name)) else { continue };
            if a <= b {
                continue;
            }
            let text = if noun.is_empty() {
                format!("min value {a} is greater than default request value {b}")
            } else {
                let other = match large {
                    "max" => "max value",
                    "default" if small == "defaultRequest" => "default limit value",
                    _ => "default value",
                };
                format!("{noun} {a} is greater than {other} {b}")
            };
            let value = if at == small { a } else { b };
            errors.push(FieldError::invalid(path.child(at).key(name), value.to_string(), text));
        }
        if let Some(ratio) = amount("maxLimitRequestRatio", name)
            && ratio < Quantity::from_value(1, pagurus_controlplane_api::quantity::Format::DecimalSi)
        {
            let text = format!("ratio {ratio} is less than 1");
            errors.push(FieldError::invalid(
                path.child("maxLimitRequestRatio").key(name),
                ratio.to_string(),
                text,
            ));
        }
    }
}
