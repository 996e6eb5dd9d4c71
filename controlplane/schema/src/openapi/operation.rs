//! One operation of a path: parameters, body, answers. It must not know which operations there are.

use serde_json::{Map, Value, json};

use super::Dialect;
use super::parameters::{self, Parameter};
use super::schema::{self, reference};
use crate::table::GroupKind;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Anything.
pub(super) const ANY: &[&str] = &["*/*"];
/// What objects are answered in.
pub(super) const OBJECTS: &[&str] = &[JSON, YAML, PROTOBUF];
/// What custom objects are answered in.
pub(super) const CUSTOM_OBJECTS: &[&str] = &[JSON, YAML];
/// What lists and watches are answered in.
pub(super) const STREAMS: &[&str] = &[
    JSON,
    YAML,
    PROTOBUF,
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
/// What logs are answered in.
pub(super) const TEXT: &[&str] = &["text/plain", JSON, YAML, PROTOBUF];
/// The patches there are.
pub(super) const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
/// The patches there are for custom objects.
pub(super) const CUSTOM_PATCHES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// What is answered.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Text,
    Schema(String),
}

/// An operation.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) method: &'static str,
    pub(super) description: String,
    /// What it does, and to objects of which kind.
    pub(super) action: Option<(&'static str, GroupKind)>,
    pub(super) parameters: Vec<Parameter>,
    /// Schema of the body.
    pub(super) body: Option<String>,
    pub(super) answer: Answer,
    /// Beside 200, and beside 401.
    pub(super) codes: &'static [(&'static str, &'static str)],
    pub(super) consumes: &'static [&'static str],
    pub(super) produces: &'static [&'static str],
    pub(super) tag: String,
}

/// The operations of a path, with the parameters that all of them have told once.
pub(super) fn path_item(dialect: Dialect, operations: &[Operation]) -> Value {
    let in_all = |parameter: &&Parameter| operations.iter().all(|o| o.parameters.contains(parameter));
    let first = operations.first().map_or(&[][..], |operation| &operation.parameters);
    let mut common: Vec<&Parameter> = first.iter().filter(in_all).collect();
    common.sort_by_key(|parameter| parameter.rank());
    let mut out = Map::new();
    for operation in operations {
        out.insert(operation.method.to_owned(), operation.render(dialect, &common));
    }
    if !common.is_empty() {
        let common = common.iter().map(|parameter| parameter.render(dialect)).collect();
        out.insert("parameters".to_owned(), Value::Array(common));
    }
    Value::Object(out)
}

impl Operation {
    fn render(&self, dialect: Dialect, common: &[&Parameter]) -> Value {
        let mut out = json!({
            "tags": [self.tag], "description": self.description, "operationId": self.id, "responses": self.responses(dialect),
        });
        if let Some((action, kind)) = &self.action {
            out["x-kubernetes-action"] = json!(action);
            out["x-kubernetes-group-version-kind"] =
                json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        }
        let mut own: Vec<&Parameter> = self.parameters.iter().filter(|p| !common.contains(p)).collect();
        own.sort_by_key(|parameter| parameter.rank());
        let mut parameters: Vec<Value> = own.iter().map(|parameter| parameter.render(dialect)).collect();
        match dialect {
            Dialect::V2 => {
                parameters.splice(0..0, self.body.as_deref().map(body_parameter));
                if !self.consumes.is_empty() {
                    out["consumes"] = json!(self.consumes);
                }
                out["produces"] = json!(self.produces);
                out["schemes"] = json!(["https"]);
            }
            Dialect::V3 => {
                if let Some(name) = &self.body {
                    out["requestBody"] =
                        json!({"content": content(self.consumes, &reference(dialect, name))});
                    if !may_be_left_out(name) {
                        out["requestBody"]["required"] = json!(true);
                    }
                }
            }
        }
        if !parameters.is_empty() {
            out["parameters"] = Value::Array(parameters);
        }
        out
    }

    fn responses(&self, dialect: Dialect) -> Value {
        let schema = match &self.answer {
            Answer::Text => json!({"type": "string"}),
            Answer::Schema(name) => reference(dialect, name),
        };
        let mut out = json!({"401": {"description": "Unauthorized"}});
        for (code, meaning) in [("200", "OK")].iter().chain(self.codes) {
            out[*code] = match dialect {
                Dialect::V2 => json!({"description": meaning, "schema": schema}),
                Dialect::V3 => json!({"description": meaning, "content": content(self.produces, &schema)}),
            };
        }
        out
    }
}

fn may_be_left_out(body: &str) -> bool {
    body.ends_with(".DeleteOptions")
}

fn body_parameter(schema: &str) -> Value {
    match parameters::shared_body(schema) {
        Some(shared) => json!({"$ref": format!("#/parameters/{shared}")}),
        None => {
            json!({"in": "body", "name": "body", "required": true, "schema": reference(Dialect::V2, schema)})
        }
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    types.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect()
}

/// The schema of patches, which are of no type of the table.
pub(super) const PATCH_BODY: &str = schema::PATCH;
