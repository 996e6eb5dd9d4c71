//! What clients look for in discovery.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::{aggregated, api_group, api_groups, api_resource_list, api_versions};
use crate::table::Table;

#[test]
fn aggregated_discovery_has_everything() {
    let table = Table::builtin();
    let core = aggregated(table, true, "v2");
    assert_eq!(core["kind"], "APIGroupDiscoveryList");
    assert_eq!(core["items"].as_array().unwrap().len(), 1);
    let resources = core["items"][0]["versions"][0]["resources"].as_array().unwrap();
    let pods = resources.iter().find(|r| r["resource"] == "pods").unwrap();
    assert_eq!(pods["scope"], "Namespaced");
    assert_eq!(pods["shortNames"], json!(["po"]));
    assert_eq!(pods["categories"], json!(["all"]));
    let eviction =
        pods["subresources"].as_array().unwrap().iter().find(|s| s["subresource"] == "eviction").unwrap();
    assert_eq!(eviction["responseKind"], json!({"group": "policy", "version": "v1", "kind": "Eviction"}));
    let others = aggregated(table, false, "v2beta1");
    assert_eq!(others["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    assert_eq!(others["items"].as_array().unwrap().len(), table.groups().count() - 1);
}

#[test]
fn plain_discovery_lists_groups_versions_and_resources() {
    let table = Table::builtin();
    assert_eq!(api_versions(table, "a:1")["versions"], json!(["v1"]));
    let groups = api_groups(table);
    let autoscaling =
        groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "autoscaling").unwrap();
    assert_eq!(autoscaling["preferredVersion"], json!({"groupVersion": "autoscaling/v2", "version": "v2"}));
    assert_eq!(api_group(table, "apps").unwrap()["kind"], "APIGroup");
    assert!(api_group(table, "nope").is_none());
    let list = api_resource_list(table, "", "v1").unwrap();
    let entry = |name: &str| {
        list["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap().clone()
    };
    assert_eq!(entry("pods")["storageVersionHash"], "xPOwRZ+Yhw8=");
    assert_eq!(entry("pods/eviction")["group"], "policy");
    assert_eq!(entry("pods/status")["verbs"], json!(["get", "patch", "update"]));
    assert!(api_resource_list(table, "apps", "v2").is_none());
}
