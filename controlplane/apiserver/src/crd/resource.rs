//! A version of a custom resource as the registry knows resources. Pure: a definition in, a row of discovery out.

use std::sync::Arc;

use base64::Engine as _;
use pagurus_controlplane_schema::Table;
use pagurus_controlplane_schema::table::{GroupKind, Resource, Storage, Subresource};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Custom, Version};
use crate::resources::fields::Fields;

/// What a custom resource can do, in discovery's order.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// A version as a resource.
pub(super) fn resource_of(definition: &Value, custom: &Custom, version: &Version) -> Resource {
    let names = definition.at("spec.names");
    let group: Arc<str> = definition.text("spec.group").into();
    let texts = |name: &str| names.texts(name).map(Arc::from).collect();
    let verbs = |verbs: &[&str]| verbs.iter().map(|verb| Arc::from(*verb)).collect::<Vec<Arc<str>>>();
    let kind = |group: &str, version: &str, kind: &str| GroupKind {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
    };
    let subresource = |name: &str, kind: GroupKind| Subresource {
        name: name.into(),
        verbs: verbs(&["get", "patch", "update"]),
        type_id: Table::builtin().kind_type(&kind.group, &kind.version, &kind.kind),
        kind,
    };
    let mut subresources = Vec::new();
    if version.scale.is_some() {
        subresources.push(subresource("scale", kind("autoscaling", "v1", "Scale")));
    }
    if version.has_status {
        subresources.push(subresource("status", kind(&group, &version.name, names.text("kind"))));
    }
    let deleting = definition.has("metadata.deletionTimestamp");
    let storage_version = custom.storage().name.clone();
    let plural: Arc<str> = names.text("plural").into();
    Resource {
        version: version.name.clone(),
        singular: names.text("singular").into(),
        kind: names.text("kind").into(),
        list_kind: names.text("listKind").into(),
        namespaced: definition.text("spec.scope") == "Namespaced",
        // Nothing new comes to what is going away.
        verbs: verbs(
            &VERBS.iter().copied().filter(|verb| !(deleting && *verb == "create")).collect::<Vec<_>>(),
        ),
        short_names: texts("shortNames"),
        categories: texts("categories"),
        subresources,
        storage: Storage { group: group.clone(), version: storage_version.clone(), plural: plural.clone() },
        storage_version_hash: storage_hash(&group, &storage_version, names.text("kind")).into(),
        storage_version,
        type_id: any_type(),
        columns: Vec::new(),
        plural,
        group,
    }
}

/// Any type: the table sets that of a custom resource when it is made.
fn any_type() -> pagurus_controlplane_schema::TypeId {
    Table::builtin().resources()[0].type_id
}

/// Names the form that objects are stored in: the first eight bytes of the digest of group, version and kind.
fn storage_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}
