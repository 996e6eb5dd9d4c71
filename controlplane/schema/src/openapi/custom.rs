//! Schemas of custom resources: what their definition says, with what every object has. It must not know how a definition is checked.

use serde_json::{Map, Value, json};

use super::Dialect;
use super::schema::{API_VERSION, KIND, LIST_METADATA, METADATA, reference};
use crate::table::Resource;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The name of the schema of a kind: the group's parts turned around, the version and the kind.
pub(super) fn name(resource: &Resource, kind: &str) -> String {
    let group: Vec<&str> = resource.group.rsplit('.').collect();
    format!("{}.{}.{kind}", group.join("."), resource.version)
}

/// The schema of the objects, made of the one that the definition has.
pub(super) fn object(dialect: Dialect, resource: &Resource, given: &Value) -> Value {
    let mut out = given.clone();
    if dialect == Dialect::V2 {
        if given["x-kubernetes-preserve-unknown-fields"] == true {
            // Clients of version 2 refuse what is not named as soon as something is.
            out = json!({"type": "object"});
            out["x-kubernetes-group-version-kind"] = kinds(resource, &resource.kind);
            return out;
        }
        lower(&mut out);
    }
    if out.get("type").is_none() {
        out["type"] = json!("object");
    }
    let own =
        out.get_mut("properties").and_then(Value::as_object_mut).map(std::mem::take).unwrap_or_default();
    let mut properties = meta(dialect, OBJECT_META, METADATA);
    properties
        .extend(own.into_iter().filter(|(name, _)| !matches!(&**name, "apiVersion" | "kind" | "metadata")));
    out["properties"] = Value::Object(properties);
    out["x-kubernetes-group-version-kind"] = kinds(resource, &resource.kind);
    out
}

/// The schema of their lists.
pub(super) fn list(dialect: Dialect, resource: &Resource) -> Value {
    let kind = &resource.kind;
    let mut properties = meta(dialect, LIST_META, LIST_METADATA);
    properties.insert(
        "items".to_owned(),
        json!({
            "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", resource.plural), "type": "array",
            "items": reference(dialect, &name(resource, kind)),
        }),
    );
    json!({
        "description": format!("{} is a list of {kind}.", resource.list_kind), "type": "object", "required": ["items"],
        "properties": properties, "x-kubernetes-group-version-kind": kinds(resource, &resource.list_kind),
    })
}

fn meta(dialect: Dialect, type_: &str, description: &str) -> Map<String, Value> {
    let reference = match dialect {
        Dialect::V2 => reference(dialect, type_),
        Dialect::V3 => json!({"allOf": [reference(dialect, type_)]}),
    };
    let mut metadata = reference;
    metadata["description"] = json!(description);
    let text = |description: &str| json!({"description": description, "type": "string"});
    Map::from_iter([
        ("apiVersion".to_owned(), text(API_VERSION)),
        ("kind".to_owned(), text(KIND)),
        ("metadata".to_owned(), metadata),
    ])
}

fn kinds(resource: &Resource, kind: &str) -> Value {
    json!([{"group": resource.group, "version": resource.version, "kind": kind}])
}

/// Takes out of a schema what version 2 cannot say, so that clients do not refuse what the server takes.
fn lower(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for name in ["oneOf", "anyOf", "allOf", "not", "nullable", "default", "externalDocs", "example"] {
        let taken = fields.remove(name);
        if name == "nullable" && taken == Some(Value::Bool(true)) {
            // A type would refuse null, and nothing of the value's inside can be said without it.
            for name in ["type", "items", "properties", "additionalProperties"] {
                fields.remove(name);
            }
        }
    }
    let is = |name: &str| fields.get(name) == Some(&Value::Bool(true));
    if is("x-kubernetes-preserve-unknown-fields") {
        for name in ["items", "properties", "additionalProperties", "required"] {
            fields.remove(name);
        }
    } else if is("x-kubernetes-int-or-string") {
        fields.remove("type");
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name) {
            lower(inner);
        }
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(lower);
    }
}
