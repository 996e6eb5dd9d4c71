//! A row per rule: a change of a sound definition, and what is said against it.

use pagurus_controlplane_api::field::FieldError;
use serde_json::{Value, json};

use super::Definitions;
use crate::strategy::Strategy;

fn sound() -> Value {
    json!({
        "metadata": {"name": "widgets.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"a": {"type": "string"}}}}}],
        },
        "status": {"acceptedNames": {"plural": "", "kind": ""}, "conditions": [], "storedVersions": ["v1"]},
    })
}

fn texts(errors: Vec<FieldError>) -> Vec<String> {
    errors.iter().map(FieldError::to_string).collect()
}

fn set(definition: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
    let parent = definition.pointer_mut(parent);
    if let Some(parent) = parent {
        parent[name] = value;
    }
}

fn check(pointer: &str, value: Value, expected: &[&str]) {
    let mut definition = sound();
    set(&mut definition, pointer, value.clone());
    assert_eq!(texts(Definitions.validate(&definition)), expected, "{pointer} {value}");
}

/// A schema in place of that of the field `a`.
fn check_schema(schema: Value, expected: &[&str]) {
    let mut definition = sound();
    set(&mut definition, "/spec/versions/0/schema/openAPIV3Schema/properties/a", schema.clone());
    let expected: Vec<String> =
        expected.iter().map(|text| format!("spec.validation.openAPIV3Schema.properties[a]{text}")).collect();
    assert_eq!(texts(Definitions.validate(&definition)), expected, "{schema}");
}

#[test]
fn names_and_versions() {
    assert_eq!(texts(Definitions.validate(&sound())), [""; 0]);
    check(
        "/spec/group",
        json!("local"),
        &[
            "metadata.name: Invalid value: \"widgets.example.org\": must be spec.names.plural+\".\"+spec.group",
            "spec.group: Invalid value: \"local\": should be a domain with at least one dot",
        ],
    );
    check(
        "/spec/scope",
        json!("World"),
        &["spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\""],
    );
    check(
        "/spec/names/listKind",
        json!("Widget"),
        &["spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same"],
    );
    check(
        "/spec/preserveUnknownFields",
        json!(true),
        &[
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ],
    );
    check(
        "/spec/versions/0/deprecationWarning",
        json!("old"),
        &[
            "spec.versions[0].deprecationWarning: Invalid value: \"old\": can only be set for deprecated versions",
        ],
    );
    check(
        "/status/storedVersions",
        json!(["v1", "v0"]),
        &[
            "status.storedVersions[1]: Invalid value: \"v0\": missing from spec.versions; v0 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v0 and removes v0 from status.storedVersions",
        ],
    );
}

