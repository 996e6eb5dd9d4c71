//! Schemas of types. It must not know paths or operations.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Descriptions, Dialect, Prose, facts};
use crate::patch::go_order;
use crate::table::{Field, FieldKind, ListType, Presence, Table, Type, TypeId};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const DURATION: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Duration";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
/// The body of a patch.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
const SCHEMA_OR_ARRAY: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray";
const SCHEMA_OR_BOOL: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool";
const SCHEMA_OR_STRINGS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray";

/// A reference to a schema.
pub(super) fn reference(dialect: Dialect, name: &str) -> Value {
    match dialect {
        Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
        Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}

/// Writes the schemas of these names and of all they refer to, in the order of their names. `prose` says what the types of a package mean.
pub(super) fn closure(
    table: &Table,
    dialect: Dialect,
    roots: BTreeSet<String>,
    prose: &dyn Prose,
    mut put: impl FnMut(&str, Value),
) {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let mut waiting: Vec<TypeId> = Vec::new();
    for root in &roots {
        match table.type_named(root) {
            Some(id) => waiting.push(id),
            None => drop(names.insert(root)),
        }
    }
    while let Some(id) = waiting.pop() {
        let type_ = table.type_(id);
        if !names.insert(&type_.name) {
            continue;
        }
        for field in &type_.fields {
            waiting.extend(referred(&field.kind));
            names.extend(leaf_of(type_, field));
        }
    }
    let mut described: Option<(&str, Box<dyn Descriptions + '_>)> = None;
    for name in names {
        let package = name.rsplit_once('.').map_or("", |(package, _)| package);
        let words = match described.take().filter(|(of, _)| *of == package) {
            Some((_, words)) => words,
            None => prose.of_package(package),
        };
        let schema = match table.type_named(name) {
            Some(id) => Writer { table, dialect, descriptions: &*words }.object(table.type_(id)),
            None => {
                let mut schema = leaf_schema(dialect, name);
                describe(&mut schema, words.type_(name).as_deref());
                schema
            }
        };
        put(name, schema);
        described = Some((package, words));
    }
}

fn referred(kind: &FieldKind) -> Option<TypeId> {
    match kind {
        FieldKind::Object(id) | FieldKind::Either(id) => Some(*id),
        FieldKind::List(item) | FieldKind::Map(item) => referred(item),
        _ => None,
    }
}

fn describe(schema: &mut Value, description: Option<&str>) {
    if let Some(text) = description {
        schema["description"] = json!(text);
    }
}

fn leaf_schema(dialect: Dialect, name: &str) -> Value {
    let v3 = dialect == Dialect::V3;
    match name {
        QUANTITY if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        QUANTITY | DURATION => json!({"type": "string"}),
        INT_OR_STRING if v3 => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        INT_OR_STRING => json!({"type": "string", "format": "int-or-string"}),
        TIME | MICRO_TIME => json!({"type": "string", "format": "date-time"}),
        JSON | SCHEMA_OR_ARRAY | SCHEMA_OR_BOOL | SCHEMA_OR_STRINGS => json!({}),
        _ => json!({"type": "object"}),
    }
}

struct Writer<'a> {
    table: &'a Table,
    dialect: Dialect,
    descriptions: &'a dyn Descriptions,
}

impl Writer<'_> {
    fn object(&self, type_: &Type) -> Value {
        let mut properties = Map::new();
        for field in &type_.fields {
            properties.insert(field.json_name.to_string(), self.property(type_, field));
        }
        let mut out = json!({"type": "object"});
        let list_of = list_of(type_);
        match (self.descriptions.type_(&type_.name), list_of) {
            (Some(text), _) => describe(&mut out, Some(&text)),
            (None, Some(kind)) => {
                describe(&mut out, Some(&format!("{} is a list of {kind}.", type_.short_name())));
                describe_list(&mut properties, kind);
            }
            (None, None) => {}
        }
        if !properties.is_empty() {
            out["properties"] = Value::Object(properties);
        }
        let required: Vec<&str> =
            go_order::fields(type_).into_iter().filter(|f| f.required).map(|f| &*f.json_name).collect();
        if !required.is_empty() {
            out["required"] = json!(required);
        }
        if type_.atomic {
            out["x-kubernetes-map-type"] = json!("atomic");
        }
        if let Some(unions) = facts::unions(&type_.name) {
            out["x-kubernetes-unions"] = unions.clone();
        }
        let kinds = kinds(type_);
        if !kinds.is_empty() {
            out["x-kubernetes-group-version-kind"] = Value::Array(kinds);
        }
        out
    }

    fn property(&self, type_: &Type, field: &Field) -> Value {
        let mut out = match leaf_of(type_, field) {
            Some(leaf) => self.around(&field.kind, reference(self.dialect, leaf)),
            None => self.kind(&field.kind, Some(field)),
        };
        if self.dialect == Dialect::V3 {
            self.defaults(field, &mut out);
        }
        let mut description = self.descriptions.field(&type_.name, &field.json_name).map(Cow::into_owned);
        if !field.enum_values.is_empty() {
            describe_enum(&mut description, &field.enum_values);
        }
        describe(&mut out, description.as_deref());
        if !field.enum_values.is_empty() && matches!(field.kind, FieldKind::String) {
            out["enum"] = json!(field.enum_values);
        }
        extensions(field, &mut out);
        if let Some(map_type) = facts::map_type(&type_.name, &field.json_name) {
            out["x-kubernetes-map-type"] = json!(map_type);
        }
        if let Some(values) = facts::map_enum(&type_.name, &field.json_name) {
            out["additionalProperties"]["enum"] = json!(values);
        }
        out
    }

    /// Version 3 says what stands for an absent value, of fields that are no pointers, and cannot say anything beside a reference.
    fn defaults(&self, field: &Field, out: &mut Value) {
        let absent = if matches!(field.presence, Presence::Always) { zero(&field.kind) } else { None };
        if let Some(default) = field.default.clone().or(absent) {
            out["default"] = default;
        }
        for inner in ["items", "additionalProperties"] {
            if let (Some(inner), FieldKind::List(kind) | FieldKind::Map(kind)) =
                (out.get_mut(inner), &field.kind)
            {
                if let Some(zero) = zero(kind) {
                    inner["default"] = zero;
                }
                wrap_reference(inner);
            }
        }
        wrap_reference(out);
    }

    /// A schema in the lists and maps of a kind.
    fn around(&self, kind: &FieldKind, inner: Value) -> Value {
        match kind {
            FieldKind::List(item) => json!({"type": "array", "items": self.around(item, inner)}),
            FieldKind::Map(value) => {
                json!({"type": "object", "additionalProperties": self.around(value, inner)})
            }
            _ => inner,
        }
    }

    fn kind(&self, kind: &FieldKind, field: Option<&Field>) -> Value {
        match kind {
            FieldKind::String => json!({"type": "string"}),
            FieldKind::Int32 => json!({"type": "integer", "format": "int32"}),
            FieldKind::Int64 => json!({"type": "integer", "format": "int64"}),
            FieldKind::Double => json!({"type": "number", "format": "double"}),
            FieldKind::Bool => json!({"type": "boolean"}),
            FieldKind::Bytes => json!({"type": "string", "format": "byte"}),
            FieldKind::Object(id) => reference(self.dialect, &self.table.type_(*id).name),
            FieldKind::List(item) => {
                let mut items = self.kind(item, None);
                if let Some(values) = field.map(|f| &f.enum_values).filter(|v| !v.is_empty()) {
                    items["enum"] = json!(values);
                }
                json!({"type": "array", "items": items})
            }
            FieldKind::Map(value) => {
                json!({"type": "object", "additionalProperties": self.kind(value, None)})
            }
            // The rest are leaves.
            _ => json!({}),
        }
    }
}

