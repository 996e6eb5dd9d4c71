//! What clients look for in discovery.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::{aggregated, aggregated_group, api_group, api_groups, api_resource_list, api_versions};
use crate::table::{Resource, Table};

fn served<'t>(group: &'t str, version: &'t str) -> impl Iterator<Item = &'t Resource> {
    let all = Table::builtin().resources().iter().map(|r| &**r);
    all.filter(move |r| &*r.group == group && &*r.version == version)
}

#[test]
fn aggregated_discovery_has_everything() {
    let table = Table::builtin();
    let entry = |group: &'static str| {
        aggregated_group(group, table.versions(group).map(|v| (v, served(group, v)))).to_string()
    };
    let core = entry("");
    let document: Value = serde_json::from_str(&aggregated([core.as_str()].into_iter(), "v2")).unwrap();
    assert_eq!(document["kind"], "APIGroupDiscoveryList");
    assert_eq!(document["items"].as_array().unwrap().len(), 1);
    let resources = document["items"][0]["versions"][0]["resources"].as_array().unwrap();
    let pods = resources.iter().find(|r| r["resource"] == "pods").unwrap();
    assert_eq!(pods["scope"], "Namespaced");
    assert_eq!(pods["shortNames"], json!(["po"]));
    assert_eq!(pods["categories"], json!(["all"]));
    let eviction =
        pods["subresources"].as_array().unwrap().iter().find(|s| s["subresource"] == "eviction").unwrap();
    assert_eq!(eviction["responseKind"], json!({"group": "policy", "version": "v1", "kind": "Eviction"}));
    let others: Vec<String> = table.groups().filter(|g| !g.is_empty()).map(entry).collect();
    let document = aggregated(others.iter().map(String::as_str), "v2beta1");
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    assert_eq!(document["items"].as_array().unwrap().len(), table.groups().count() - 1);
}

#[test]
fn plain_discovery_lists_groups_versions_and_resources() {
    let table = Table::builtin();
    assert_eq!(api_versions(&["v1"], "a:1")["versions"], json!(["v1"]));
    let groups =
        api_groups(table.groups().filter(|g| !g.is_empty()).map(|g| (g, table.versions(g).collect())));
    let autoscaling =
        groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "autoscaling").unwrap();
    assert_eq!(autoscaling["preferredVersion"], json!({"groupVersion": "autoscaling/v2", "version": "v2"}));
    assert_eq!(api_group("apps", &["v1"])["kind"], "APIGroup");
    let list = api_resource_list("", "v1", served("", "v1"));
    let entry = |name: &str| {
        list["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap().clone()
    };
    assert_eq!(entry("pods")["storageVersionHash"], "xPOwRZ+Yhw8=");
    assert_eq!(entry("pods/eviction")["group"], "policy");
    assert_eq!(entry("pods/status")["verbs"], json!(["get", "patch", "update"]));
}
