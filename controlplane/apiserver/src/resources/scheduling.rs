//! PriorityClasses.

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::{Value, json};

use super::cells;
use super::fields::{Fields, default};
use super::plain::Plain;
use super::rules::{Errors, immutable, optional_one_of};

/// The strategy of `priorityclasses`.
pub(crate) static PRIORITY_CLASSES: Plain = Plain {
    default: |object| default(object, "preemptionPolicy", "PreemptLowerPriority"),
    cells: |object, now| {
        vec![
            cells::name(object),
            json!(object.int("value")),
            object.flag("globalDefault").into(),
            cells::age(object, now),
            cells::or_unset(object.text("preemptionPolicy")),
        ]
    },
    validate: validate_class,
    change: change_class,
    change_alone: true,
    generations: true,
    ..Plain::NEW
};

/// The highest priority that is not the system's own.
const HIGHEST: i64 = 1_000_000_000;
/// The classes that the server makes, and what they are worth.
const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

fn validate_class(class: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (name, value) = (class.text("metadata.name"), class.int("value"));
    if name.starts_with("system-") {
        if !SYSTEM.contains(&(name, value)) {
            let text = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            let why = match SYSTEM.iter().find(|(known, _)| *known == name) {
                Some((_, expected)) => format!("value of {name} PriorityClass must be {expected}"),
                None => format!("{name} is not a known system priority class"),
            };
            errors.push(FieldError::forbidden("metadata.name", format!("{text}{why}")));
        }
    } else if value > HIGHEST {
        let text = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        errors.push(FieldError::forbidden("value", text));
    }
    let policy = class.some_text("preemptionPolicy");
    let known = ["Never", "PreemptLowerPriority"];
    optional_one_of(&mut errors, &Path::new("preemptionPolicy"), policy, &known);
    errors
}

fn change_class(class: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    if class.int("value") != old.int("value") {
        errors.push(FieldError::forbidden("value", "may not be changed in an update."));
    }
    let path = Path::new("preemptionPolicy");
    immutable(&mut errors, &path, class.at("preemptionPolicy"), old.at("preemptionPolicy"));
    errors
}
