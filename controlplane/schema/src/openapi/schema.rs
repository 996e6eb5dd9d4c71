//! Schemas of types. It must not know paths or operations.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Descriptions, Dialect};
use crate::table::{Field, FieldKind, ListType, Table, Type, TypeId};

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

/// A reference to a schema.
pub(super) fn reference(dialect: Dialect, name: &str) -> Value {
    match dialect {
        Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
        Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}

/// The schemas of the types and of all they refer to, by name.
pub(super) fn closure(
    table: &Table,
    dialect: Dialect,
    roots: &[TypeId],
    descriptions: &dyn Descriptions,
) -> Map<String, Value> {
    let mut waiting: Vec<TypeId> = roots.to_vec();
    let mut seen: BTreeSet<TypeId> = BTreeSet::new();
    let mut writer = Writer { table, dialect, descriptions, leaves: BTreeSet::from([PATCH]) };
    let mut out = Map::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let type_ = table.type_(id);
        out.insert(type_.name.to_string(), writer.object(type_));
        waiting.extend(type_.fields.iter().filter_map(|field| referred(&field.kind)));
    }
    for leaf in &writer.leaves {
        let mut schema = leaf_schema(dialect, leaf);
        describe(&mut schema, descriptions.type_(leaf).as_deref());
        out.insert((*leaf).to_owned(), schema);
    }
    out
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
        JSON => json!({}),
        _ => json!({"type": "object"}),
    }
}

struct Writer<'a> {
    table: &'a Table,
    dialect: Dialect,
    descriptions: &'a dyn Descriptions,
    leaves: BTreeSet<&'static str>,
}

impl Writer<'_> {
    fn object(&mut self, type_: &Type) -> Value {
        let mut properties = Map::new();
        for field in &type_.fields {
            properties.insert(field.json_name.to_string(), self.property(type_, field));
        }
        let mut out = json!({"type": "object"});
        describe(&mut out, self.descriptions.type_(&type_.name).as_deref());
        if !properties.is_empty() {
            out["properties"] = Value::Object(properties);
        }
        let required: Vec<&str> = type_.fields.iter().filter(|f| f.required).map(|f| &*f.json_name).collect();
        if !required.is_empty() {
            out["required"] = json!(required);
        }
        if type_.atomic {
            out["x-kubernetes-map-type"] = json!("atomic");
        }
        let kinds = self.kinds(type_);
        if !kinds.is_empty() {
            out["x-kubernetes-group-version-kind"] = Value::Array(kinds);
        }
        out
    }

    /// The kinds that objects of this type can be of.
    fn kinds(&self, type_: &Type) -> Vec<Value> {
        let Some([group, version, kind]) = &type_.kind else { return Vec::new() };
        if !matches!(&**kind, "DeleteOptions" | "WatchEvent") {
            return vec![json!({"group": group, "version": version, "kind": kind})];
        }
        let versions = self
            .table
            .groups()
            .flat_map(|group| self.table.versions(group).map(move |version| (group, version)));
        versions.map(|(group, version)| json!({"group": group, "version": version, "kind": kind})).collect()
    }

    fn property(&mut self, type_: &Type, field: &Field) -> Value {
        let mut out = self.kind(&field.kind, Some(field));
        if self.dialect == Dialect::V3
            && let Some(reference) = out.as_object_mut().and_then(|o| o.remove("$ref"))
        {
            out["allOf"] = json!([{"$ref": reference}]);
        }
        describe(&mut out, self.descriptions.field(&type_.name, &field.json_name).as_deref());
        if let (Dialect::V3, Some(default)) = (self.dialect, &field.default) {
            out["default"] = default.clone();
        }
        if !field.enum_values.is_empty() && matches!(field.kind, FieldKind::String) {
            out["enum"] = json!(field.enum_values);
        }
        extensions(field, &mut out);
        out
    }

    fn kind(&mut self, kind: &FieldKind, field: Option<&Field>) -> Value {
        match kind {
            FieldKind::String => json!({"type": "string"}),
            FieldKind::Int32 => json!({"type": "integer", "format": "int32"}),
            FieldKind::Int64 => json!({"type": "integer", "format": "int64"}),
            FieldKind::Double => json!({"type": "number", "format": "double"}),
            FieldKind::Bool => json!({"type": "boolean"}),
            FieldKind::Bytes => json!({"type": "string", "format": "byte"}),
            FieldKind::Quantity => self.leaf(QUANTITY),
            FieldKind::IntOrString => self.leaf(INT_OR_STRING),
            FieldKind::Time => self.leaf(TIME),
            FieldKind::MicroTime => self.leaf(MICRO_TIME),
            FieldKind::Duration => self.leaf(DURATION),
            FieldKind::Raw if field.is_some_and(|f| &*f.json_name == "fieldsV1") => self.leaf(FIELDS),
            FieldKind::Raw => self.leaf(RAW),
            FieldKind::Json => self.leaf(JSON),
            FieldKind::Either(_) => json!({}),
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
        }
    }

    fn leaf(&mut self, name: &'static str) -> Value {
        self.leaves.insert(name);
        reference(self.dialect, name)
    }
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