/// The schema without fields that a field refers to, alone or in lists and maps.
fn leaf_of(type_: &Type, field: &Field) -> Option<&'static str> {
    let mut kind = &field.kind;
    while let FieldKind::List(inner) | FieldKind::Map(inner) = kind {
        kind = inner;
    }
    Some(match kind {
        FieldKind::Quantity => QUANTITY,
        FieldKind::IntOrString => INT_OR_STRING,
        FieldKind::Time => TIME,
        FieldKind::MicroTime => MICRO_TIME,
        FieldKind::Duration => DURATION,
        FieldKind::Raw if &*field.json_name == "fieldsV1" => FIELDS,
        FieldKind::Raw => RAW,
        FieldKind::Json => JSON,
        FieldKind::Either(_) if type_.short_name() != "JSONSchemaProps" => return None,
        FieldKind::Either(_) => match &*field.json_name {
            "items" => SCHEMA_OR_ARRAY,
            "dependencies" => SCHEMA_OR_STRINGS,
            _ => SCHEMA_OR_BOOL,
        },
        _ => return None,
    })
}

/// What stands for an absent value that is no pointer; nothing for lists, maps and what is a pointer in itself.
fn zero(kind: &FieldKind) -> Option<Value> {
    Some(match kind {
        FieldKind::String | FieldKind::Bytes => json!(""),
        FieldKind::Int32 | FieldKind::Int64 | FieldKind::Double => json!(0),
        FieldKind::Bool => json!(false),
        FieldKind::Object(_) | FieldKind::Quantity | FieldKind::Raw => json!({}),
        _ => return None,
    })
}

