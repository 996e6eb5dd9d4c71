//! Checks that many kinds share, with kube-apiserver's texts. Each adds what it finds to a list; must not know a kind.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::go;
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::fields::{Fields, same};

/// What was found so far.
pub(crate) type Errors = Vec<FieldError>;

/// Text of the complaint about a changed field that must stay.
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// Every complaint of a name check becomes an "Invalid value".
pub(crate) fn names(errors: &mut Errors, path: &Path, text: &str, complaints: Vec<String>) {
    errors.extend(complaints.into_iter().map(|c| FieldError::invalid(path, text, c)));
}

/// A text must not be empty; returns whether it is there.
pub(crate) fn required(errors: &mut Errors, path: &Path, text: &str) -> bool {
    if text.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    !text.is_empty()
}

/// A text must be one of the supported ones.
pub(crate) fn one_of(errors: &mut Errors, path: &Path, text: &str, supported: &[&str]) {
    if !supported.contains(&text) {
        errors.push(FieldError::not_supported(path, text, supported));
    }
}

/// A text that is there must be one of the supported ones.
pub(crate) fn optional_one_of(errors: &mut Errors, path: &Path, text: Option<&str>, supported: &[&str]) {
    if let Some(text) = text {
        one_of(errors, path, text, supported);
    }
}

/// A text must be there and one of the supported ones.
pub(crate) fn required_one_of(errors: &mut Errors, path: &Path, text: &str, supported: &[&str]) {
    if required(errors, path, text) {
        one_of(errors, path, text, supported);
    }
}

/// A number must not be negative.
pub(crate) fn non_negative(errors: &mut Errors, path: &Path, number: i64) {
    if number < 0 {
        errors.push(FieldError::invalid(path, number, "must be greater than or equal to 0"));
    }
}

/// A number must be greater than 0.
pub(crate) fn positive(errors: &mut Errors, path: &Path, number: i64) {
    if number <= 0 {
        errors.push(FieldError::invalid(path, number, "must be greater than 0"));
    }
}

/// A number must lie in a range.
pub(crate) fn in_range(errors: &mut Errors, path: &Path, number: i64, low: i64, high: i64) {
    if !(low..=high).contains(&number) {
        errors.push(FieldError::invalid(path, number, labels::range_message(low, high)));
    }
}

/// A field must be as it was.
pub(crate) fn immutable(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    if !same(new, old) {
        let value = if new.is_null() { nothing() } else { shown(new) };
        errors.push(FieldError::invalid(path, value, IMMUTABLE));
    }
}

/// The same for fields whose message shows no value.
pub(crate) fn immutable_unshown(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    if !same(new, old) {
        errors.push(FieldError::invalid(path, nothing(), IMMUTABLE));
    }
}

/// A value that is shown as a bare `null`.
pub(crate) fn nothing() -> pagurus_controlplane_api::field::BadValue {
    pagurus_controlplane_api::field::BadValue::Text("null".to_owned())
}

/// A network in CIDR notation.
pub(crate) fn cidr(errors: &mut Errors, path: &Path, text: &str) {
    names(errors, path, text, labels::cidr(text));
}

/// A map of labels.
pub(crate) fn labels_map(errors: &mut Errors, path: &Path, map: &Value) {
    for (key, value) in map.as_object().into_iter().flatten() {
        names(errors, path, key, labels::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        names(errors, path, value, labels::label_value(value));
    }
}

/// The largest sum of the sizes of all annotations.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// A map of annotations.
pub(crate) fn annotations_map(errors: &mut Errors, path: &Path, map: &Value) {
    let mut total = 0;
    for (key, value) in map.as_object().into_iter().flatten() {
        names(errors, path, key, labels::qualified_name(&key.to_lowercase()));
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX as i64));
    }
}

/// A `LabelSelector`. With `any_value`, values that are no label values pass: they just match nothing.
pub(crate) fn label_selector(errors: &mut Errors, path: &Path, selector: &Value, any_value: bool) {
    if selector.is_null() {
        return;
    }
    let map = path.child("matchLabels");
    labels_map(errors, &map, selector.at("matchLabels"));
    for (i, entry) in selector.items("matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = entry.items("values");
        match entry.text("operator") {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                path.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        label_name(errors, &path.child("key"), entry.text("key"));
        if !any_value {
            for (j, value) in entry.texts("values").enumerate() {
                names(errors, &path.child("values").index(j), value, labels::label_value(value));
            }
        }
    }
}

/// A label's key.
pub(crate) fn label_name(errors: &mut Errors, path: &Path, name: &str) {
    names(errors, path, name, labels::qualified_name(name));
}

/// A port by number or by name.
pub(crate) fn port_or_name(errors: &mut Errors, path: &Path, port: &Value) {
    match port {
        Value::String(name) => names(errors, path, name, labels::port_name(name)),
        other => {
            let number = other.as_i64().unwrap_or_default();
            errors.extend(
                labels::port_number(number).into_iter().map(|c| FieldError::invalid(path, number, c)),
            );
        }
    }
}

/// A path that must not climb out of where it begins.
pub(crate) fn no_backsteps(errors: &mut Errors, path: &Path, text: &str) {
    if text.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, text, "must not contain '..'"));
    }
}

