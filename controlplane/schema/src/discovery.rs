//! Discovery documents: which groups, versions and resources are served. It must not know of custom resources or of
//! aggregated servers; whoever does adds them to what these functions answer.

use serde_json::{Map, Value, json};

use crate::table::{Resource, Subresource, Table};

/// Aggregated discovery (`APIGroupDiscoveryList`) of `/api` (the core group) or of `/apis` (all others).
/// `version` is `v2` or `v2beta1`, the version of the document.
pub fn aggregated(table: &Table, core: bool, version: &str) -> Value {
    let groups = table.groups().filter(|group| group.is_empty() == core);
    let items: Vec<Value> = groups.map(|group| aggregated_group(table, group)).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items})
}

/// One group's entry of aggregated discovery.
pub fn aggregated_group(table: &Table, group: &str) -> Value {
    let versions: Vec<Value> = table
        .versions(group)
        .map(|version| {
            let resources: Vec<Value> = served(table, group, version).map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    json!({"metadata": metadata, "versions": versions})
}

fn served<'t>(table: &'t Table, group: &'t str, version: &'t str) -> impl Iterator<Item = &'t Resource> {
    table.resources().iter().filter(move |r| &*r.group == group && &*r.version == version)
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut out = Map::new();
    out.insert("resource".to_owned(), json!(resource.plural));
    out.insert("responseKind".to_owned(), json!({"group": "", "version": "", "kind": resource.kind}));
    out.insert("scope".to_owned(), json!(if resource.namespaced { "Namespaced" } else { "Cluster" }));
    out.insert("singularResource".to_owned(), json!(resource.singular));
    out.insert("verbs".to_owned(), json!(resource.verbs));
    for (key, list) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !list.is_empty() {
            out.insert(key.to_owned(), json!(list));
        }
    }
    if !resource.subresources.is_empty() {
        let subs: Vec<Value> =
            resource.subresources.iter().map(|sub| aggregated_subresource(resource, sub)).collect();
        out.insert("subresources".to_owned(), Value::Array(subs));
    }
    Value::Object(out)
}

fn aggregated_subresource(resource: &Resource, sub: &Subresource) -> Value {
    let kind = if foreign(resource, sub) {
        json!({"group": sub.kind.group, "version": sub.kind.version, "kind": sub.kind.kind})
    } else {
        json!({"group": "", "version": "", "kind": sub.kind.kind})
    };
    json!({"subresource": sub.name, "responseKind": kind, "verbs": sub.verbs})
}

fn foreign(resource: &Resource, sub: &Subresource) -> bool {
    (&sub.kind.group, &sub.kind.version) != (&resource.group, &resource.version)
}

/// `/api`: the versions of the core group. `address` is where clients reach the server, as `host:port`.
pub fn api_versions(table: &Table, address: &str) -> Value {
    let versions: Vec<&str> = table.versions("").collect();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`: every group but core.
pub fn api_groups(table: &Table) -> Value {
    let groups: Vec<Value> =
        table.groups().filter(|g| !g.is_empty()).map(|group| group_entry(table, group)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn api_group(table: &Table, group: &str) -> Option<Value> {
    table.versions(group).next()?;
    let mut entry = group_entry(table, group);
    entry["kind"] = json!("APIGroup");
    entry["apiVersion"] = json!("v1");
    Some(entry)
}

fn group_entry(table: &Table, group: &str) -> Value {
    let versions: Vec<Value> = table
        .versions(group)
        .map(|v| json!({"groupVersion": format!("{group}/{v}"), "version": v}))
        .collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

/// `/api/v1` or `/apis/GROUP/VERSION`: the resources of a version.
pub fn api_resource_list(table: &Table, group: &str, version: &str) -> Option<Value> {
    table.versions(group).find(|v| *v == version)?;
    let mut resources = Vec::new();
    for resource in served(table, group, version) {
        resources.push(legacy_resource(resource));
        resources.extend(resource.subresources.iter().map(|sub| legacy_subresource(resource, sub)));
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut out = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        out["apiVersion"] = json!("v1");
    }
    Some(out)
}

fn legacy_resource(resource: &Resource) -> Value {
    let mut out = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    for (key, list) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !list.is_empty() {
            out[key] = json!(list);
        }
    }
    if !resource.storage_version_hash.is_empty() {
        out["storageVersionHash"] = json!(resource.storage_version_hash);
    }
    out
}

fn legacy_subresource(resource: &Resource, sub: &Subresource) -> Value {
    let mut out = json!({
        "name": format!("{}/{}", resource.plural, sub.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": sub.kind.kind,
        "verbs": sub.verbs,
    });
    if foreign(resource, sub) {
        out["group"] = json!(sub.kind.group);
        out["version"] = json!(sub.kind.version);
    }
    out
}

#[cfg(test)]
mod tests;
