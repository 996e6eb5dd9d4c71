//! Objects in the shape and version a client wants: themselves, a table, their metadata; alone, in a list, in a watch event.
//!
//! Where the wanted form is the stored one, bytes are cut and joined, not parsed. It must not know verbs.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use pagurus_controlplane_api::status::{ApiError, Reason};
use pagurus_controlplane_api::time;
use pagurus_controlplane_schema::codec;
use serde_json::{Value, json};

use super::accept::{Format, Include, Output, Shape};
use super::columns;
use crate::cache::{Cached, Change, ChangeKind};
use crate::engine::Target;

/// The metadata of a list.
#[derive(Debug, Clone, Default)]
pub struct ListMeta {
    /// The revision of the list.
    pub revision: u64,
    /// Where to go on.
    pub next: Option<String>,
    /// How many are left.
    pub remaining: Option<usize>,
}

impl ListMeta {
    /// As JSON.
    pub fn to_value(&self) -> Value {
        let mut out = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            out["continue"] = next.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            out["remainingItemCount"] = remaining.into();
        }
        out
    }
}

/// One object in the output's shape.
pub fn view(output: &Output, target: &Target, object: &Arc<Cached>) -> Result<Value, ApiError> {
    match output.shape {
        Shape::Object => target.to_request_version(object.value()),
        Shape::Metadata(version) => Ok(metadata(target, version, object.value())),
        Shape::MetadataList(_) => Err(not_a_list(target)),
        Shape::Table(version, include) => {
            let meta = ListMeta { revision: object.revision, ..ListMeta::default() };
            let rows = vec![row(target, version, include, object)?];
            Ok(table(target, version, &meta, rows, true))
        }
    }
}

/// A list in the output's shape.
pub fn list_value<'a>(
    output: &Output,
    target: &Target,
    meta: &ListMeta,
    objects: impl Iterator<Item = &'a Arc<Cached>>,
) -> Result<Value, ApiError> {
    match output.shape {
        Shape::Object => {
            let bare = |object: &Arc<Cached>| {
                let mut object = target.to_request_version(object.value())?;
                if let Some(fields) = object.as_object_mut() {
                    fields.remove("apiVersion");
                    fields.remove("kind");
                }
                Ok(object)
            };
            let items = objects.map(bare).collect::<Result<Vec<_>, ApiError>>()?;
            Ok(json!({
                "kind": *target.resource.list_kind, "apiVersion": target.resource.api_version(),
                "metadata": meta.to_value(), "items": items,
            }))
        }
        Shape::MetadataList(version) => {
            let items: Vec<Value> = objects.map(|o| metadata(target, version, o.value())).collect();
            Ok(json!({
                "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": meta.to_value(), "items": items,
            }))
        }
        Shape::Metadata(_) => Err(not_one(target)),
        Shape::Table(version, include) => {
            let mut objects: Vec<_> = objects.collect();
            if let Some(order) = target.kind.strategy.row_order() {
                // Stable: those of one place stay in the order of their names.
                objects.sort_by_cached_key(|object| order(&object.value()));
            }
            let rows = objects.into_iter().map(|o| row(target, version, include, o));
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            Ok(table(target, version, meta, rows, true))
        }
    }
}

/// The line of a watch for a change, told as `kind` (which selectors can make another than the change's own). What is not in the
/// stored form is encoded once for all watches of a form. A table's columns are told with the `first` line only.
pub fn event_bytes(
    output: &Output,
    target: &Target,
    change: &Change,
    kind: ChangeKind,
    first: bool,
) -> Result<Bytes, ApiError> {
    if output.is_plain() && target.is_storage_version() {
        // The object is encoded as it is stored; only what is around it is put there.
        return Ok(joined(kind, &told(change, kind).bytes));
    }
    let form = form(output, target, first);
    change.encoded((kind, form), || event(output, target, &told(change, kind), kind, first))
}

