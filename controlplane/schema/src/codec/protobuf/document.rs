//! What servers answer in protobuf: objects, lists of them, metadata alone, statuses, and frames of watches.
//!
//! Must not know: who asks, or where objects come from.

use serde_json::Value;

use super::{UNKNOWN_RAW, encode, envelope_head, seal, wire};
use crate::table::{Table, TypeId};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
/// Fields of every list, and of `PartialObjectMetadata`.
const METADATA: u32 = 1;
const ITEMS: u32 = 2;
/// Fields of `WatchEvent`, and the only one of the `RawExtension` in it.
const EVENT_TYPE: u32 = 1;
const EVENT_OBJECT: u32 = 2;
const RAW: u32 = 1;

/// Encodes a document by the `apiVersion` and `kind` that it has, in its envelope. None: the table has no such kind.
pub fn document(table: &Table, value: &Value) -> Option<Vec<u8>> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let type_of = |kind: &str| match (group, kind) {
        ("meta.k8s.io", "PartialObjectMetadata") => Some(Item::Metadata),
        _ => table.kind_type(group, version, kind).map(Item::Whole),
    };
    let raw = match (kind.strip_suffix("List"), value.get("items")) {
        (Some(of), Some(items)) if type_of(kind).is_none() => list(table, type_of(of)?, value, items)?,
        _ if kind == "Status" => encode::message(table, table.type_named(STATUS)?, value),
        _ => type_of(kind)?.message(table, value)?,
    };
    Some(seal(api_version, kind, &raw))
}

/// What stands in a list, or alone.
#[derive(Clone, Copy)]
enum Item {
    Whole(TypeId),
    Metadata,
}

impl Item {
    fn message(self, table: &Table, value: &Value) -> Option<Vec<u8>> {
        match self {
            Self::Whole(id) => Some(encode::message(table, id, value)),
            Self::Metadata => {
                let metadata = encode::message(table, table.type_named(OBJECT_META)?, value.get("metadata")?);
                let mut raw = Vec::with_capacity(metadata.len() + 6);
                wire::put_bytes(&mut raw, METADATA, &metadata);
                Some(raw)
            }
        }
    }
}

fn list(table: &Table, item: Item, value: &Value, items: &Value) -> Option<Vec<u8>> {
    let none = Value::Object(serde_json::Map::new());
    let metadata =
        encode::message(table, table.type_named(LIST_META)?, value.get("metadata").unwrap_or(&none));
    let mut raw = Vec::new();
    wire::put_bytes(&mut raw, METADATA, &metadata);
    for value in items.as_array().into_iter().flatten() {
        wire::put_bytes(&mut raw, ITEMS, &item.message(table, value)?);
    }
    Some(raw)
}

/// The message of an object of a type, without an envelope.
pub fn message(table: &Table, id: TypeId, value: &Value) -> Vec<u8> {
    encode::message(table, id, value)
}

/// What a list begins with whose items, each with its [`item_head`], have so many bytes. [`TAIL`] follows the items.
pub fn list_head(table: &Table, api_version: &str, kind: &str, metadata: &Value, items: usize) -> Vec<u8> {
    let metadata = table.type_named(LIST_META).map(|id| encode::message(table, id, metadata));
    let mut raw = Vec::new();
    wire::put_bytes(&mut raw, METADATA, &metadata.unwrap_or_default());
    let mut document = envelope_head(api_version, kind);
    wire::put_head(&mut document, UNKNOWN_RAW, raw.len() + items);
    document.extend_from_slice(&raw);
    document
}

/// What comes before the message of an item that has so many bytes.
pub fn item_head(length: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(6);
    wire::put_head(&mut head, ITEMS, length);
    head
}

/// A frame of a watch, with its length before it: an event of this type (`ADDED`, ...) about this document.
pub fn frame(event: &str, document: &[u8]) -> Vec<u8> {
    let mut object = Vec::with_capacity(document.len() + 8);
    wire::put_bytes(&mut object, RAW, document);
    // The length is put in at the end.
    let mut out = vec![0; 4];
    wire::put_bytes(&mut out, EVENT_TYPE, event.as_bytes());
    wire::put_bytes(&mut out, EVENT_OBJECT, &object);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}
