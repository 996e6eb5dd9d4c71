//! Secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::{Fields, default_text, object_at};
use crate::strategy::Strategy;

/// The strategy of `secrets`.
pub(crate) struct Secrets;

impl Strategy for Secrets {
    fn default(&self, object: &mut Value) {
        default_text(object, "type", "Opaque");
        if let Some(plain) = object.as_object_mut().and_then(|fields| fields.remove("stringData")) {
            for (key, value) in plain.as_object().into_iter().flatten() {
                let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
                object_at(object, "data")[key] = encoded.into();
            }
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        (name == "type").then(|| object.text("type").to_owned())
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            cells::name(object),
            object.text("type").into(),
            object.entries("data").count().into(),
            cells::age(object, now),
        ]
    }
}
