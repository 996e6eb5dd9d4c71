//! Documents there and back, vectors of RFC 8949's appendix A, and what is refused.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{MAGIC, decode, decode_as, document, encode, event};
use crate::codec::json;
use crate::normalize;
use crate::table::{Table, TypeId, arbitrary};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn written(value: &Value) -> Vec<u8> {
    document(Table::builtin(), value).strip_prefix(MAGIC).unwrap().to_vec()
}

fn id(name: &str) -> TypeId {
    Table::builtin().type_named(name).unwrap()
}

#[test]
fn values_both_ways() {
    for (value, hex) in [
        (json!(0), "00"),
        (json!(23), "17"),
        (json!(24), "1818"),
        (json!(1000), "1903e8"),
        (json!(1000000), "1a000f4240"),
        (json!(1000000000000u64), "1b000000e8d4a51000"),
        (json!(i64::MAX), "1b7fffffffffffffff"),
        (json!(-1), "20"),
        (json!(-100), "3863"),
        (json!(i64::MIN), "3b7fffffffffffffff"),
        (json!(0.0), "f90000"),
        (json!(-0.0), "f98000"),
        (json!(1.5), "f93e00"),
        (json!(65504.0), "f97bff"),
        (json!(100000.0), "fa47c35000"),
        (json!(3.4028234663852886e+38), "fa7f7fffff"),
        (json!(1.1), "fb3ff199999999999a"),
        (json!(5.960464477539063e-8), "f90001"),
        (json!(0.00006103515625), "f90400"),
        (json!(2.9802322387695312e-8), "fa33000000"),
        (json!(false), "f4"),
        (json!(true), "f5"),
        (Value::Null, "f6"),
        (json!("IETF"), "4449455446"),
        (json!([1, [2, 3]]), "8201820203"),
        (json!({}), "a0"),
        // Shorter keys come first.
        (json!({"aa": 2, "b": 1, "": 0}), "a3400041620142616102"),
    ] {
        assert_eq!(written(&value), bytes(hex), "{value}");
        assert_eq!(decode(&written(&value)).unwrap().value, value);
    }
}

#[test]
fn what_others_write_is_read() {
    for (hex, value) in [
        ("d9d9f7a16161f5", json!({"a": true})),
        ("a1616101", json!({"a": 1})),
        ("5f42010243030405ff", json!("\u{1}\u{2}\u{3}\u{4}\u{5}")),
        ("7f657374726561646d696e67ff", json!("streaming")),
        ("9f018202039f0405ffff", json!([1, [2, 3], [4, 5]])),
        ("bf61610161629f0203ffff", json!({"a": 1, "b": [2, 3]})),
        ("d64401020304", json!("AQIDBA==")),
        ("d54401020304", json!("AQIDBA")),
        ("d74401020304", json!("01020304")),
        ("d6824141f6", json!(["QQ==", null])),
        ("c074323031332d30332d32315432303a30343a30305a", json!("2013-03-21T20:04:00Z")),
        ("c11a514b67b0", json!("2013-03-21T20:04:00Z")),
        ("d8184101", json!("\u{1}")),
        ("1800", json!(0)),
    ] {
        assert_eq!(decode(&bytes(hex)).unwrap().value, value, "{hex}");
    }
}

