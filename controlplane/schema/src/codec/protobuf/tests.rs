//! Documents there and back, and what is none.

use super::{decode_as, encode, envelope};
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
