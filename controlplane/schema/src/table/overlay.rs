//! Tables of custom resources: their types, made of structural schemas, above the types of the program. It must not know what the
//! schemas say of values.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Field, FieldKind, Index, ListType, PatchStrategy, Presence, Resource, Table, Type, TypeId};
use crate::structural::{META_FIELDS, Schema, Type as Kind};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

impl Table {
    /// The table of one custom resource in all its versions, above `base`, whose types it shares. The resources' `type_id` is set here.
    pub fn overlay(base: &Arc<Table>, versions: Vec<(Resource, &Schema)>) -> Table {
        let mut room = Room {
            first: base.types.len(),
            types: Vec::new(),
            metadata: base.type_named(OBJECT_META).map_or(FieldKind::Json, FieldKind::Object),
            nameless: "".into(),
        };
        let list_metadata = base.type_named(LIST_META).map_or(FieldKind::Json, FieldKind::Object);
        let (mut by_name, mut kinds, mut resources) = (HashMap::new(), Vec::new(), Vec::new());
        for (mut resource, schema) in versions {
            let id = room.object(schema, true);
            let of_kind = |kind: &Arc<str>| [resource.group.clone(), resource.version.clone(), kind.clone()];
            let name = |kind: &str| -> Arc<str> {
                let group: Vec<&str> = resource.group.split('.').rev().collect();
                format!("{}.{}.{kind}", group.join("."), resource.version).into()
            };
            room.name(id, name(&resource.kind), of_kind(&resource.kind));
            let items = FieldKind::List(Box::new(FieldKind::Object(id)));
            let list = room.add(vec![
                field("apiVersion", FieldKind::String),
                Field { required: true, ..field("items", items) },
                field("kind", FieldKind::String),
                field("metadata", list_metadata.clone()),
            ]);
            room.name(list, name(&resource.list_kind), of_kind(&resource.list_kind));
            for (id, kind) in [(id, &resource.kind), (list, &resource.list_kind)] {
                by_name.insert(name(kind), id);
                kinds.push((of_kind(kind), id));
            }
            resource.type_id = id;
            resources.push(Arc::new(resource));
        }
        let places = resources.iter().enumerate();
        let by_resource = places.map(|(at, r)| ([r.group.clone(), r.version.clone(), r.plural.clone()], at));
        let groups = resources.first().map(|first| {
            let versions = resources.iter().map(|r| r.version.clone()).collect();
            (first.group.clone(), versions)
        });
        Table {
            base: Some(base.clone()),
            by_resource: Index::new(by_resource.collect()),
            types: room.types,
            by_name,
            by_kind: Index::new(kinds),
            resources,
            groups: groups.into_iter().collect(),
            digest: base.digest,
        }
    }
}

/// The types being made.
struct Room {
    first: usize,
    types: Vec<Type>,
    metadata: FieldKind,
    nameless: Arc<str>,
}

fn field(name: &str, kind: FieldKind) -> Field {
    Field {
        json_name: name.into(),
        kind,
        required: false,
        presence: Presence::AsGiven,
        list_type: ListType::Unset,
        map_keys: Vec::new(),
        atomic: false,
        patch_strategy: PatchStrategy::default(),
        merge_key: None,
        default: None,
        enum_values: Vec::new(),
        go_type: None,
        embedded: Vec::new(),
        proto_path: Vec::new(),
    }
}

impl Room {
    fn add(&mut self, fields: Vec<Field>) -> TypeId {
        let name = self.nameless.clone();
        self.types.push(Type { name, fields, atomic: false, open: false, kind: None });
        TypeId((self.first + self.types.len() - 1) as u32)
    }

    fn name(&mut self, id: TypeId, name: Arc<str>, kind: [Arc<str>; 3]) {
        let type_ = &mut self.types[id.0 as usize - self.first];
        type_.name = name;
        type_.kind = Some(kind);
    }