#[test]
fn what_is_refused() {
    let deep = "81".repeat(64) + "00";
    assert!(decode(&bytes(&deep)).is_ok());
    for (hex, error) in [
        ("", "unexpected EOF"),
        ("19", "unexpected EOF"),
        ("62c3", "unexpected EOF"),
        ("9bffffffffffffffff00", "unexpected EOF"),
        ("5bffffffffffffffff00", "unexpected EOF"),
        ("0000", "cbor: 1 bytes of extraneous data starting at index 1"),
        ("a2416101416102", "cbor: found duplicate map key \"a\" at map element index 1"),
        ("a2416101616102", "cbor: found duplicate map key \"a\" at map element index 1"),
        ("61ff", "cbor: invalid UTF-8 string"),
        ("41ff", "cbor: invalid UTF-8 string"),
        ("f97e00", "cbor: floating-point NaN and infinity are not supported"),
        ("fb7ff0000000000000", "cbor: floating-point NaN and infinity are not supported"),
        ("c249010000000000000000", "cbor: bignum is not supported"),
        ("1bffffffffffffffff", "cbor: 18446744073709551615 overflows Go's int64"),
        ("f7", "cbor: simple value 23 is not recognized"),
        ("ff", "cbor: unexpected \"break\" code"),
        ("8201ff", "cbor: unexpected \"break\" code"),
        ("1c", "cbor: invalid additional information 28 for type 0"),
        ("a10000", "cbor: a map's key is no string"),
        ("c041ff", "cbor: invalid UTF-8 string"),
        ("c04161", "cbor: cannot set \"a\" for time.Time: not an RFC 3339 time"),
        ("5f6161ff", "cbor: wrong element in a string of indefinite length"),
        (&format!("81{deep}"), "cbor: exceeded max nested level 64"),
    ] {
        assert_eq!(decode(&bytes(hex)).unwrap_err().to_string(), error, "{hex}");
    }
}

#[test]
fn objects_are_written_by_their_type() {
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"k": "AQID"}, "stringData": {"s": "AQID"}});
    let one = encode(Table::builtin(), id("io.k8s.api.core.v1.Secret"), &secret);
    assert_eq!(one, document(Table::builtin(), &secret));
    let shown = |bytes: &[u8], wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    assert!(shown(&one, b"\x41k\xd6\x43\x01\x02\x03"));
    assert!(shown(&one, b"\x41s\x44AQID"));
    let list =
        json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": [{"data": {"k": "AQID"}}]});
    assert!(shown(&document(Table::builtin(), &list), b"\x41k\xd6\x43\x01\x02\x03"));
    let added = event("ADDED", &one);
    assert_eq!(decode(&added).unwrap().value, json!({"type": "ADDED", "object": secret}));
}

#[test]
fn objections_are_those_of_strict_decoding() {
    let pod = id("io.k8s.api.core.v1.Pod");
    let read = |value: Value| decode_as(Table::builtin(), pod, &written(&value));
    let typed = read(json!({"spec": {"foo": 1, "nodeName": "n"}})).unwrap();
    assert_eq!(typed.strict, ["unknown field \"spec.foo\""]);
    assert_eq!(typed.value, json!({"spec": {"nodeName": "n"}}));
    assert_eq!(
        read(json!({"spec": {"nodeName": 7}})).unwrap_err().to_string(),
        "cbor: cannot unmarshal number into Go struct field PodSpec.spec.nodeName of type string"
    );
}

proptest! {
    #[test]
    fn every_resource_is_in_cbor_what_it_is_in_json((id, value) in arbitrary::resource()) {
        let table = Table::builtin();
        let through_json = json::decode_as(table, id, &json::encode(&value)).unwrap();
        let bytes = encode(table, id, &value);
        let through_cbor = decode_as(table, id, &bytes).unwrap();
        prop_assert_eq!(&through_cbor, &through_json);
        let mut normal = through_json.value;
        normalize(table, id, &mut normal);
        // Equal values have equal bytes.
        let again = encode(table, id, &normal);
        let mut back = decode_as(table, id, &again).unwrap().value;
        normalize(table, id, &mut back);
        prop_assert_eq!(&encode(table, id, &back), &again);
        prop_assert_eq!(decode(&again).unwrap().value, json::decode(&json::encode(&normal)).unwrap().value);
    }

    #[test]
    fn no_bytes_upset_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let pod = id("io.k8s.api.core.v1.Pod");
        let _ = decode(&bytes);
        let _ = decode_as(Table::builtin(), pod, &bytes);
    }
}
