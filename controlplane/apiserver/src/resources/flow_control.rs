//! FlowSchemas and PriorityLevelConfigurations.

mod level;
mod schema;

use jiff::Timestamp;
use pagurus_controlplane_api::conditions;
use serde_json::{Value, json};

use super::cells;
use super::fields::{Fields, default, default_zero, existing, object_at};
use super::plain::Plain;

/// The strategy of `flowschemas`.
pub(crate) static FLOW_SCHEMAS: Plain = Plain {
    default: |object| default_zero(object_at(object, "spec"), "matchingPrecedence", 1000),
    cells: schema_cells,
    // As requests meet them.
    row_order: Some(|schema| schema.int("spec.matchingPrecedence")),
    validate: schema::check,
    generations: true,
    status_alone: true,
    ..Plain::NEW
};

/// The strategy of `prioritylevelconfigurations`.
pub(crate) static PRIORITY_LEVELS: Plain = Plain {
    default: default_level,
    cells: level_cells,
    validate: level::check,
    generations: true,
    status_alone: true,
    ..Plain::NEW
};

fn schema_cells(schema: &Value, now: Timestamp) -> Vec<Value> {
    let dangling = conditions::status(schema, "Dangling").unwrap_or("?");
    vec![
        cells::name(schema),
        cells::or_none(schema.text("spec.priorityLevelConfiguration.name")),
        json!(schema.int("spec.matchingPrecedence")),
        cells::or_none(schema.text("spec.distinguisherMethod.type")),
        cells::age(schema, now),
        dangling.into(),
    ]
}

fn default_level(level: &mut Value) {
    if let Some(exempt) = existing(level, "spec.exempt") {
        default(exempt, "nominalConcurrencyShares", 0);
        default(exempt, "lendablePercent", 0);
    }
    if let Some(limited) = existing(level, "spec.limited") {
        default(limited, "nominalConcurrencyShares", 30);
        default(limited, "lendablePercent", 0);
        if let Some(queuing) = existing(limited, "limitResponse.queuing") {
            default_zero(queuing, "queues", 64);
            default_zero(queuing, "handSize", 8);
            default_zero(queuing, "queueLengthLimit", 50);
        }
    }
    if level.text("spec.type") == "Exempt" {
        let exempt = object_at(level, "spec.exempt");
        default(exempt, "nominalConcurrencyShares", 0);
        default(exempt, "lendablePercent", 0);
    }
}

fn level_cells(level: &Value, now: Timestamp) -> Vec<Value> {
    let number = |value: &Value| value.as_i64().map_or(Value::from(cells::NONE), |n| json!(n));
    let queuing = level.at("spec.limited.limitResponse.queuing");
    let shares = level.at("spec.limited.nominalConcurrencyShares");
    vec![
        cells::name(level),
        level.text("spec.type").into(),
        number(shares),
        number(queuing.at("queues")),
        number(queuing.at("handSize")),
        number(queuing.at("queueLengthLimit")),
        cells::age(level, now),
    ]
}
