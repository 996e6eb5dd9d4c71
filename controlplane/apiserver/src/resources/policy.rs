//! PodDisruptionBudgets.

use serde_json::{Value, json};

use super::cells;
use super::fields::Fields;
use super::plain::Plain;

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
