//! PodDisruptionBudgets.

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::{Value, json};

use super::cells;
use super::fields::Fields;
use super::plain::Plain;
use super::pod_spec::workload;
use super::rules::{Errors, label_selector, optional_one_of, shown};

/// The strategy of `poddisruptionbudgets`.
pub(crate) static POD_DISRUPTION_BUDGETS: Plain = Plain {
    cells: |object, now| {
        vec![
            cells::name(object),
            number_or_percent(object.at("spec.minAvailable")),
            number_or_percent(object.at("spec.maxUnavailable")),
            json!(object.int("status.disruptionsAllowed")),
            cells::age(object, now),
        ]
    },
    validate: validate_budget,
    generations: true,
    unconditional_update: false,
    ..Plain::NEW
};

fn number_or_percent(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.to_string().into(),
        Value::String(text) => text.as_str().into(),
        _ => "N/A".into(),
    }
}

fn validate_budget(budget: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = budget.at("spec");
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        let text = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(&path, shown(spec), text));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        if spec.has(field) {
            workload::number_or_percent(&mut errors, &path.child(field), spec.at(field));
            workload::at_most_all(&mut errors, &path.child(field), spec.at(field));
        }
    }
    label_selector(&mut errors, &path.child("selector"), spec.at("selector"), false);
    let policy = spec.some_text("unhealthyPodEvictionPolicy");
    let known = ["AlwaysAllow", "IfHealthyBudget"];
    optional_one_of(&mut errors, &path.child("unhealthyPodEvictionPolicy"), policy, &known);
    errors
}
