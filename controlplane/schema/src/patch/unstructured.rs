//! What is wrong with the result of a strategic merge patch: there values are taken over one by one, not read as JSON, and clients know
//! other words for a value of a wrong type. It must not know how a patch is applied.

use serde_json::Value;

use super::{describe, go_order};
use crate::check;
use crate::table::{Field, FieldKind, Table, TypeId};

/// The first objection to a value as an object of a type, in the order of the API's definition.
pub fn objection(table: &Table, id: TypeId, value: &Value) -> Option<String> {
    of_kind(table, &FieldKind::Object(id), None, value)
}

fn of_kind(table: &Table, kind: &FieldKind, field: Option<&Field>, value: &Value) -> Option<String> {
    let go_kind = go_kind(value)?;
    match (kind, value) {
        (FieldKind::Object(id), Value::Object(entries)) => go_order::fields(table.type_(*id))
            .into_iter()
            .find_map(|field| of_kind(table, &field.kind, Some(field), entries.get(&*field.json_name)?)),
        (FieldKind::Object(_), _) => Some(format!("cannot restore struct from: {go_kind}")),
        (FieldKind::List(item), Value::Array(items)) => {
            items.iter().find_map(|value| of_kind(table, item, field, value))
        }
        (FieldKind::List(_), _) => Some(format!("cannot restore slice from {go_kind}")),
        (FieldKind::Map(item), Value::Object(entries)) => {
            entries.values().find_map(|value| of_kind(table, item, None, value))
        }
        (FieldKind::Map(_), _) => Some(format!("cannot restore map from {go_kind}")),
        (FieldKind::Bytes, Value::String(_)) => {
            check::scalar_objection(kind, value).map(|error| format!("error decoding from json: {error}"))
        }
        (FieldKind::Bytes, _) => Some(format!("cannot restore slice from {go_kind}")),
        (FieldKind::String, Value::String(_)) | (FieldKind::Bool, Value::Bool(_)) => None,
        (FieldKind::Int32 | FieldKind::Int64 | FieldKind::Double, Value::Number(number)) => {
            let fits = *kind == FieldKind::Double
                || number.is_i64()
                || number.as_f64().is_some_and(|n| n.fract() == 0.0);
            (!fits).then(|| format!("cannot convert {go_kind} to {}", check::go_name(table, kind, field)))
        }
        // Go turns numbers into texts of one character, which is refused, and never texts into numbers.
        (FieldKind::String, Value::Number(number)) if number.is_i64() => {
            Some(format!("cannot convert {go_kind} to {}", check::go_name(table, kind, field)))
        }
        (FieldKind::String, _) => Some("unrecognized type: string".to_owned()),
        (FieldKind::Bool, _) => Some("unrecognized type: bool".to_owned()),
        (FieldKind::Int32, _) => Some("unrecognized type: int32".to_owned()),
        (FieldKind::Int64, _) => Some("unrecognized type: int64".to_owned()),
        (FieldKind::Double, _) => Some("unrecognized type: float64".to_owned()),
        (
            FieldKind::Quantity
            | FieldKind::IntOrString
            | FieldKind::Time
            | FieldKind::MicroTime
            | FieldKind::Duration,
            _,
        ) => check::scalar_objection(kind, value),
        (FieldKind::Raw | FieldKind::Json | FieldKind::Either(_), _) => None,
    }
}

/// What a value is in Go; none for `null`, which is taken everywhere.
fn go_kind(value: &Value) -> Option<&'static str> {
    Some(match value {
        Value::Null => return None,
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
        other => describe(other),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objections_in_the_words_of_the_converter() {
        let table = Table::builtin();
        let id = table.kind_type("apps", "v1", "Deployment").expect("a kind of the table");
        let spec = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
        for (value, expected) in [
            (json!({"spec": {"replicas": 3.0}}), None),
            (json!({"spec": {"replicas": null, "nope": 1}}), None),
            (json!({"spec": {"replicas": "three"}}), Some("unrecognized type: int32")),
            (json!({"spec": {"replicas": 1.5}}), Some("cannot convert float64 to int32")),
            (json!({"spec": {"paused": "yes", "replicas": true}}), Some("unrecognized type: int32")),
            (json!({"spec": []}), Some("cannot restore struct from: slice")),
            (json!({"metadata": {"labels": "x"}}), Some("cannot restore map from string")),
            (json!({"metadata": {"labels": {"a": 1}}}), Some("cannot convert int64 to string")),
            (json!({"metadata": {"finalizers": {"a": 1}}}), Some("cannot restore slice from map")),
            (spec(json!({"dnsPolicy": 1})), Some("cannot convert int64 to v1.DNSPolicy")),
            (spec(json!({"dnsPolicy": true})), Some("unrecognized type: string")),
            (
                spec(json!({"overhead": {"cpu": "x"}})),
                Some(
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                ),
            ),
        ] {
            assert_eq!(objection(table, id, &value).as_deref(), expected, "{value}");
        }
    }
}
