//! Secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::registry::{FieldName, named};
use crate::resources::cells;
use crate::resources::fields::{Fields, default_text, object_at};
use crate::resources::rules::{Errors, immutable, names};
use crate::strategy::Strategy;

use super::config_map::{MAX_SIZE, decoded_size, immutability};

/// The annotation by which a token names its account.
const ACCOUNT: &str = "kubernetes.io/service-account.name";

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

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let data = Path::new("data");
        let mut size = 0;
        for (key, value) in object.entries("data") {
            names(&mut errors, &data.key(key), key, labels::config_key(key));
            size += decoded_size(value.as_str().unwrap_or_default());
        }
        if size > MAX_SIZE {
            errors.push(FieldError::too_long(&data, MAX_SIZE as i64));
        }
        content(&mut errors, &data, object);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        immutable(&mut errors, &Path::new("type"), object.at("type"), old.at("type"));
        immutability(&mut errors, object, old, &["data"]);
        errors.extend(self.validate(object));
        errors
    }

    fn selectable_fields(&self) -> &[FieldName] {
        const { &[named("type")] }
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

/// What a Secret of a well-known type must contain.
fn content(errors: &mut Errors, data: &Path, secret: &Value) {
    let has = |key: &str| secret.at("data").get(key).is_some();
    let needs = |errors: &mut Errors, keys: &[&str]| {
        for key in keys.iter().filter(|key| !has(key)) {
            errors.push(FieldError::required(data.key(key), ""));
        }
    };
    match secret.text("type") {
        "kubernetes.io/service-account-token"
            if labels::annotation(secret, ACCOUNT).unwrap_or_default().is_empty() =>
        {
            errors.push(FieldError::required(Path::new("metadata.annotations").key(ACCOUNT), ""));
        }
        "kubernetes.io/dockercfg" => docker(errors, data, secret, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => docker(errors, data, secret, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            needs(errors, &["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if secret.at("data").text("ssh-privatekey").is_empty() => {
            errors.push(FieldError::required(data.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => needs(errors, &["tls.crt", "tls.key"]),
        _ => {}
    }
}

fn docker(errors: &mut Errors, data: &Path, secret: &Value, key: &str) {
    let Some(text) = secret.at("data").get(key).and_then(Value::as_str) else {
        errors.push(FieldError::required(data.key(key), ""));
        return;
    };
    let decoded = STANDARD.decode(text).unwrap_or_default();
    if !serde_json::from_slice::<Value>(&decoded).is_ok_and(|v| v.is_object()) {
        let why = if decoded.is_empty() { "unexpected end of JSON input" } else { "invalid JSON" };
        errors.push(FieldError::invalid(data.key(key), "<secret contents redacted>", why));
    }
}
