//! What clients look for in the documents.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{Descriptions, Format, NoDescriptions, Part, Prose, Version, content_hash, v2, v3, v3_names};
use crate::table::Table;

struct Words;

impl Descriptions for Words {
    fn type_(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "io.k8s.api.core.v1.Container").then_some("A container".into())
    }

    fn field(&self, type_name: &str, field: &str) -> Option<Cow<'_, str>> {
        (type_name == "io.k8s.api.core.v1.Container" && field == "image").then_some("Its image".into())
    }
}

impl Prose for Words {
    fn of_package(&self, _package: &str) -> Box<dyn Descriptions + '_> {
        Box::new(Words)
    }
}

fn whole(versions: &[Version<'_>]) -> Value {
    let bytes = v2(Table::builtin(), versions, &NoDescriptions, "v1", Format::Json);
    serde_json::from_slice(&bytes).unwrap()
}

fn third(name: &str, versions: &[Version<'_>], prose: &dyn Prose) -> Option<Value> {
    let bytes = v3(Table::builtin(), name, versions, prose, "v1", Format::Json)?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn one(name: &str, prose: &dyn Prose) -> Value {
    third(name, &Version::all_of(Table::builtin()), prose).unwrap()
}

fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            out.extend(entries.get("$ref").and_then(Value::as_str).map(str::to_owned));
            entries.values().for_each(|v| references(v, out));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, out)),
        _ => {}
    }
}

#[test]
fn every_document_has_what_it_refers_to() {
    let table = Table::builtin();
    let versions = Version::all_of(table);
    let mut documents = vec![whole(&versions)];
    documents.extend(v3_names(&versions).iter().map(|name| one(name, &NoDescriptions)));
    for document in documents {
        let mut all = Vec::new();
        references(&document, &mut all);
        for reference in all {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference} is not there");
        }
    }
    assert!(third("apis/apps/v9", &versions, &NoDescriptions).is_none());
}

#[test]
fn operations_are_told_as_clients_know_them() {
    let document = whole(&Version::all_of(Table::builtin()));
    let paths = &document["paths"];
    for (path, method, description, id) in [
        ("/api/", "get", "get available API versions", "getCoreAPIVersions"),
        (
            "/apis/rbac.authorization.k8s.io/",
            "get",
            "get information of a group",
            "getRbacAuthorizationAPIGroup",
        ),
        ("/apis/apps/v1/", "get", "get available resources", "getAppsV1APIResources"),
        ("/version/", "get", "get the version information for this server", "getCodeVersion"),
        ("/api/v1/nodes", "post", "create a Node", "createCoreV1Node"),
        (
            "/api/v1/namespaces/{namespace}/endpoints",
            "post",
            "create Endpoints",
            "createCoreV1NamespacedEndpoints",
        ),
        (
            "/api/v1/namespaces/{namespace}/events/{name}",
            "delete",
            "delete an Event",
            "deleteCoreV1NamespacedEvent",
        ),
        (
            "/api/v1/componentstatuses",
            "get",
            "list objects of kind ComponentStatus",
            "listCoreV1ComponentStatus",
        ),
        (
            "/api/v1/namespaces/{namespace}/pods/{name}/eviction",
            "post",
            "create eviction of a Pod",
            "createCoreV1NamespacedPodEviction",
        ),
        (
            "/api/v1/nodes/{name}/proxy/{path}",
            "head",
            "connect HEAD requests to proxy of Node",
            "connectCoreV1HeadNodeProxyWithPath",
        ),
        (
            "/api/v1/watch/pods",
            "get",
            "watch individual changes to a list of Pod. deprecated: use the 'watch' parameter with a list operation instead.",
            "watchCoreV1PodListForAllNamespaces",
        ),
    ] {
        let operation = &paths[path][method];
        assert_eq!(
            (operation["description"].as_str(), operation["operationId"].as_str()),
            (Some(description), Some(id))
        );
    }
    // What all operations of a path have is told once.
    let node = &paths["/api/v1/nodes/{name}"];
    assert_eq!(node["parameters"][0]["name"], "name");
    assert_eq!(node["parameters"][1]["$ref"], "#/parameters/pretty-tJGM1-ng");
    assert!(node["get"].get("parameters").is_none());
    let answer = |path: &str| paths[path]["delete"]["responses"]["200"]["schema"]["$ref"].clone();
    assert_eq!(answer("/api/v1/nodes/{name}"), "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Status");
    assert_eq!(answer("/api/v1/namespaces/{namespace}/pods/{name}"), "#/definitions/io.k8s.api.core.v1.Pod");
}

