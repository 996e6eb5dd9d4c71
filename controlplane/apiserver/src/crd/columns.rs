//! The columns of custom resources' tables (`additionalPrinterColumns`). It must not know tables.

use jiff::Timestamp;
use pagurus_controlplane_api::{go, time};
use pagurus_controlplane_schema::openapi::Descriptions as _;
use serde_json::{Value, json};

use super::json_path::JsonPath;
use crate::openapi::descriptions::Descriptions;
use crate::resources::fields::Fields;

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    type_: Box<str>,
    /// None if the path cannot be read, which finds nothing.
    path: Option<JsonPath>,
}

/// The columns of a version, and their definitions. A version without any shows ages.
pub(super) fn of_version(version: &Value) -> (Vec<Column>, Value) {
    let descriptions = Descriptions::of_version("", "v1");
    let of_metadata = |field: &str| descriptions.field(METADATA, field).unwrap_or_default().into_owned();
    let mut definitions = vec![json!({
        "name": "Name", "type": "string", "format": "name", "description": of_metadata("name"), "priority": 0,
    })];
    let given = version.items("additionalPrinterColumns");
    if given.is_empty() {
        definitions.push(json!({
            "name": "Age", "type": "date", "format": "", "description": of_metadata("creationTimestamp"), "priority": 0,
        }));
        let path = JsonPath::parse(".metadata.creationTimestamp");
        return (vec![Column { type_: "date".into(), path }], Value::Array(definitions));
    }
    let mut columns = Vec::with_capacity(given.len());
    for column in given {
        let path = column.text("jsonPath");
        let description = match column.text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            text => text.to_owned(),
        };
        definitions.push(json!({
            "name": column.text("name"), "type": column.text("type"), "format": column.text("format"),
            "description": description, "priority": column.int("priority"),
        }));
        columns.push(Column { type_: column.text("type").into(), path: JsonPath::parse(path) });
    }
    (columns, Value::Array(definitions))
}

impl Column {
    /// What the column shows of an object: the first of what the path finds.
    pub(super) fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.as_ref().map(|path| path.find(object)).unwrap_or_default();
        let Some(value) = found.first() else { return Value::Null };
        match (&*self.type_, value) {
            (_, Value::Null) => Value::Null,
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", other) => go::json(other).into(),
            ("integer", Value::Number(n)) => {
                n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)).map_or(Value::Null, Value::from)
            }
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*value).clone(),
            ("date", Value::String(text)) => match time::parse(text) {
                Some(_) => time::age(Some(text), now).into(),
                None => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        let object =
            json!({"s": "x", "n": 3, "f": 2.5, "b": true, "o": {"a": 1}, "t": "1999-01-01T00:00:00Z"});
        let now = time::parse("1999-01-01T00:01:00Z").unwrap_or_default();
        for (type_, path, expected) in [
            ("string", ".s", json!("x")),
            ("string", ".n", json!("3")),
            ("string", ".o", json!("{\"a\":1}")),
            ("string", ".none", Value::Null),
            ("integer", ".n", json!(3)),
            ("integer", ".f", json!(2)),
            ("integer", ".s", Value::Null),
            ("number", ".f", json!(2.5)),
            ("boolean", ".b", json!(true)),
            ("date", ".t", json!("60s")),
            ("date", ".s", json!("<invalid>")),
            ("date", ".n", Value::Null),
        ] {
            let column = Column { type_: type_.into(), path: JsonPath::parse(path) };
            assert_eq!(column.cell(&object, now), expected, "{type_} {path}");
        }
    }
}
