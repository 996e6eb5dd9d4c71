//! The static defaults that the API definition declares. It must not know defaults that depend on other fields or on the
//! kind (those are the API server's strategies).

use serde_json::{Map, Value};

use crate::normalize::side_by_side;
use crate::table::{FieldKind, Table, TypeId};

/// Fills in the declared defaults of every object that is there.
pub fn apply(table: &Table, id: TypeId, value: &mut Value) {
    if let Value::Object(object) = value {
        self::object(table, id, object);
    }
}

fn object(table: &Table, id: TypeId, object: &mut Map<String, Value>) {
    let mut new = Vec::new();
    for (field, value) in side_by_side(&table.type_(id).fields, object) {
        match (value, &field.default) {
            (Some(value), _) if !value.is_null() => inside(table, &field.kind, value),
            (Some(value), Some(default)) => *value = default.clone(),
            (None, Some(default)) => new.push((field, default)),
            (_, None) => {}
        }
    }
    object.extend(new.into_iter().map(|(field, default)| (field.json_name.to_string(), default.clone())));
}

fn inside(table: &Table, kind: &FieldKind, value: &mut Value) {
    match (kind, value) {
        (FieldKind::Object(id), Value::Object(inner)) => object(table, *id, inner),
        (FieldKind::List(item), Value::Array(items)) if item.object().is_some() => {
            items.iter_mut().for_each(|value| inside(table, item, value));
        }
        (FieldKind::Map(item), Value::Object(entries)) if item.object().is_some() => {
            entries.values_mut().for_each(|value| inside(table, item, value));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::Table;

    #[test]
    fn declared_defaults_fill_what_is_absent() {
        let table = Table::builtin();
        let id = table.kind_type("", "v1", "Service").expect("services are in the table");
        let mut value = json!({"spec": {"ports": [{"port": 1}, {"port": 2, "protocol": "UDP"}]}});
        super::apply(table, id, &mut value);
        assert_eq!(
            value,
            json!({"spec": {"ports": [{"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "UDP"}]}})
        );
    }
}
