//! ConfigMaps.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::Fields;
use crate::resources::fields::same;
use crate::resources::rules::{Errors, names};
use crate::strategy::Strategy;

/// The largest sum of the sizes of all values.
pub(super) const MAX_SIZE: usize = 1024 * 1024;

/// The strategy of `configmaps`.
pub(crate) struct ConfigMaps;

/// Once `immutable` is set, it stays and so does the content.
pub(super) fn immutability(errors: &mut Errors, object: &Value, old: &Value, parts: &[&str]) {
    if !old.flag("immutable") {
        return;
    }
    let text = "field is immutable when `immutable` is set";
    if !object.flag("immutable") {
        errors.push(FieldError::forbidden("immutable", text));
    }
    for part in parts.iter().filter(|part| !same(object.at(part), old.at(part))) {
        errors.push(FieldError::forbidden(*part, text));
    }
}

/// The number of bytes that base64 text stands for.
pub(super) fn decoded_size(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

impl Strategy for ConfigMaps {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let mut size = 0;
        for (part, other) in [("data", "binaryData"), ("binaryData", "")] {
            for (key, value) in object.entries(part) {
                let path = Path::new(part).key(key);
                names(&mut errors, &path, key, labels::config_key(key));
                if !other.is_empty() && object.at(other).get(key).is_some() {
                    let text = "duplicate of key present in binaryData";
                    errors.push(FieldError::invalid(path, key, text));
                }
                let text = value.as_str().unwrap_or_default();
                size += if part == "data" { text.len() } else { decoded_size(text) };
            }
        }
        if size > MAX_SIZE {
            errors.push(FieldError::too_long("", MAX_SIZE as i64));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate(object);
        immutability(&mut errors, object, old, &["data", "binaryData"]);
        errors
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = object.entries("data").count() + object.entries("binaryData").count();
        vec![cells::name(object), count.into(), cells::age(object, now)]
    }
}
