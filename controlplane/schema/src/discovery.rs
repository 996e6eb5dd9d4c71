//! Discovery documents: which groups, versions and resources are served. It must not know who serves them, nor how long the
//! documents are good for.

use serde_json::{Map, Value, json};

use crate::table::{Resource, Subresource};

/// Aggregated discovery (`APIGroupDiscoveryList`) of groups whose entries are written already, see [`aggregated_group`]. `version` is
/// `v2` or `v2beta1`, the version of the document.
pub fn aggregated<'a>(groups: impl Iterator<Item = &'a str>, version: &str) -> String {
    let mut out = format!("{{\"apiVersion\":\"apidiscovery.k8s.io/{version}\",\"items\":[");
    for (at, group) in groups.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(group);
    }
    out.push_str("],\"kind\":\"APIGroupDiscoveryList\",\"metadata\":{}}");
    out
}

/// One group's entry of aggregated discovery: its versions, the preferred one first, each with its resources.
pub fn aggregated_group<'a, R>(group: &str, versions: impl Iterator<Item = (&'a str, R)>) -> Value
where
    R: Iterator<Item = &'a Resource>,
{
    let versions: Vec<Value> = versions
        .map(|(version, resources)| {
            let resources: Vec<Value> = resources.map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    json!({"metadata": metadata, "versions": versions})
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
pub fn api_versions(versions: &[&str], address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`: every group but core, each with its versions, the preferred one first.
pub fn api_groups<'a>(groups: impl Iterator<Item = (&'a str, Vec<&'a str>)>) -> Value {
    let groups: Vec<Value> = groups.map(|(group, versions)| group_entry(group, &versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn api_group(group: &str, versions: &[&str]) -> Value {
    let mut entry = group_entry(group, versions);
    entry["kind"] = json!("APIGroup");
    entry["apiVersion"] = json!("v1");
    entry
}

fn group_entry(group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> =
        versions.iter().map(|v| json!({"groupVersion": format!("{group}/{v}"), "version": v})).collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

/// `/api/v1` or `/apis/GROUP/VERSION`: the resources of a version.
pub fn api_resource_list<'a>(
    group: &str,
    version: &str,
    served: impl Iterator<Item = &'a Resource>,
) -> Value {
    let mut resources = Vec::new();
    for resource in served {
        resources.push(legacy_resource(resource));
        resources.extend(resource.subresources.iter().map(|sub| legacy_subresource(resource, sub)));
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut out = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        out["apiVersion"] = json!("v1");
    }
    out
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
