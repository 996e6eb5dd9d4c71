//! What clients look for in the documents.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{Descriptions, NoDescriptions, v2, v3, v3_index};
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
    let mut documents = vec![v2(table, &NoDescriptions, "v1")];
    for group in table.groups() {
        documents.extend(
            table.versions(group).map(|version| v3(table, group, version, &NoDescriptions, "v1").unwrap()),
        );
    }
    for document in documents {
        let mut all = Vec::new();
        references(&document, &mut all);
        assert!(!all.is_empty());
        for reference in all {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference} is not there");
        }
    }
    assert!(v3(table, "apps", "v9", &NoDescriptions, "v1").is_none());
}

#[test]
fn explain_finds_kinds_by_path_and_fields_with_descriptions() {
    let document = v3(Table::builtin(), "", "v1", &Words, "v1").unwrap();
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
    let document = v3(Table::builtin(), "apps", "v1", &NoDescriptions, "v1").unwrap();
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
fn the_index_names_every_document() {
    let index = v3_index(Table::builtin());
    let address = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(address.starts_with("/openapi/v3/apis/apps/v1?hash="), "{address}");
    assert_eq!(index, v3_index(Table::builtin()));
}