#[test]
fn parts_of_versions() {
    let version = |part: &str| format!("/spec/versions/0/{part}");
    check(
        &version("additionalPrinterColumns"),
        json!([{"name": "", "type": "thing", "jsonPath": "x", "format": "f"}]),
        &[
            "spec.additionalPrinterColumns[0].name: Required value",
            "spec.additionalPrinterColumns[0].type: Invalid value: \"thing\": must be one of boolean,date,integer,number,string",
            "spec.additionalPrinterColumns[0].format: Invalid value: \"f\": must be one of byte,date,date-time,double,float,int32,int64,password",
            "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"x\": must be a simple json path starting with .",
        ],
    );
    check(
        &version("subresources"),
        json!({"scale": {"specReplicasPath": ".status.a", "labelSelectorPath": ".a"}}),
        &[
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.a\": should be a json path under .spec",
            "spec.subresources.scale.statusReplicasPath: Required value",
            "spec.subresources.scale.labelSelectorPath: Invalid value: \".a\": should be a json path under either .spec or .status",
        ],
    );
    check(
        &version("selectableFields"),
        json!([{"jsonPath": ".a"}, {"jsonPath": ".a"}, {"jsonPath": ".b"}, {"jsonPath": ""}]),
        &[
            "spec.selectableFields[1].jsonPath: Duplicate value: \".a\"",
            "spec.selectableFields[2].jsonPath: Invalid value: \".b\": is an invalid path: does not refer to a valid field",
            "spec.selectableFields[3].jsonPath: Required value",
        ],
    );
    check(
        "/spec/conversion",
        json!({"strategy": "Webhook"}),
        &[
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Required value",
        ],
    );
    let client = json!({"url": "https://a.example.org"});
    check(
        "/spec/conversion",
        json!({"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v9"]}}),
        &[
            "spec.conversion.conversionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
        ],
    );
    check(
        "/spec/conversion",
        json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://w", "caBundle": "Cg=="}, "conversionReviewVersions": ["v1"]}}),
        &[
            "spec.conversion.webhookClientConfig.caBundle: Invalid value: \"Cg==\": unable to load root certificates: unable to parse bytes as PEM block",
        ],
    );
    check(
        "/spec/conversion",
        json!({"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}}),
        &[
            "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
        ],
    );
}

#[test]
fn keywords() {
    check_schema(
        json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object", "properties": {}}}),
        &[".x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"],
    );
    check_schema(
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "string"}}}}),
        &[
            ".items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ],
    );
    check_schema(
        json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object", "x-kubernetes-map-type": "granular"}}),
        &[
            ".items.x-kubernetes-map-type: Invalid value: \"null\": must be atomic as item of a list with x-kubernetes-list-type=set",
        ],
    );
    check_schema(
        json!({"type": "string", "x-kubernetes-list-type": "set"}),
        &[".type: Invalid value: \"string\": must be array if x-kubernetes-list-type is specified"],
    );
    check_schema(
        json!({"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
        &[".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
    );
    check_schema(
        json!({"type": "string", "x-kubernetes-validations": [{"rule": " ", "reason": "Because", "fieldPath": ".x"}]}),
        &[
            ".x-kubernetes-validations[0].rule: Required value: rule is not specified",
            ".x-kubernetes-validations[0].reason: Unsupported value: \"Because\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
            ".x-kubernetes-validations[0].fieldPath: Invalid value: \".x\": fieldPath must be a valid path",
        ],
    );
}

#[test]
fn structural_schemas_and_defaults() {
    check_schema(
        json!({"x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
        &[".type: Required value: must be object if x-kubernetes-embedded-resource is true"],
    );
    check_schema(
        json!({"type": "string", "anyOf": [{"type": "string", "default": "x"}]}),
        &[
            ".anyOf[0].default: Forbidden: must be undefined to be structural",
            ".anyOf[0].type: Forbidden: must be empty to be structural",
        ],
    );
    check_schema(
        json!({"type": "object", "default": {"x": 1}, "properties": {"b": {"type": "string"}}}),
        &[".default: Invalid value: {\"x\":1}: must not have unknown fields"],
    );
    check_schema(
        json!({"type": "object", "default": {"kind": "P"}, "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
        &[".default.apiVersion: Required value"],
    );
    let root = "/spec/versions/0/schema/openAPIV3Schema";
    check(
        root,
        json!({"type": "object", "allOf": [{"properties": {"b": {"minLength": 1}}}]}),
        &[
            "spec.validation.openAPIV3Schema.properties[b]: Required value: because it is defined in spec.validation.openAPIV3Schema.allOf[0].properties[b]",
        ],
    );
    check(
        root,
        json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
        &[
            "spec.validation.openAPIV3Schema.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ],
    );
}

#[test]
fn changes() {
    let mut old = sound();
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let changed = |pointer: &str, value: Value| {
        let mut new = old.clone();
        set(&mut new, pointer, value);
        texts(Definitions.validate_update(&new, &old))
    };
    assert_eq!(
        changed("/spec/scope", json!("Cluster")),
        ["spec.scope: Invalid value: \"Cluster\": field is immutable"]
    );
    assert_eq!(
        changed("/spec/names/kind", json!("Thing")),
        ["spec.names.kind: Invalid value: \"Thing\": field is immutable"]
    );
    // What was wrong before may stay wrong.
    let mut broken = sound();
    set(&mut broken, "/spec/versions/0/schema/openAPIV3Schema/properties/a", json!({"type": "thing"}));
    let mut touched = broken.clone();
    touched["spec"]["names"]["shortNames"] = json!(["w"]);
    assert_eq!(texts(Definitions.validate_update(&touched, &broken)), [""; 0]);
    assert_ne!(texts(Definitions.validate_update(&broken, &sound())), [""; 0]);
}

#[test]
fn groups_of_the_community_need_approval() {
    let approved = |annotation: Value| {
        let mut definition = sound();
        definition["metadata"] =
            json!({"name": "widgets.x.k8s.io", "annotations": {"api-approved.kubernetes.io": annotation}});
        definition["spec"]["group"] = json!("x.k8s.io");
        texts(Definitions.validate(&definition))
    };
    assert_eq!(approved(json!("https://github.com/kubernetes/kubernetes/pull/1")), [""; 0]);
    assert_eq!(approved(json!("unapproved, a test")), [""; 0]);
    assert_eq!(
        approved(json!("")),
        [
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ]
    );
}

#[test]
fn a_dialect_is_told_where_nothing_else_is_wrong() {
    let mut definition = sound();
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/a";
    set(&mut definition, field, json!({"type": "array", "items": {"type": "string", "$schema": "x"}}));
    let told =
        "spec.validation.openAPIV3Schema: Invalid value: \"\": OpenAPIV3Schema 'schema' is not supported";
    assert_eq!(texts(Definitions.validate(&definition)), [told]);
    set(&mut definition, field, json!({"type": "string", "$schema": "x", "id": "y"}));
    let told = "spec.validation.openAPIV3Schema.properties[a].id: Forbidden: id is not supported";
    assert_eq!(texts(Definitions.validate(&definition)), [told]);
}

/// Authorities that were wrong already may stay so.
#[test]
fn authorities_are_not_held_against_those_who_had_them() {
    let mut old = sound();
    let webhook = |bundle: &str| json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://w", "caBundle": bundle}, "conversionReviewVersions": ["v1"]}});
    old["spec"]["conversion"] = webhook("Cg==");
    let mut new = old.clone();
    new["spec"]["conversion"] = webhook("Cgo=");
    assert_eq!(texts(Definitions.validate_update(&new, &old)), [""; 0]);
    old["spec"]["conversion"] = webhook("");
    assert_eq!(texts(Definitions.validate_update(&new, &old)).len(), 1);
}
