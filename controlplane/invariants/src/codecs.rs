//! Documents: what has been decoded is encoded and decoded again to the same.

use pagurus_controlplane_schema::codec::{
    cbor as cbor_codec, json as json_codec, protobuf as protobuf_codec, yaml as yaml_codec,
};
use pagurus_controlplane_schema::{Table, TypeId, normalize};
use serde_json::Value;

use crate::same::same;
use crate::sample;

/// JSON, with and without a type.
pub(crate) fn json(data: &[u8]) {
    let Some((resource, bytes)) = sample::choose(data) else { return };
    let table = Table::builtin();
    if let Ok(decoded) = json_codec::decode(bytes) {
        let again = json_codec::decode(&json_codec::encode(&decoded.value)).expect("own JSON decodes");
        same(&again.value, &decoded.value, "JSON there and back");
        assert!(again.duplicate_fields.is_empty(), "own JSON has every key once");
    }
    let Ok(typed) = json_codec::decode_as(table, resource.type_id, bytes) else { return };
    let again = json_codec::decode_as(table, resource.type_id, &json_codec::encode(&typed.value));
    let again = again.expect("what was decoded fits its type");
    same(&again.value, &typed.value, &format!("{} there and back", resource.kind));
    assert!(again.strict.is_empty(), "{} pruned: {:?}", resource.kind, again.strict);
    stored(resource.type_id, typed.value);
}

/// What a document becomes when it is stored: normal, and the same in all encodings.
fn stored(id: TypeId, mut value: Value) {
    let table = Table::builtin();
    normalize(table, id, &mut value);
    let once = value.clone();
    normalize(table, id, &mut value);
    same(&value, &once, "normal form of the normal form");
    if sample::has_tags(table, id, &value, true) {
        let binary = protobuf_codec::encode(table, id, &value);
        let again = protobuf_codec::decode_as(table, id, &binary).expect("own protobuf decodes");
        same(&again.value, &value, "JSON to protobuf and back");
    }
    let binary = cbor_codec::encode(table, id, &value);
    let again = cbor_codec::decode_as(table, id, &binary).expect("own CBOR decodes");
    let mut again = again.value;
    normalize(table, id, &mut again);
    same(&again, &value, "JSON to CBOR and back");
    let text = yaml_codec::encode(&value);
    let again = yaml_codec::decode_as(table, id, &text).expect("own YAML decodes");
    let mut again = again.value;
    normalize(table, id, &mut again);
    same(&again, &value, "JSON to YAML and back");
}

/// YAML, with and without a type.
pub(crate) fn yaml(data: &[u8]) {
    let Some((resource, bytes)) = sample::choose(data) else { return };
    let table = Table::builtin();
    if let Ok(decoded) = yaml_codec::decode(bytes) {
        let again = yaml_codec::decode(&yaml_codec::encode(&decoded.value)).expect("own YAML decodes");
        same(&again.value, &decoded.value, "YAML there and back");
    }
    let Ok(typed) = yaml_codec::decode_as(table, resource.type_id, bytes) else { return };
    // It is stored as JSON.
    let again = json_codec::decode_as(table, resource.type_id, &json_codec::encode(&typed.value));
    same(&again.expect("YAML fits JSON").value, &typed.value, &format!("{} YAML to JSON", resource.kind));
    stored(resource.type_id, typed.value);
}

/// Kubernetes' protobuf: with its envelope, or a message that gets one.
pub(crate) fn protobuf(data: &[u8]) {
    let Some((resource, bytes)) = sample::choose(data) else { return };
    let table = Table::builtin();
    let Ok(typed) = protobuf_codec::decode_as(table, resource.type_id, bytes) else { return };
    let binary = protobuf_codec::encode(table, resource.type_id, &typed.value);
    let again = protobuf_codec::decode_as(table, resource.type_id, &binary).expect("own protobuf decodes");
    same(&again.value, &typed.value, &format!("{} there and back", resource.kind));
    let text = json_codec::encode(&typed.value);
    let again = json_codec::decode_as(table, resource.type_id, &text).expect("protobuf fits JSON");
    let mut again = again.value;
    normalize(table, resource.type_id, &mut again);
    same(&again, &typed.value, &format!("{} protobuf to JSON", resource.kind));
}

/// CBOR, with and without a type.
pub(crate) fn cbor(data: &[u8]) {
    let Some((resource, bytes)) = sample::choose(data) else { return };
    let table = Table::builtin();
    if let Ok(decoded) = cbor_codec::decode(bytes) {
        let again =
            cbor_codec::decode(&cbor_codec::document(table, &decoded.value)).expect("own CBOR decodes");
        // Byte strings of a type come back as base64, as they were.
        same(&again.value, &decoded.value, "CBOR there and back");
    }
    let Ok(typed) = cbor_codec::decode_as(table, resource.type_id, bytes) else { return };
    let binary = cbor_codec::encode(table, resource.type_id, &typed.value);
    let again = cbor_codec::decode_as(table, resource.type_id, &binary).expect("own CBOR decodes");
    same(&again.value, &typed.value, &format!("{} there and back", resource.kind));
    let again = json_codec::decode_as(table, resource.type_id, &json_codec::encode(&typed.value));
    same(&again.expect("CBOR fits JSON").value, &typed.value, &format!("{} CBOR to JSON", resource.kind));
    stored(resource.type_id, typed.value);
}

pub(crate) fn json_seeds() -> Vec<Vec<u8>> {
    sample::objects().iter().map(|(at, value)| sample::chosen(*at, &json_codec::encode(value))).collect()
}

pub(crate) fn yaml_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> =
        sample::objects().iter().map(|(at, value)| sample::chosen(*at, &yaml_codec::encode(value))).collect();
    let forms = "a: &x [1, 0x1f, 010, .inf, ~, yes]\nb: *x\nc: |\n  text\n   more\nd: >-\n  folded\n  text\n? e\n: {f: 'g', \"h\\u00e4\": !!str 1}\n---\nnext\n";
    seeds.push(sample::chosen(0, forms.as_bytes()));
    seeds
}

pub(crate) fn protobuf_seeds() -> Vec<Vec<u8>> {
    let table = Table::builtin();
    let of = |(at, value): &(usize, Value)| {
        sample::chosen(*at, &protobuf_codec::encode(table, table.resources()[*at].type_id, value))
    };
    sample::objects().iter().map(of).collect()
}

pub(crate) fn cbor_seeds() -> Vec<Vec<u8>> {
    let table = Table::builtin();
    let of = |(at, value): &(usize, Value)| {
        sample::chosen(*at, &cbor_codec::encode(table, table.resources()[*at].type_id, value))
    };
    sample::objects().iter().map(of).collect()
}