/// The line of a watch for an object that is there when the watch begins.
pub fn event(
    output: &Output,
    target: &Target,
    object: &Arc<Cached>,
    kind: ChangeKind,
    first: bool,
) -> Result<Bytes, ApiError> {
    if output.is_plain() && target.is_storage_version() {
        return Ok(joined(kind, &object.bytes));
    }
    let object = match output.shape {
        Shape::Table(version, include) => {
            let meta = ListMeta { revision: object.revision, ..ListMeta::default() };
            let rows = vec![row(target, version, include, object)?];
            table(target, version, &meta, rows, first)
        }
        Shape::MetadataList(version) => metadata(target, version, object.value()),
        _ => view(&Output { format: Format::Json, ..*output }, target, object)?,
    };
    Ok(line(output, kind.as_str(), &object))
}

/// The line that ends a watch with an error.
pub fn status_event(output: &Output, error: &ApiError) -> Bytes {
    line(output, "ERROR", &error.to_status())
}

/// A line of a watch, or what it is in a binary format, of this type about this document.
pub fn line(output: &Output, kind: &str, object: &Value) -> Bytes {
    let frame = match output.format {
        Format::Protobuf => codec::protobuf::frame,
        Format::Cbor => codec::cbor::event,
        Format::Json | Format::Yaml => {
            return format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into();
        }
    };
    let (_, document) = super::encode(output, object);
    frame(kind, &document).into()
}

/// The object that a line shows: for one that leaves a selection its last state in it, with the revision of its leaving.
fn told(change: &Change, kind: ChangeKind) -> Arc<Cached> {
    match &change.previous {
        Some(previous) if kind == ChangeKind::Deleted && change.kind != ChangeKind::Deleted => {
            Arc::new(previous.at_revision(change.object.revision))
        }
        _ => change.object.clone(),
    }
}

fn joined(kind: ChangeKind, object: &Bytes) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(kind.as_str().as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(object);
    line.put_slice(b"}\n");
    line.freeze()
}

/// A number for a form of lines; 0 is the stored form. Equal forms of one cache have equal numbers.
fn form(output: &Output, target: &Target, first: bool) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    (output.format, output.shape, first).hash(&mut hasher);
    (&*target.resource.group, &*target.resource.version).hash(&mut hasher);
    hasher.finish().max(1)
}

fn metadata(target: &Target, version: &str, mut object: Value) -> Value {
    let hidden = target.kind.strategy.field_annotations();
    if !hidden.is_empty()
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.retain(|name, _| !hidden.contains(&name.as_str()));
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"].take(),
    })
}

fn row(target: &Target, version: &str, include: Include, object: &Arc<Cached>) -> Result<Value, ApiError> {
    let mut value = object.value();
    if target.kind.strategy.custom().is_some() {
        // Each version has its own columns.
        value = target.to_request_version(value)?;
    }
    let rules = &target.kind.strategy;
    let (cells, conditions) = (rules.cells(&value, time::now()), rules.row_conditions(&value));
    let included = match include {
        Include::None => Value::Null,
        Include::Metadata => metadata(target, version, value),
        Include::Object => target.to_request_version(value)?,
    };
    let mut row = json!({"cells": cells, "object": included});
    if let Some(conditions) = conditions {
        row["conditions"] = conditions;
    }
    Ok(row)
}

fn table(target: &Target, version: &str, meta: &ListMeta, rows: Vec<Value>, columns: bool) -> Value {
    let definitions = if columns { (*columns::definitions(target)).clone() } else { Value::Null };
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": meta.to_value(), "columnDefinitions": definitions, "rows": rows,
    })
}

fn not_a_list(target: &Target) -> ApiError {
    let message = format!(
        "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
        go_type(target, &target.resource.kind)
    );
    ApiError::new(406, Reason::NotAcceptable, message)
}

fn not_one(target: &Target) -> ApiError {
    let message = format!(
        "you requested PartialObjectMetadata, but the requested object is a list ({})",
        go_type(target, &target.resource.list_kind)
    );
    ApiError::new(406, Reason::NotAcceptable, message)
}

/// The name of the type in the reference implementation, which messages show.
fn go_type(target: &Target, kind: &str) -> String {
    let group = target.resource.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    format!("*{group}.{kind}")
}
