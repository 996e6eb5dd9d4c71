//! Pieces of table rows that several kinds share: names, ages, label maps, selectors, containers. Must not know a kind.

use jiff::Timestamp;
use pagurus_controlplane_api::selectors::LabelSelector;
use pagurus_controlplane_api::time;
use serde_json::Value;

use super::fields::Fields;

/// What stands for nothing.
pub(crate) const NONE: &str = "<none>";

/// The object's name.
pub(crate) fn name(object: &Value) -> Value {
    object.text("metadata.name").into()
}

/// The object's age.
pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    time::age(object.some_text("metadata.creationTimestamp"), now).into()
}

/// How long ago a time in a field was.
pub(crate) fn since(object: &Value, field: &str, now: Timestamp) -> String {
    time::age(object.some_text(field), now)
}

/// The creation time itself.
pub(crate) fn created_at(object: &Value) -> Value {
    object.at("metadata.creationTimestamp").clone()
}

/// A text, or `<none>`.
pub(crate) fn or_none(text: &str) -> Value {
    if text.is_empty() { NONE.into() } else { text.into() }
}

/// A text, or `<unset>`.
pub(crate) fn or_unset(text: &str) -> Value {
    if text.is_empty() { "<unset>".into() } else { text.into() }
}

/// A map of labels as `a=b,c=d`, or `<none>`.
pub(crate) fn label_map(object: &Value, field: &str) -> String {
    let pairs: Vec<String> =
        object.entries(field).map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// A `LabelSelector` as text, or `<none>`.
pub(crate) fn selector(object: &Value, field: &str) -> Value {
    match LabelSelector::from_json(object.at(field)) {
        Err(_) => "<error>".into(),
        Ok(selector) => or_none(&selector.to_string()),
    }
}

/// The names and the images of a pod specification's containers.
pub(crate) fn containers(object: &Value, field: &str) -> [Value; 2] {
    ["name", "image"].map(|part| {
        let texts: Vec<&str> = object.items(field).iter().map(|c| c.text(part)).collect();
        texts.join(",").into()
    })
}

/// A list of texts between commas.
pub(crate) fn joined(object: &Value, field: &str) -> String {
    object.texts(field).collect::<Vec<_>>().join(",")
}

/// Access modes in their short forms, each once.
pub(crate) fn access_modes(object: &Value, field: &str) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| object.texts(field).any(|m| m == mode);
    short.iter().filter(|(mode, _)| has(mode)).map(|(_, s)| *s).collect::<Vec<_>>().join(",")
}