/// A relative path that does not climb.
pub(crate) fn descending_path(errors: &mut Errors, path: &Path, text: &str) {
    if text.starts_with('/') {
        errors.push(FieldError::invalid(path, text, "must be a relative path"));
    }
    no_backsteps(errors, path, text);
}

/// A relative path that does not climb and does not begin with two dots.
pub(crate) fn unreserved_path(errors: &mut Errors, path: &Path, text: &str) {
    descending_path(errors, path, text);
    // A path of only `..` has been complained about already.
    if text.starts_with("..") && text != ".." && !text.starts_with("../") {
        errors.push(FieldError::invalid(path, text, "must not start with '..'"));
    }
}

/// An address.
pub(crate) fn ip(errors: &mut Errors, path: &Path, text: &str) {
    names(errors, path, text, labels::ip(text));
}

/// Fields of well-known structs in the order in which they are shown; all others come after, by name.
const SHOWN_ORDER: [&str; 16] = [
    "apiVersion",
    "kind",
    "namespace",
    "matchLabels",
    "matchExpressions",
    "matchFields",
    "key",
    "operator",
    "name",
    "uid",
    "controller",
    "blockOwnerDeletion",
    "exactly",
    "deviceClassName",
    "allocationMode",
    "count",
];

/// A value as the message shows it: structs in the order of their fields, without what is empty.
pub(crate) fn shown(value: &Value) -> pagurus_controlplane_api::field::BadValue {
    use pagurus_controlplane_api::field::BadValue;
    match value {
        Value::Object(_) | Value::Array(_) => {
            let mut out = String::new();
            write_shown(&mut out, value);
            BadValue::Text(out)
        }
        other => BadValue::Json(other.clone()),
    }
}

fn write_shown(out: &mut String, value: &Value) {
    match value {
        Value::Object(fields) => {
            let rank = |name: &str| SHOWN_ORDER.iter().position(|n| *n == name).unwrap_or(SHOWN_ORDER.len());
            let mut entries: Vec<(&String, &Value)> =
                fields.iter().filter(|(_, v)| !super::fields::is_zero(v)).collect();
            entries.sort_by_key(|(name, _)| rank(name));
            out.push('{');
            for (i, (name, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&go::json(&Value::from(name.as_str())));
                out.push(':');
                write_shown(out, value);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_shown(out, item);
            }
            out.push(']');
        }
        other => out.push_str(&go::json(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(check: impl FnOnce(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::new();
        check(&mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn selectors() {
        let path = Path::new("s");
        for (selector, expected) in [
            (json!(null), vec![]),
            (json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}), vec![]),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                vec![
                    "s.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                ],
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
                vec![
                    "s.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ],
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "X"}]}),
                vec!["s.matchExpressions[0].operator: Invalid value: \"X\": not a valid selector operator"],
            ),
        ] {
            assert_eq!(texts(|errors| label_selector(errors, &path, &selector, false)), expected);
        }
    }

    #[test]
    fn paths() {
        let path = Path::new("p");
        for (text, expected) in [("a/b", 0), ("a/../b", 1), ("/a", 1), ("..a", 1), ("..", 1), ("../a", 1)] {
            assert_eq!(texts(|errors| unreserved_path(errors, &path, text)).len(), expected, "{text}");
        }
    }

    #[test]
    fn structs_are_shown_in_their_order() {
        let selector = json!({"matchExpressions": [{"values": ["x"], "operator": "In", "key": "k"}],
            "matchLabels": {"b": "1", "a": "2"}});
        let error = FieldError::invalid("s", shown(&selector), "no");
        assert_eq!(
            error.body(),
            r#"Invalid value: {"matchLabels":{"a":"2","b":"1"},"matchExpressions":[{"key":"k","operator":"In","values":["x"]}]}: no"#
        );
    }
}