fn wrap_reference(schema: &mut Value) {
    let reference = schema.as_object_mut().and_then(|schema| schema.remove("$ref"));
    if let Some(reference) = reference {
        schema["allOf"] = json!([{"$ref": reference}]);
    }
}

/// Of which kind a list is one.
fn list_of(type_: &Type) -> Option<&str> {
    let kind = type_.short_name().strip_suffix("List")?;
    type_.field("items").and(type_.field("metadata")).map(|_| kind)
}

/// What the published documents say of the fields that every object or list has; clients look for these words.
pub(super) const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
pub(super) const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
pub(super) const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
pub(super) const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// What the fields of a list mean, which nobody else says.
fn describe_list(properties: &mut Map<String, Value>, kind: &str) {
    for (field, text) in [
        ("apiVersion", API_VERSION.to_owned()),
        ("kind", KIND.to_owned()),
        ("metadata", LIST_METADATA.to_owned()),
        ("items", format!("The objects of kind {kind}.")),
    ] {
        if let Some(property) = properties.get_mut(field).filter(|p| p.get("description").is_none()) {
            describe(property, Some(&text));
        }
    }
}

/// Adds the values that a field can have to what it means.
fn describe_enum(description: &mut Option<String>, values: &[std::sync::Arc<str>]) {
    let values: Vec<String> = values.iter().map(|value| format!(" - `\"{value}\"`")).collect();
    let text = description.get_or_insert_default();
    let gap = if text.is_empty() { "" } else { "\n\n" };
    text.push_str(&format!("{gap}Possible enum values:\n{}", values.join("\n")));
}

/// The kinds that objects of a type can be of.
fn kinds(type_: &Type) -> Vec<Value> {
    let Some([group, version, kind]) = &type_.kind else { return Vec::new() };
    if !matches!(&**kind, "DeleteOptions" | "WatchEvent") {
        return vec![json!({"group": group, "version": version, "kind": kind})];
    }
    let versions = facts::versions().iter();
    versions.map(|(group, version)| json!({"group": group, "version": version, "kind": kind})).collect()
}

/// What clients need for apply and strategic merge.
fn extensions(field: &Field, out: &mut Value) {
    match field.list_type {
        ListType::Unset => {}
        ListType::Atomic => out["x-kubernetes-list-type"] = json!("atomic"),
        ListType::Set => out["x-kubernetes-list-type"] = json!("set"),
        ListType::Map => out["x-kubernetes-list-type"] = json!("map"),
    }
    if !field.map_keys.is_empty() {
        out["x-kubernetes-list-map-keys"] = json!(field.map_keys);
    }
    if field.atomic {
        out["x-kubernetes-map-type"] = json!("atomic");
    }
    if let Some(key) = &field.merge_key {
        out["x-kubernetes-patch-merge-key"] = json!(key);
    }
    let strategy = field.patch_strategy;
    let names =
        [(strategy.merge, "merge"), (strategy.replace, "replace"), (strategy.retain_keys, "retainKeys")];
    let names: Vec<&str> = names.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    if !names.is_empty() {
        out["x-kubernetes-patch-strategy"] = json!(names.join(","));
    }
}
