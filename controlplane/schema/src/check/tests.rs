//! Cases of the structural check and the decoding that uses it.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{structural, structural_where};
use crate::codec::{self, json::decode_as};
use crate::table::{Table, arbitrary};

fn decode(kind: [&str; 3], text: &str) -> Result<(Value, Vec<String>), String> {
    let table = Table::builtin();
    let id = table.kind_type(kind[0], kind[1], kind[2]).unwrap();
    decode_as(table, id, text.as_bytes()).map(|typed| (typed.value, typed.strict)).map_err(|e| e.to_string())
}

const POD: [&str; 3] = ["", "v1", "Pod"];
const DEPLOYMENT: [&str; 3] = ["apps", "v1", "Deployment"];

#[test]
fn unknown_and_doubled_fields_are_told_in_document_order() {
    let text = r#"{"metadata":{"name":"x","foo":1},"spec":{"replicas":1,"replicas":2,"bar":{"a":1},
        "template":{"spec":{"containers":[{"name":"c","ports":[{"containerPort":80,"nope":1}]}]}}}}"#;
    let (value, strict) = decode(DEPLOYMENT, text).unwrap();
    let expected = [
        "unknown field \"metadata.foo\"",
        "duplicate field \"spec.replicas\"",
        "unknown field \"spec.bar\"",
        "unknown field \"spec.template.spec.containers[0].ports[0].nope\"",
    ];
    assert_eq!(strict, expected);
    let pruned = json!({"metadata": {"name": "x"}, "spec": {"replicas": 2,
        "template": {"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}}}});
    assert_eq!(value, pruned);
}

#[test]
fn keys_of_maps_count_as_doubled_and_case_matters() {
    let (value, strict) = decode(POD, r#"{"metadata":{"labels":{"a":"1","a":"2"},"Name":"x"}}"#).unwrap();
    assert_eq!(strict, ["duplicate field \"metadata.labels.a\"", "unknown field \"metadata.Name\""]);
    assert_eq!(value, json!({"metadata": {"labels": {"a": "2"}}}));
}

#[test]
fn mistyped_values_are_refused_in_the_words_clients_know() {
    let check = |kind: [&str; 3], text: &str, expected: &str| {
        assert_eq!(decode(kind, text).unwrap_err(), expected, "{text}")
    };
    let go = "json: cannot unmarshal";
    check(
        DEPLOYMENT,
        r#"{"spec":{"replicas":"3"}}"#,
        &format!("{go} string into Go struct field DeploymentSpec.spec.replicas of type int32"),
    );
    check(
        DEPLOYMENT,
        r#"{"spec":{"replicas":1.5}}"#,
        &format!("{go} number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
    );
    check(
        DEPLOYMENT,
        r#"{"spec":{"replicas":3000000000}}"#,
        &format!("{go} number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"),
    );
    check(
        DEPLOYMENT,
        r#"{"spec":[]}"#,
        &format!("{go} array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
    );
    check(
        POD,
        r#"{"metadata":{"labels":{"a":1}}}"#,
        &format!("{go} number into Go struct field ObjectMeta.metadata.labels of type string"),
    );
    check(
        POD,
        r#"{"spec":{"containers":{"a":1}}}"#,
        &format!("{go} object into Go struct field PodSpec.spec.containers of type []v1.Container"),
    );
    check(
        POD,
        r#"{"spec":{"containers":["x"]}}"#,
        &format!("{go} string into Go struct field PodSpec.spec.containers of type v1.Container"),
    );
    check(
        POD,
        r#"{"spec":{"hostNetwork":"yes"}}"#,
        &format!("{go} string into Go struct field PodSpec.spec.hostNetwork of type bool"),
    );
    check(
        POD,
        r#"{"spec":{"dnsPolicy":1}}"#,
        &format!("{go} number into Go struct field PodSpec.spec.dnsPolicy of type v1.DNSPolicy"),
    );
    check(
        POD,
        r#"{"spec":{"volumes":[{"csi":{"driver":1}}]}}"#,
        &format!(
            "{go} number into Go struct field CSIVolumeSource.spec.volumes.VolumeSource.csi.driver of type string"
        ),
    );
    check(
        POD,
        r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#,
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    check(
        POD,
        r#"{"metadata":{"creationTimestamp":"soon"}}"#,
        "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\"",
    );
    check(["", "v1", "Secret"], r#"{"data":{"a":"?"}}"#, "illegal base64 data at input byte 0");
    check(["", "v1", "Secret"], r#"{"data":{"a":"YWI"}}"#, "illegal base64 data at input byte 0");
    check(
        ["", "v1", "Service"],
        r#"{"spec":{"ports":[{"targetPort":true}]}}"#,
        &format!("{go} bool into Go struct field ServicePort.spec.ports.targetPort of type int32"),
    );
    check(POD, "[]", &format!("{go} array into Go value of type v1.Pod"));
    check(POD, "{\"spec\":", "unexpected end of JSON input");
}

#[test]
fn the_first_mistyped_value_is_told_unless_a_scalar_stops_decoding() {
    let text = r#"{"spec":{"hostNetwork":1,"hostPID":2,"overhead":{"cpu":true}}}"#;
    assert!(decode(POD, text).unwrap_err().starts_with("quantities must match"));
    let text = r#"{"spec":{"hostNetwork":1,"hostPID":2}}"#;
    assert!(decode(POD, text).unwrap_err().contains("spec.hostNetwork"));
}

#[test]
fn nulls_are_absence_and_scalars_become_canonical() {
    let text = r#"{"metadata":{"labels":null,"creationTimestamp":"2025-01-02T03:04:05+01:00"},
        "spec":{"nodeName":null,"overhead":{"cpu":0.5,"memory":"1024Mi"},"tolerations":[null],"nodeSelector":{"a":null}}}"#;
    let (value, strict) = decode(POD, text).unwrap();
    assert!(strict.is_empty());
    assert_eq!(
        value,
        json!({"metadata": {"creationTimestamp": "2025-01-02T02:04:05Z"},
        "spec": {"overhead": {"cpu": "500m", "memory": "1Gi"}, "tolerations": [{}], "nodeSelector": {"a": ""}}})
    );
}

#[test]
fn raw_and_either_values_pass_as_they_are() {
    let text = r#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"default":{"a":null},"items":{"nope":1},
        "additionalProperties":true,"properties":{"p":{"type":"string"}}}}}]}}"#;
    let (value, strict) = decode(["apiextensions.k8s.io", "v1", "CustomResourceDefinition"], text).unwrap();
    assert_eq!(strict, ["unknown field \"spec.versions[0].schema.openAPIV3Schema.items.nope\""]);
    let schema = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert_eq!(
        *schema,
        json!({"default": {"a": null}, "items": {}, "additionalProperties": true, "properties": {"p": {"type": "string"}}})
    );
}

#[test]
fn values_in_place_are_checked_as_documents_are() {
    let table = Table::builtin();
    let id = table.kind_type("", "v1", "ConfigMap").unwrap();
    let mut value = json!({"data": {"a": "b"}, "extra": {"x": 1}, "metadata": {"name": null}});
    let found = structural(table, id, &mut value);
    assert_eq!(found.messages().collect::<Vec<_>>(), ["unknown field \"extra\""]);
    assert!(found.errors.is_empty());
    assert_eq!(value, json!({"data": {"a": "b"}, "metadata": {}}));
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("containers"),
        Just("name"),
        Just("ports"),
        Just("x"),
        Just("data")
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ -~]{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..5).prop_map(|entries| Value::Object(
                entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn well_typed_objects_pass_unchanged((id, value) in arbitrary::resource()) {
        let table = Table::builtin();
        let mut checked = value.clone();
        let found = structural(table, id, &mut checked);
        prop_assert_eq!(found, super::Structural::default());
        prop_assert_eq!(&checked, &value);
        let documents = [(codec::Format::Json, codec::json::encode(&value)), (codec::Format::Yaml, codec::yaml::encode(&value))];
        for (format, bytes) in documents {
            let typed = codec::decode_as(table, id, format, &bytes).unwrap();
            prop_assert!(typed.strict.is_empty());
            prop_assert_eq!(&typed.value, &value);
        }
    }

    #[test]
    fn where_a_patch_changes_nothing_needs_no_check((id, value) in arbitrary::resource(), patch in any_json()) {
        use crate::patch::{merge, strategic};
        let table = Table::builtin();
        let uppermost = patch.as_object().into_iter().flatten().map(|(name, _)| (name.clone(), Value::Null)).collect();
        for (is_strategic, named) in [(false, &patch), (true, &uppermost)] {
            let mut patched = value.clone();
            let applied = match is_strategic {
                true => strategic::apply(table, id, &mut patched, &patch),
                false => merge::apply(&mut patched, &patch),
            };
            if applied.is_ok() {
                let mut whole = patched.clone();
                let found = structural(table, id, &mut whole);
                prop_assert_eq!(&structural_where(table, id, &mut patched, named), &found);
                if found.errors.is_empty() {
                    prop_assert_eq!(patched, whole);
                }
            }
        }
    }

    #[test]
    fn anything_else_is_answered_without_panic_and_what_passes_stays(value in any_json()) {
        let table = Table::builtin();
        let id = table.kind_type("", "v1", "Pod").unwrap();
        if let Ok(typed) = decode_as(table, id, &codec::json::encode(&value)) {
            let mut again = typed.value.clone();
            let found = structural(table, id, &mut again);
            prop_assert_eq!(found, super::Structural::default());
            prop_assert_eq!(again, typed.value);
        }
    }
}

/// What is stored is read again as JSON, which nests so deep and no deeper.
#[test]
fn what_decodes_in_any_encoding_is_not_too_deep_to_be_stored() {
    use crate::codec::{json, protobuf, yaml};
    let table = Table::builtin();
    let id = table.type_named("io.k8s.api.apps.v1.ControllerRevision").expect("a type");
    for (levels, fits) in [(50, true), (108, true), (120, false), (126, false), (400, false)] {
        let deep = (0..levels).fold(json!(1), |inner, _| json!({"a": inner}));
        let object =
            json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": deep, "revision": 1});
        let binary = protobuf::encode(table, id, &object);
        let taken = [
            ("json", json::decode_as(table, id, &json::encode(&object))),
            ("yaml", yaml::decode_as(table, id, object.to_string().as_bytes())),
            ("protobuf", protobuf::decode_as(table, id, &binary)),
        ];
        for (format, taken) in taken {
            assert_eq!(taken.is_ok(), fits, "{levels} levels of {format}: {:?}", taken.err());
            let readable =
                |typed: codec::Typed| serde_json::from_slice::<Value>(&json::encode(&typed.value)).is_ok();
            assert!(taken.map_or(true, readable), "{levels} levels of {format} are readable");
        }
        let mut patched = object.clone();
        assert_eq!(structural(table, id, &mut patched).errors.is_empty(), fits, "{levels} levels by a patch");
    }
}
