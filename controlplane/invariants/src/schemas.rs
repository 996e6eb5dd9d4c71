//! Definitions of custom resources: whatever a schema says, objects are pruned, filled in and judged by it, and it can be published; and
//! whatever a definition says, it is judged, and one that is sound is served.

use std::borrow::Cow;
use std::sync::Arc;

use pagurus_controlplane_api::field::Path;
use pagurus_controlplane_apiserver::request::UserInfo;
use pagurus_controlplane_apiserver::resources;
use pagurus_controlplane_apiserver::strategy::Context;
use pagurus_controlplane_schema::codec::json as json_codec;
use pagurus_controlplane_schema::fields::{Form, OneVersion, Writer, update};
use pagurus_controlplane_schema::openapi::{Format, NoDescriptions, Part, Version, v2, v3};
use pagurus_controlplane_schema::structural::{self, Schema};
use pagurus_controlplane_schema::table::{Resource, Storage};
use pagurus_controlplane_schema::{Table, defaults, normalize};
use serde_json::{Value, json};

use crate::same::same;

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";

/// A schema, a zero byte, an object; as JSON.
pub(crate) fn schema(data: &[u8]) {
    let Some(at) = data.iter().position(|byte| *byte == 0) else { return };
    let (Ok(given), Ok(object)) = (json_codec::decode(&data[..at]), json_codec::decode(&data[at + 1..]))
    else {
        return;
    };
    let schema = Schema::parse(&given.value);
    judge(&schema, object.value);
    publish("a.test", "v1", "as", "A", &given.value, &schema);
}

fn judge(schema: &Schema, mut object: Value) {
    let base = Path::new("");
    let given = object.clone();
    structural::prune(&mut object, schema, true);
    let once = object.clone();
    assert_eq!(structural::prune(&mut object, schema, true), Vec::<String>::new(), "what is pruned is gone");
    same(&object, &once, "pruned once and twice");
    structural::drop_nulls(&mut object, schema);
    structural::default(&mut object, schema);
    let errors = structural::validate(&base, &object, schema);
    let again = structural::validate(&base, &object, schema);
    assert_eq!(errors.len(), again.len(), "the same errors");
    let kept = structural::validate_change(&base, &object, Some(&object), schema);
    assert!(kept.len() <= errors.len(), "what stays as it was is not judged more strictly");
    structural::validate_change(&base, &object, Some(&given), schema);
    structural::duplicates(&base, &object, schema);
}

/// The documents that clients read, and the table that ownership goes by.
fn publish(group: &str, version: &str, plural: &str, kind: &str, given: &Value, schema: &Schema) {
    let resource = Resource {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        singular: "".into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        namespaced: true,
        verbs: ["create", "get", "list", "update"].map(Into::into).to_vec(),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        storage: Storage { group: group.into(), version: version.into(), plural: plural.into() },
        storage_version: version.into(),
        storage_version_hash: "".into(),
        // The table sets it.
        type_id: Table::builtin().resources()[0].type_id,
        columns: Vec::new(),
    };
    let table = Table::overlay(Table::builtin(), vec![(resource, schema)]);
    let resource = &table.resources()[0];
    let part = || Part { table: &table, resource, custom: Some(Cow::Borrowed(given)) };
    let versions = [Version { group, version, parts: vec![part()] }];
    for format in [Format::Json, Format::Protobuf] {
        let name = format!("apis/{group}/{version}");
        let document = v3(Table::builtin(), &name, &versions, &NoDescriptions, "v1", format);
        let documents = [
            document.expect("a document of what is served"),
            v2(Table::builtin(), &versions, &NoDescriptions, "v1", format),
        ];
        if format == Format::Json {
            for document in documents {
                assert!(serde_json::from_slice::<Value>(&document).is_ok(), "a document is JSON");
            }
        }
    }
    let mut object = json!({"metadata": {"name": "a"}, "spec": {"a": [1, {"b": null}]}, "x": "y"});
    let form = Form { table: &table, id: resource.type_id, versions: &OneVersion };
    let writer =
        Writer { manager: "m", api_version: "a.test/v1", subresource: "", now: "2025-01-02T03:04:05Z" };
    update(&form, None, &mut object, &writer, &Default::default());
    normalize(&table, resource.type_id, &mut object);
}

