//! OpenAPI documents, built on demand from the table: one of version 2 for everything, one of version 3 per group and
//! version. Descriptions come from whoever has them. It must not know custom resources; their documents are added later.

mod operation;
mod paths;
mod protobuf;
mod schema;

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Map, Value, json};

use crate::table::{Table, TypeId};

pub use protobuf::{V2_PROTOBUF, V2_PROTOBUF_ASKED, encode_v2};

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

/// The two document versions differ in where schemas stand and in how references are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

const TITLE: &str = "Kubernetes";

/// The document of version 2: everything that is served.
pub fn v2(table: &Table, descriptions: &dyn Descriptions, version: &str) -> Value {
    let mut roots: Vec<TypeId> = Vec::new();
    let mut all = Map::new();
    for group in table.groups() {
        for group_version in table.versions(group) {
            let (paths, types) = paths::of_version(table, Dialect::V2, group, group_version);
            all.extend(paths);
            roots.extend(types);
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": TITLE, "version": version},
        "paths": all,
        "definitions": schema::closure(table, Dialect::V2, &roots, descriptions),
        "security": [{"BearerToken": []}],
        "securityDefinitions": {"BearerToken": bearer(Dialect::V2)},
    })
}

/// The document of version 3 for one group and version; `None` if that is not served.
pub fn v3(
    table: &Table,
    group: &str,
    group_version: &str,
    descriptions: &dyn Descriptions,
    version: &str,
) -> Option<Value> {
    table.versions(group).find(|v| *v == group_version)?;
    let (paths, types) = paths::of_version(table, Dialect::V3, group, group_version);
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": version},
        "paths": paths,
        "components": {
            "schemas": schema::closure(table, Dialect::V3, &types, descriptions),
            "securitySchemes": {"BearerToken": bearer(Dialect::V3)},
        },
        "security": [{"BearerToken": []}],
    }))
}

/// `/openapi/v3`: where the documents of the served groups and versions are. The hash in each address names the content,
/// so that clients can cache it for good.
pub fn v3_index(table: &Table) -> Value {
    let mut paths = Map::new();
    for group in table.groups() {
        for version in table.versions(group) {
            let path =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let address = format!("/openapi/v3/{path}?hash={}", content_hash(table, group, version));
            paths.insert(path, json!({"serverRelativeURL": address}));
        }
    }
    json!({"paths": paths})
}

/// Names the content of one document. Equal in every process of one build.
pub fn content_hash(table: &Table, group: &str, version: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), table.digest(), group, version).hash(&mut hasher);
    format!("{:016X}", hasher.finish())
}

fn bearer(dialect: Dialect) -> Value {
    let mut out = json!({"type": "apiKey", "name": "authorization", "in": "header"});
    if dialect == Dialect::V2 {
        out["description"] = json!("Bearer token authentication");
    }
    out
}

#[cfg(test)]
mod tests;