#[test]
fn a_custom_resource_is_told_by_its_definition() {
    let table = Table::builtin();
    let resource = table.resource("coordination.k8s.io", "v1", "leases").unwrap();
    let schema = json!({"type": "object", "description": "A tab", "properties": {
        "metadata": {"type": "object"}, "spec": {"type": "object", "properties": {
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}},
            "maybe": {"type": "string", "nullable": true, "default": "x"}}}}});
    let published = |schema: &Value| {
        let part = Part { table, resource, custom: Some(Cow::Owned(schema.clone())) };
        vec![Version { group: "coordination.k8s.io", version: "v1", parts: vec![part] }]
    };
    let free =
        json!({"type": "object", "description": "Anything", "x-kubernetes-preserve-unknown-fields": true});
    let mut all = whole(&published(&free))["definitions"]["io.k8s.coordination.v1.Lease"].clone();
    assert!(all.as_object_mut().unwrap().remove("x-kubernetes-group-version-kind").is_some());
    assert_eq!(all, json!({"type": "object"}), "clients of version 2 would refuse what it does not name");
    let custom = published(&schema);
    let document = whole(&custom);
    let tab = &document["definitions"]["io.k8s.coordination.v1.Lease"];
    assert_eq!(tab["description"], "A tab");
    assert_eq!(tab["x-kubernetes-group-version-kind"][0]["kind"], "Lease");
    assert_eq!(
        tab["properties"]["metadata"]["$ref"],
        "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    let spec = &tab["properties"]["spec"]["properties"];
    assert_eq!(spec["port"], json!({"x-kubernetes-int-or-string": true}));
    assert_eq!(spec["free"], json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    assert_eq!(spec["maybe"], json!({}));
    let list = &document["paths"]["/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"]["get"];
    assert_eq!(list["responses"]["200"]["schema"]["$ref"], "#/definitions/io.k8s.coordination.v1.LeaseList");
    let third = third("apis/coordination.k8s.io/v1", &custom, &NoDescriptions).unwrap();
    let tab = &third["components"]["schemas"]["io.k8s.coordination.v1.Lease"];
    assert_eq!(tab["properties"]["spec"], schema["properties"]["spec"]);
    let mut all = Vec::new();
    references(&third, &mut all);
    assert!(all.iter().all(|reference| third.pointer(&reference[1..]).is_some()));
    let name = "apis/coordination.k8s.io/v1";
    assert_ne!(content_hash(table, name, &custom), content_hash(table, name, &Version::all_of(table)));
}

#[test]
fn explain_finds_kinds_by_path_and_fields_with_descriptions() {
    let document = one("api/v1", &Words);
    let pods = &document["paths"]["/api/v1/namespaces/{namespace}/pods"];
    assert_eq!(
        pods["get"]["x-kubernetes-group-version-kind"],
        json!({"group": "", "version": "v1", "kind": "Pod"})
    );
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
    let container = &schemas["io.k8s.api.core.v1.Container"];
    assert_eq!(container["description"], "A container");
    assert_eq!(container["properties"]["image"], json!({"type": "string", "description": "Its image"}));
    assert_eq!(container["required"], json!(["name"]));
    assert_eq!(
        container["properties"]["resources"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.core.v1.ResourceRequirements"
    );
}

#[test]
fn apply_finds_patch_types_and_merge_keys() {
    let document = one("apis/apps/v1", &NoDescriptions);
    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    assert!(item["patch"]["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    assert!(item["patch"]["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
    let containers =
        &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
}

#[test]
fn names_of_documents() {
    let names = v3_names(&Version::all_of(Table::builtin()));
    for name in ["api", "api/v1", "apis", "apis/apps", "apis/apps/v1", "version", "openid/v1/jwks"] {
        assert!(names.contains(name), "{name}");
    }
}
