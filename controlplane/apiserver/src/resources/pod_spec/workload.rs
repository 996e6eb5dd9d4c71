//! The rules that workloads share: a selector and the template of the pods it selects.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::selectors::LabelSelector;
use serde_json::Value;

use super::validate;
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, label_selector, non_negative, shown};

/// A `LabelSelector` that must be there and must not select everything. Returns it if it can be used.
pub(crate) fn selector(
    errors: &mut Errors,
    path: &Path,
    spec: &Value,
    noun: &str,
    unusable: &str,
) -> Option<LabelSelector> {
    let path = path.child("selector");
    let selector = spec.at("selector");
    if selector.is_null() {
        errors.push(FieldError::required(&path, ""));
    } else {
        label_selector(errors, &path, selector, false);
        if selector.entries("matchLabels").next().is_none() && selector.items("matchExpressions").is_empty() {
            let text = format!("empty selector is invalid for {noun}");
            errors.push(FieldError::invalid(&path, shown(selector), text));
        }
    }
    match LabelSelector::from_json(selector) {
        Ok(parsed) => Some(parsed),
        Err(_) => {
            errors.push(FieldError::invalid(&path, shown(selector), unusable));
            None
        }
    }
}

/// The template must carry the labels that the selector asks for.
pub(crate) fn matching_labels(errors: &mut Errors, path: &Path, template: &Value, selector: &LabelSelector) {
    if !selector.is_everything() && !selector.matches_object(template) {
        let labels = template.at("metadata.labels").clone();
        let labels = match labels {
            Value::Null => pagurus_controlplane_api::field::BadValue::Text("null".to_owned()),
            other => other.into(),
        };
        let text = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(path.child("metadata.labels"), labels, text));
    }
}

/// The template of pods that are to run for good.
pub(crate) fn lasting_template(errors: &mut Errors, path: &Path, template: &Value, noun: &str) {
    validate::template(errors, path, template);
    let policy = template.text("spec.restartPolicy");
    if policy != "Always" {
        errors.push(FieldError::not_supported(path.child("spec.restartPolicy"), policy, &["Always"]));
    }
    if template.has("spec.activeDeadlineSeconds") {
        let text = format!("activeDeadlineSeconds in {noun} is not Supported");
        errors.push(FieldError::forbidden(path.child("spec.activeDeadlineSeconds"), text));
    }
}

/// A number or a percentage that is not negative.
pub(crate) fn number_or_percent(errors: &mut Errors, path: &Path, value: &Value) {
    match value {
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
                let complaint = pagurus_controlplane_api::labels::pattern_message(
                    "a valid percent string must be a numeric string followed by an ending '%'",
                    "[0-9]+%",
                    &["1%", "93%"],
                );
                errors.push(FieldError::invalid(path, text.as_str(), complaint));
            }
        }
        other => non_negative(errors, path, other.as_i64().unwrap_or_default()),
    }
}

/// A percentage of at most 100.
pub(crate) fn at_most_all(errors: &mut Errors, path: &Path, value: &Value) {
    if percent(value).is_some_and(|p| p > 100) {
        errors.push(FieldError::invalid(path, value.clone(), "must not be greater than 100%"));
    }
}

fn percent(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// The number, be it an amount (also one in a text) or a percentage; 0 if it is neither.
pub(crate) fn amount(value: &Value) -> i64 {
    let number = || value.as_str()?.parse().ok();
    value.as_i64().or_else(|| percent(value)).or_else(number).unwrap_or_default()
}
