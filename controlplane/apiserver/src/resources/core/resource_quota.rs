//! ResourceQuotas.

use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::Fields;
use crate::strategy::Strategy;

/// The strategy of `resourcequotas`.
pub(crate) struct ResourceQuotas;

impl Strategy for ResourceQuotas {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in object.entries("status.hard") {
            let used = object.at("status.used").get(name).and_then(Value::as_str).unwrap_or("0");
            let text = format!("{name}: {used}/{}", hard.as_str().unwrap_or_default());
            if name.starts_with("limits") { limits.push(text) } else { requests.push(text) }
        }
        vec![
            cells::name(object),
            requests.join(", ").into(),
            limits.join(", ").into(),
            cells::age(object, now),
        ]
    }
}