/// A definition, as JSON.
pub(crate) fn definition(data: &[u8]) {
    let table = Table::builtin();
    let resource: &Arc<Resource> = table.resource(GROUP, "v1", PLURAL).expect("definitions are built in");
    let Ok(typed) = json_codec::decode_as(table, resource.type_id, data) else { return };
    let (strategy, user) = (resources::strategy(GROUP, PLURAL), UserInfo::server());
    let context = Context { resource, user: &user, now: jiff::Timestamp::UNIX_EPOCH };
    let mut object = typed.value;
    defaults::apply(table, resource.type_id, &mut object);
    strategy.default(&mut object);
    strategy.prepare_create(&context, &mut object);
    let errors = strategy.validate(&object);
    assert!(errors.iter().all(|error| !error.to_string().is_empty()), "an error says what is wrong");
    strategy.validate_update(&object, &object);
    strategy.warnings(&object, None);
    if !errors.is_empty() {
        return;
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    for version in object["spec"]["versions"].as_array().into_iter().flatten() {
        let given = &version["schema"]["openAPIV3Schema"];
        let schema = Schema::parse(given);
        judge(&schema, json!({"metadata": {"name": "a"}, "spec": {"a": 1, "replicas": null}}));
        let name = version["name"].as_str().unwrap_or_default();
        publish(
            text("/spec/group"),
            name,
            text("/spec/names/plural"),
            text("/spec/names/kind"),
            given,
            &schema,
        );
    }
}

const SCHEMAS: [&str; 4] = [
    r#"{"type":"object","required":["spec"],"properties":{"spec":{"type":"object","properties":{"a":{"type":"string","pattern":"^[a-z]+$","maxLength":5,"default":"x"},
        "n":{"type":"integer","format":"int32","minimum":1,"maximum":9,"multipleOf":2},"l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],
        "items":{"type":"object","required":["k"],"properties":{"k":{"type":"string"}}}}}}}}"#,
    r#"{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"e":{"type":"object","x-kubernetes-embedded-resource":true},"p":{"x-kubernetes-int-or-string":true},
        "s":{"type":"array","uniqueItems":true,"x-kubernetes-list-type":"set","items":{"type":"string","enum":["a","b"]}},"m":{"type":"object","additionalProperties":{"type":"number","nullable":true}}}}"#,
    r#"{"type":"object","properties":{"a":{"anyOf":[{"required":["b"]},{"not":{"required":["c"]}}],"oneOf":[{"minProperties":1},{"maxProperties":3}],"allOf":[{"properties":{"b":{"minLength":1}}}],
        "type":"object","properties":{"b":{"type":"string","format":"date-time"},"c":{"type":"boolean","default":true}}}},"x-kubernetes-validations":[{"rule":"self.a.b != ''"}]}"#,
    r#"{"type":"object","properties":{"a":{"type":"array","items":{"type":"array","items":{"type":"object","properties":{"d":{"type":"string","format":"ipv4"}}}},"minItems":1,"maxItems":2}}}"#,
];

pub(crate) fn schema_seeds() -> Vec<Vec<u8>> {
    let objects = [
        r#"{"apiVersion":"a.test/v1","kind":"A","metadata":{"name":"a"},"spec":{"a":"abc","n":4,"l":[{"k":"x"},{"k":"x","y":1}]}}"#,
        r#"{"e":{"kind":"B","spec":1},"p":"5%","s":["a","a","c"],"m":{"x":null,"y":1.5},"z":[1]}"#,
        r#"{"a":{"b":"2024-02-29T12:00:00Z","c":null,"d":[[]]}}"#,
        r#"{"a":[[{"d":"1.2.3.4"},{"e":1}],[],null]}"#,
    ];
    let pair = |(schema, object): (&str, &str)| [schema.as_bytes(), b"\0", object.as_bytes()].concat();
    SCHEMAS.into_iter().zip(objects).map(pair).collect()
}

pub(crate) fn definition_seeds() -> Vec<Vec<u8>> {
    let version = |schema: &str| {
        json!({
            "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": serde_json::from_str::<Value>(schema).unwrap_or_default()},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
            "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".spec.l[?(@.k==\"x\")].y"}],
            "selectableFields": [{"jsonPath": ".spec.a"}],
        })
    };
    let definition = |version: Value| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "as.a.test"},
            "spec": {"group": "a.test", "scope": "Namespaced", "names": {"plural": "as", "singular": "a", "kind": "A", "listKind": "AList", "shortNames": ["x"], "categories": ["all"]},
                "versions": [version], "conversion": {"strategy": "None"}, "preserveUnknownFields": false},
        })
    };
    SCHEMAS.into_iter().map(|schema| definition(version(schema)).to_string().into_bytes()).collect()
}
