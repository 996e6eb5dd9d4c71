//! ConfigMaps.

use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::Fields;
use crate::strategy::Strategy;

/// The strategy of `configmaps`.
pub(crate) struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = object.entries("data").count() + object.entries("binaryData").count();
        vec![cells::name(object), count.into(), cells::age(object, now)]
    }
}
