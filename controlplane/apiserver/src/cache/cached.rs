//! One object as it is kept: the bytes readers get, and what selectors and owners are asked about.
//!
//! A stored value is the object's JSON without its resourceVersion, which nobody knows before the write; the bytes
//! in the cache are the stored ones with the revision put in at the start of the metadata.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use pagurus_controlplane_api::key::ObjectKey;
use pagurus_controlplane_store::Revision;
use serde_json::Value;

use crate::registry::FieldName;
use crate::strategy::Strategy;

/// Begins the metadata in stored values, which are written by [`stored_bytes`] alone.
const METADATA: &[u8] = b"\"metadata\":{";
const FIELD: &[u8] = b"\"resourceVersion\":\"";

/// An object in the cache.
#[derive(Debug, Clone)]
pub struct Cached {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The revision that wrote it.
    pub revision: Revision,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The values of its kind's selectable fields.
    pub fields: Box<[(FieldName, String)]>,
    /// The uids of its owners.
    pub owners: Box<[String]>,
    /// Its JSON in the storage version, resourceVersion inside.
    pub bytes: Bytes,
    /// What is stored is in an older form: a write brings it up to date even if it changes nothing.
    pub older: bool,
}

impl Cached {
    /// From a stored value and the revision that wrote it.
    pub fn read(
        stored: &Bytes,
        revision: Revision,
        strategy: &dyn Strategy,
    ) -> Result<Self, serde_json::Error> {
        let value: Value = serde_json::from_slice(stored)?;
        let cached = match strategy.stored_form(&value) {
            Some(now) => Self { older: true, ..Self::index(&now, &stored_bytes(&now), strategy) },
            None => Self::index(&value, stored, strategy),
        };
        Ok(cached.at_revision(revision))
    }

    /// From a value and its stored bytes, with no revision yet.
    pub fn index(value: &Value, stored: &Bytes, strategy: &dyn Strategy) -> Self {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let labels = value.pointer("/metadata/labels").and_then(Value::as_object);
        let owners = value.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        Self {
            key: ObjectKey::of(value),
            revision: 0,
            uid: text("/metadata/uid").to_owned(),
            labels: labels
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
                .collect(),
            fields: fields(value, strategy),
            owners: owners
                .into_iter()
                .flatten()
                .filter_map(|o| o.get("uid").and_then(Value::as_str).map(str::to_owned))
                .collect(),
            bytes: stored.clone(),
            older: false,
        }
    }

    /// The same object by other rules: in their present form and with their selectable fields.
    pub fn indexed_by(&self, strategy: &dyn Strategy) -> Self {
        let value = self.value();
        match strategy.stored_form(&value) {
            Some(now) => {
                let again = Self::index(&now, &stored_bytes(&now), strategy);
                Self { older: true, ..again.at_revision(self.revision) }
            }
            None => Self { fields: fields(&value, strategy), ..self.clone() },
        }
    }

    /// The same object with another revision in its bytes: how a deletion is told.
    pub fn at_revision(&self, revision: Revision) -> Self {
        Self { revision, bytes: with_revision(&self.bytes, revision), ..self.clone() }
    }

    /// The bytes from the metadata on, with the closing brace: the object without `apiVersion` and `kind`, as lists show it.
    pub fn body(&self) -> &[u8] {
        let at = self.bytes.windows(METADATA.len()).position(|w| w == METADATA);
        at.map_or(&self.bytes[..], |at| &self.bytes[at..])
    }

    /// The parsed object.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// The value of a field that selectors may name, `metadata.name` and `metadata.namespace` included.
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(&self.key.name),
            "metadata.namespace" => Some(self.key.namespace.as_deref().unwrap_or_default()),
            _ => self.fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str()),
        }
    }
}

fn fields(value: &Value, strategy: &dyn Strategy) -> Box<[(FieldName, String)]> {
    let names = strategy.selectable_fields().iter();
    names.map(|name| (name.clone(), strategy.field(value, name).unwrap_or_default())).collect()
}

/// The bytes of an object for the store: JSON without its resourceVersion, the metadata early.
pub fn stored_bytes(object: &Value) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    let Some(fields) = object.as_object() else { return Bytes::from_static(b"{}") };
    for name in ["apiVersion", "kind"] {
        if let Some(value) = fields.get(name) {
            put_field(&mut out, name, value);
        }
    }
    if out.len() > 1 {
        out.push(b',');
    }
    out.extend_from_slice(METADATA);
    for (name, value) in fields.get("metadata").and_then(Value::as_object).into_iter().flatten() {
        if name != "resourceVersion" {
            put_field(&mut out, name, value);
        }
    }
    out.push(b'}');
    for (name, value) in fields {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            put_field(&mut out, name, value);
        }
    }
    out.push(b'}');
    out.into()
}

/// Appends `"name":value`, with a comma unless it is the first in its braces.
fn put_field(out: &mut Vec<u8>, name: &str, value: &Value) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    // Neither can fail: the keys are strings and a Vec takes all.
    let written = serde_json::to_writer(&mut *out, name).and_then(|()| {
        out.push(b':');
        serde_json::to_writer(&mut *out, value)
    });
    debug_assert!(written.is_ok(), "JSON values always encode");
}

/// The bytes with this revision as the first field of the metadata, in place of the one that is there.
fn with_revision(bytes: &Bytes, revision: Revision) -> Bytes {
    let Some(at) = bytes.windows(METADATA.len()).position(|w| w == METADATA) else { return bytes.clone() };
    let at = at + METADATA.len();
    let (head, mut tail) = bytes.split_at(at);
    if tail.starts_with(FIELD)
        && let Some(end) = tail[FIELD.len()..].iter().position(|b| *b == b'"')
    {
        tail = &tail[FIELD.len() + end + 1..];
        tail = tail.strip_prefix(b",").unwrap_or(tail);
    }
    let mut out = BytesMut::with_capacity(bytes.len() + FIELD.len() + 22);
    out.put_slice(head);
    out.put_slice(FIELD);
    out.put_slice(revision.to_string().as_bytes());
    out.put_slice(if tail.starts_with(b"}") { b"\"" } else { b"\"," });
    out.put_slice(tail);
    out.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::strategy::Generic;
    use serde_json::json;

    #[test]
    fn revision_is_put_in_and_replaced() {
        for object in [
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "resourceVersion": "5"}, "spec": {"x": "\"metadata\":{"}}),
            json!({"kind": "K", "metadata": {}, "a": {"metadata": {"resourceVersion": "7"}}}),
            json!({"metadata": {"name": "a"}}),
        ] {
            let stored = stored_bytes(&object);
            let mut expected = object.clone();
            expected["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            assert_eq!(serde_json::from_slice::<Value>(&stored).unwrap(), expected);
            let cached = Cached::read(&stored, 42, &Generic).unwrap();
            expected["metadata"]["resourceVersion"] = "42".into();
            assert_eq!(cached.value(), expected);
            let later = cached.at_revision(12345);
            expected["metadata"]["resourceVersion"] = "12345".into();
            assert_eq!(later.value(), expected);
        }
    }

    #[test]
    fn index() {
        let object = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"k": "v"},
            "ownerReferences": [{"uid": "o"}]}});
        let cached = Cached::read(&stored_bytes(&object), 1, &Generic).unwrap();
        assert_eq!(cached.key, ObjectKey::namespaced("n", "a"));
        assert_eq!((cached.uid.as_str(), cached.labels["k"].as_str(), &*cached.owners[0]), ("u", "v", "o"));
        assert_eq!(cached.field("metadata.namespace"), Some("n"));
        assert_eq!(cached.field("spec.x"), None);
    }
}
