//! OpenAPI documents, built on demand from the table and from custom resources' definitions: one of version 2 for everything, one of
//! version 3 per group and version. Descriptions come from whoever has them. It must not know who asks.

mod custom;
mod document;
mod facts;
mod operation;
mod parameters;
mod paths;
mod places;
mod protobuf;
mod schema;
mod v3;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Value, json};

use crate::table::{Resource, Table};
use document::Pieces;
use operation::{Answer, Operation};
use paths::Path;

pub use document::Format;
pub use protobuf::{V2_PROTOBUF, V2_PROTOBUF_ASKED};
pub use v3::{V3_PROTOBUF, V3_PROTOBUF_ASKED};

/// What types and fields mean, in words. The table has no prose of its own.
pub trait Descriptions {
    /// What a type is, by its full name (`io.k8s.api.core.v1.Pod`).
    fn type_(&self, name: &str) -> Option<Cow<'_, str>>;
    /// What a field is, by its type's full name and its JSON name.
    fn field(&self, type_name: &str, field: &str) -> Option<Cow<'_, str>>;
}

/// No descriptions at all.
#[derive(Debug, Clone, Copy)]
pub struct NoDescriptions;

impl Descriptions for NoDescriptions {
    fn type_(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn field(&self, _type_name: &str, _field: &str) -> Option<Cow<'_, str>> {
        None
    }
}

/// Where descriptions come from, a package at a time: all together they are large.
pub trait Prose {
    /// Those of the types of a package (`io.k8s.api.core.v1`).
    fn of_package(&self, package: &str) -> Box<dyn Descriptions + '_>;
}

impl Prose for NoDescriptions {
    fn of_package(&self, _package: &str) -> Box<dyn Descriptions + '_> {
        Box::new(Self)
    }
}

/// The two document versions differ in where schemas stand and in how references are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

const TITLE: &str = "Kubernetes";

/// A resource in one version.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// Its types.
    pub table: &'a Table,
    /// The resource.
    pub resource: &'a Resource,
    /// What its definition says of its objects, for a custom resource: a schema of version 3.
    pub custom: Option<Cow<'a, Value>>,
}

impl Part<'_> {
    /// The name of the objects' schema.
    fn name(&self) -> String {
        match self.custom {
            Some(_) => custom::name(self.resource, &self.resource.kind),
            None => self.table.type_(self.resource.type_id).name.to_string(),
        }
    }

    /// The name of the lists' schema.
    fn list_name(&self) -> String {
        let resource = self.resource;
        let list = self.table.kind_type(&resource.group, &resource.version, &resource.list_kind);
        match list.filter(|_| self.custom.is_none()) {
            Some(id) => self.table.type_(id).name.to_string(),
            None => custom::name(resource, &resource.list_kind),
        }
    }
}

/// A version of a group, and what is served in it.
#[derive(Debug, Clone)]
pub struct Version<'a> {
    /// The group; empty for core.
    pub group: &'a str,
    /// The version.
    pub version: &'a str,
    /// Its resources.
    pub parts: Vec<Part<'a>>,
}

impl<'a> Version<'a> {
    /// Everything that a table has, by group and version.
    pub fn all_of(table: &'a Table) -> Vec<Self> {
        let versions =
            table.groups().flat_map(|group| table.versions(group).map(move |version| (group, version)));
        let mut versions: Vec<Self> = versions
            .map(|(group, version)| {
                let resources = table.resources().iter();
                let of_version = resources.filter(|r| &*r.group == group && &*r.version == version);
                let parts = of_version.map(|resource| Part { table, resource, custom: None }).collect();
                Self { group, version, parts }
            })
            .collect();
        versions.sort_by_key(|v| (v.group, v.version));
        versions
    }

    fn is_custom(&self) -> bool {
        self.parts.iter().all(|part| part.custom.is_some())
    }
}

