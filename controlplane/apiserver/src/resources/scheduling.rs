//! PriorityClasses.

use serde_json::json;

use super::cells;
use super::fields::{Fields, default};
use super::plain::Plain;

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
    generations: true,
    ..Plain::NEW
};
