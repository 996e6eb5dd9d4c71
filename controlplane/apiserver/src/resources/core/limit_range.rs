//! LimitRanges.

use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::{Fields, default, items_mut, object_at};
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

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![cells::name(object), cells::created_at(object)]
    }
}
