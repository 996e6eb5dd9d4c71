//! Documents there and back, and what is none.

use super::{decode_as, document, encode, envelope, frame, wire};
use crate::normalize;
use crate::table::{Table, TypeId};
use proptest::prelude::*;
use serde_json::{Value, json};

fn id(name: &str) -> TypeId {
    Table::builtin().type_named(name).expect("a type of the table")
}

#[test]
fn objects_there_and_back() {
    for (name, value) in [
        (
            "io.k8s.api.core.v1.ConfigMap",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "creationTimestamp": "2026-01-02T03:04:05Z"}, "data": {"a": "1", "b": ""}, "binaryData": {"x": "AAEC"}}),
        ),
        (
            "io.k8s.api.core.v1.Service",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": -1}]}}),
        ),
        (
            "io.k8s.api.core.v1.Pod",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "100m"}}}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]}}),
        ),
        (
            "io.k8s.api.coordination.v1.Lease",
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {"renewTime": "2026-01-02T03:04:05.678901Z", "leaseDurationSeconds": 40}}),
        ),
        (
            "io.k8s.api.authentication.v1.TokenReview",
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {}, "status": {"user": {"extra": {"k": ["a", "b"]}}}}),
        ),
    ] {
        let mut value: Value = value;
        normalize(Table::builtin(), id(name), &mut value);
        let bytes = encode(Table::builtin(), id(name), &value);
        let back = decode_as(Table::builtin(), id(name), &bytes).expect("decodes");
        assert_eq!(back.value, value, "{name}");
    }
}

#[test]
fn documents_are_encoded_by_their_kind() {
    let table = Table::builtin();
    let metadata = json!({"name": "c", "labels": {"a": "b"}});
    let map = json!({"metadata": metadata, "data": {"k": "v"}});
    for (kind, api_version, item, of) in [
        ("ConfigMapList", "v1", map.clone(), "io.k8s.api.core.v1.ConfigMap"),
        (
            "PartialObjectMetadataList",
            "meta.k8s.io/v1",
            json!({"metadata": metadata}),
            "io.k8s.api.core.v1.ConfigMap",
        ),
    ] {
        let list = json!({"kind": kind, "apiVersion": api_version, "metadata": {"resourceVersion": "7", "continue": "x"}, "items": [item, item]});
        let bytes = document(table, &list).expect("a kind of the table");
        let envelope = envelope(&bytes).expect("an envelope");
        assert_eq!((envelope.kind.as_str(), envelope.api_version.as_str()), (kind, api_version));
        let fields: Vec<_> = wire::fields(envelope.raw).collect::<Result<_, _>>().expect("fields");
        assert_eq!(fields.iter().map(|field| field.tag).collect::<Vec<_>>(), [1, 2, 2]);
        for field in &fields[1..] {
            let whole = super::seal("", "", field.bytes().expect("bytes"));
            let mut expected = item.clone();
            normalize(table, id(of), &mut expected);
            assert_eq!(decode_as(table, id(of), &whole).expect("decodes").value, expected);
        }
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound"});
    let back = decode_as(
        table,
        id("io.k8s.apimachinery.pkg.apis.meta.v1.Status"),
        &document(table, &status).expect("a status"),
    );
    assert_eq!(back.expect("decodes").value, status);
    assert_eq!(document(table, &json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1"})), None);
    assert_eq!(
        document(table, &json!({"kind": "Widget", "apiVersion": "example.org/v1", "items": []})),
        None
    );
}

#[test]
fn frames_have_their_length_before_them() {
    let bytes = frame("ADDED", b"document");
    let (length, event) = bytes.split_first_chunk::<4>().expect("a length");
    assert_eq!(u32::from_be_bytes(*length) as usize, event.len());
    let fields: Vec<_> = wire::fields(event).collect::<Result<_, _>>().expect("fields");
    assert_eq!((fields[0].tag, fields[0].text().expect("text")), (1, "ADDED"));
    let raw: Vec<_> =
        wire::fields(fields[1].bytes().expect("bytes")).collect::<Result<_, _>>().expect("fields");
    assert_eq!((raw[0].tag, raw[0].bytes().expect("bytes")), (1, &b"document"[..]));
}

#[test]
fn the_envelope_names_the_kind() {
    let value = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let bytes = encode(Table::builtin(), id("io.k8s.api.core.v1.ConfigMap"), &value);
    let envelope = envelope(&bytes).expect("an envelope");
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("v1", "ConfigMap"));
}

#[test]
fn damaged_documents_are_refused_and_never_panic() {
    let pod = id("io.k8s.api.core.v1.Pod");
    let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}});
    let bytes = encode(Table::builtin(), pod, &value);
    assert!(decode_as(Table::builtin(), pod, b"{}").is_err());
    for end in 0..bytes.len() {
        // Most cuts are errors, some leave a shorter document; none may panic.
        let _ = decode_as(Table::builtin(), pod, &bytes[..end]);
    }
    for at in 4..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let _ = decode_as(Table::builtin(), pod, &damaged);
        }
    }
}

#[test]
fn durations_are_gos() {
    for (nanos, text) in [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5\u{b5}s"),
        (2_000_000, "2ms"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (-1_000_000_000, "-1s"),
    ] {
        assert_eq!(super::decode::go_duration(nanos), text);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(prop_oneof![3 => 0u8..20, 1 => any::<u8>()], 0..80)) {
        for kind in ["io.k8s.api.core.v1.Pod", "io.k8s.api.core.v1.Service", "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler"] {
            // What they say is another test's business.
            let _ = decode_as(Table::builtin(), id(kind), &[b"k8s\0", bytes.as_slice()].concat());
            let wrapped = [b"k8s\0\x12".as_slice(), &[bytes.len() as u8], &bytes].concat();
            let _ = decode_as(Table::builtin(), id(kind), &wrapped);
        }
    }
}