/// The path below which a group's version is.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// The document of version 2: everything that is served, the versions sorted by group and version. `table` has the types of all objects
/// but the custom ones.
pub fn v2(
    table: &Table,
    versions: &[Version<'_>],
    prose: &dyn Prose,
    version: &str,
    format: Format,
) -> Vec<u8> {
    let mut paths = Pieces::new(format, 2, protobuf::path_item);
    let mut roots = BTreeSet::new();
    let mut put = |(path, operations): Path| {
        roots.extend(schemas_of(&operations));
        paths.put(&path, &operation::path_item(Dialect::V2, &operations));
    };
    let mut group = None;
    for version in versions {
        if !version.is_custom() {
            if group.replace(version.group) != Some(version.group) {
                put(places::of_group(version.group));
            }
            put(places::of_version(version.group, version.version));
        }
        paths::of_version(version).into_iter().for_each(&mut put);
    }
    places::others().into_iter().for_each(put);
    let mut definitions = Pieces::new(format, 1, protobuf::schema);
    write_schemas(table, Dialect::V2, roots, versions, prose, |name, schema| definitions.put(name, &schema));
    let frame = json!({
        "swagger": "2.0",
        "info": {"title": TITLE, "version": version},
        "parameters": parameters::shared(),
        "security": [{"BearerToken": []}],
        "securityDefinitions": {"BearerToken": bearer(Dialect::V2)},
    });
    document::join(&frame, paths, ("definitions", definitions), protobuf::document)
}

/// Writes the schemas that operations speak of, the custom ones last.
fn write_schemas(
    table: &Table,
    dialect: Dialect,
    mut roots: BTreeSet<String>,
    versions: &[Version<'_>],
    prose: &dyn Prose,
    mut put: impl FnMut(&str, Value),
) {
    let parts = versions.iter().flat_map(|version| &version.parts);
    let custom: Vec<_> = parts.filter_map(|part| Some((part, part.custom.as_deref()?))).collect();
    for (part, _) in &custom {
        roots.remove(&part.name());
        roots.remove(&part.list_name());
        for meta in ["ObjectMeta", "ListMeta"] {
            roots.insert(format!("io.k8s.apimachinery.pkg.apis.meta.v1.{meta}"));
        }
    }
    schema::closure(table, dialect, roots, prose, &mut put);
    for (part, given) in custom {
        put(&part.name(), custom::object(dialect, part.resource, given));
        put(&part.list_name(), custom::list(dialect, part.resource));
    }
}

/// The names of the schemas that operations take and answer.
fn schemas_of(operations: &[Operation]) -> impl Iterator<Item = String> {
    operations.iter().flat_map(|operation| {
        let answer = match &operation.answer {
            Answer::Schema(name) => Some(name.clone()),
            Answer::Text => None,
        };
        operation.body.clone().into_iter().chain(answer)
    })
}

/// The names of the documents of version 3 there are: of each group and version, and of what is of none.
pub fn v3_names(versions: &[Version<'_>]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> =
        places::others().into_iter().map(|(path, _)| path.trim_matches('/').to_owned()).collect();
    for version in versions {
        names.insert(root(version.group, version.version)[1..].to_owned());
        if !version.is_custom() {
            let (path, _) = places::of_group(version.group);
            names.insert(path.trim_matches('/').to_owned());
        }
    }
    names
}

/// The document of version 3 of this name, such as `apis/apps/v1`, of the versions that are served; `None` if there is no such one.
pub fn v3(
    table: &Table,
    name: &str,
    versions: &[Version<'_>],
    prose: &dyn Prose,
    version: &str,
    format: Format,
) -> Option<Vec<u8>> {
    let is_named = |path: &Path| path.0.trim_matches('/') == name;
    let served = versions.iter().find(|v| root(v.group, v.version)[1..] == *name);
    let found: Vec<Path> = match served {
        Some(served) => std::iter::once(places::of_version(served.group, served.version))
            .chain(paths::of_version(served))
            .collect(),
        None => {
            let groups = versions.iter().filter(|v| !v.is_custom()).map(|v| places::of_group(v.group));
            vec![places::others().into_iter().chain(groups).find(is_named)?]
        }
    };
    let roots = found.iter().flat_map(|(_, operations)| schemas_of(operations)).collect();
    let mut paths = Pieces::new(format, 1, v3::path_item);
    for (path, operations) in &found {
        paths.put(path, &operation::path_item(Dialect::V3, operations));
    }
    let mut schemas = Pieces::new(format, 1, v3::schema_or_reference);
    let only = served.map_or(&[][..], std::slice::from_ref);
    write_schemas(table, Dialect::V3, roots, only, prose, |name, schema| schemas.put(name, &schema));
    // Schemas stand among the components, of which the other ones are few.
    let components = match schemas {
        Pieces::Json(mut schemas) => {
            schemas.splice(0..0, br#"{"schemas":"#.iter().copied());
            let schemes = json!({"BearerToken": bearer(Dialect::V3)});
            schemas.extend_from_slice(format!("}},\"securitySchemes\":{schemes}").as_bytes());
            Pieces::Json(schemas)
        }
        schemas => schemas,
    };
    let frame = json!({
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": version},
        "security": [{"BearerToken": []}],
    });
    Some(document::join(&frame, paths, ("components", components), v3::document))
}

/// Names the content of one document of version 3. Equal in every process of one build; the definitions of custom resources count.
pub fn content_hash(table: &Table, name: &str, versions: &[Version<'_>]) -> String {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), table.digest(), name).hash(&mut hasher);
    let served = versions.iter().filter(|v| root(v.group, v.version)[1..] == *name);
    for part in served.flat_map(|version| &version.parts) {
        (&part.resource.plural, part.custom.as_ref().map(|schema| schema.to_string())).hash(&mut hasher);
    }
    format!("{:016X}", hasher.finish())
}

fn bearer(dialect: Dialect) -> Value {
    let mut out = json!({"type": "apiKey", "name": "authorization", "in": "header"});
    if dialect == Dialect::V2 {
        out["description"] = json!("Bearer Token authentication");
    }
    out
}

#[cfg(test)]
mod tests;