    /// The type of an object with the fields that its schema names; a root has those of every object.
    fn object(&mut self, schema: &Schema, root: bool) -> TypeId {
        let whole = root || schema.embedded;
        let mut fields: Vec<Field> = Vec::with_capacity(schema.properties.len() + 3);
        for (name, of_field) in &schema.properties {
            if !(whole && META_FIELDS.contains(&&**name)) {
                fields.push(self.field(name, of_field));
            }
        }
        if whole {
            fields.push(field("apiVersion", FieldKind::String));
            fields.push(field("kind", FieldKind::String));
            let metadata = self.metadata.clone();
            // The root's metadata is typed like everybody's; that of embedded objects stays as it was given.
            let presence = if root { Presence::Always } else { Presence::AsGiven };
            fields.push(Field { presence, ..field("metadata", metadata) });
        }
        fields.sort_by(|a, b| a.json_name.cmp(&b.json_name));
        let id = self.add(fields);
        let type_ = &mut self.types[id.0 as usize - self.first];
        (type_.atomic, type_.open) = (schema.atomic, schema.preserve);
        id
    }

    fn field(&mut self, name: &str, schema: &Schema) -> Field {
        Field {
            list_type: schema.list_type,
            map_keys: schema.map_keys.iter().map(|key| (&**key).into()).collect(),
            atomic: schema.atomic,
            default: schema
                .default
                .as_deref()
                .filter(|value| !value.is_object() && !value.is_array())
                .cloned(),
            ..field(name, self.kind(schema))
        }
    }

    fn kind(&mut self, schema: &Schema) -> FieldKind {
        if schema.int_or_string {
            return FieldKind::Json;
        }
        match schema.type_ {
            Kind::Object => match schema.additional_schema() {
                Some(of_others) => FieldKind::Map(Box::new(self.kind(of_others))),
                None if schema.properties.is_empty() && !schema.embedded => FieldKind::Json,
                None => FieldKind::Object(self.object(schema, false)),
            },
            Kind::Array => {
                let items = schema.items.as_ref().map_or(FieldKind::Json, |items| self.kind(items));
                FieldKind::List(Box::new(items))
            }
            Kind::String => FieldKind::String,
            Kind::Integer => FieldKind::Int64,
            Kind::Number => FieldKind::Double,
            Kind::Boolean => FieldKind::Bool,
            Kind::Any => FieldKind::Json,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::normalize;
    use crate::table::Storage;
    use serde_json::json;

    fn resource(version: &str) -> Resource {
        let text = |text: &str| -> Arc<str> { text.into() };
        Resource {
            group: text("example.org"),
            version: text(version),
            plural: text("widgets"),
            singular: text("widget"),
            kind: text("Widget"),
            list_kind: text("WidgetList"),
            namespaced: true,
            verbs: Vec::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            subresources: Vec::new(),
            storage: Storage { group: text("example.org"), version: text("v1"), plural: text("widgets") },
            storage_version: text("v1"),
            storage_version_hash: text(""),
            type_id: TypeId(0),
            columns: Vec::new(),
        }
    }

    #[test]
    fn types_stand_above_those_of_the_program() {
        let base = Table::builtin();
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                      "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}));
        let table = Table::overlay(base, vec![(resource("v1"), &schema), (resource("v2"), &schema)]);
        let id = table.kind_type("example.org", "v2", "Widget").unwrap();
        assert_eq!(&*table.type_(id).name, "org.example.v2.Widget");
        assert_eq!(table.kind_type("", "v1", "Pod"), base.kind_type("", "v1", "Pod"));
        assert!(table.kind_type("example.org", "v1", "WidgetList").is_some());
        let spec = table.type_(table.type_(id).field("spec").unwrap().kind.object().unwrap());
        assert_eq!(spec.field("l").unwrap().list_type, ListType::Map);
        assert_eq!(spec.field("free").unwrap().kind, FieldKind::Json);
        let mut value =
            json!({"metadata": {"name": "a", "labels": {}}, "spec": {"l": [], "free": null}, "other": {}});
        normalize(&table, id, &mut value);
        assert_eq!(value, json!({"metadata": {"name": "a"}, "spec": {"l": [], "free": null}, "other": {}}));
    }
}
