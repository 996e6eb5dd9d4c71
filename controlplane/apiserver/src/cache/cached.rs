//! One object as it is kept: the bytes readers get, and what selectors and owners are asked about.
//!
//! A stored value is the object's JSON without its resourceVersion, which nobody knows before the write; the bytes
//! in the cache are the stored ones with the revision put in at the start of the metadata.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use pagurus_controlplane_api::ages::Aged;
use pagurus_controlplane_api::key::ObjectKey;
use pagurus_controlplane_store::Revision;
use serde_json::Value;

use super::forms::Forms;
use crate::registry::FieldName;
use crate::strategy::Strategy;

/// Begins the metadata in stored values, which are written by [`stored_bytes`] alone.
const METADATA: &[u8] = b"\"metadata\":{";
const FIELD: &[u8] = b"\"resourceVersion\":\"";

/// What selectors, owners and owned ones are asked about; the same for all revisions of an object that differ in nothing else.
#[derive(Debug, Clone)]
pub struct Index {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The values of its kind's selectable fields.
    pub fields: Box<[(FieldName, String)]>,
    /// The uids of its owners.
    pub owners: Box<[String]>,
}

/// An object in the cache.
#[derive(Debug)]
pub struct Cached {
    index: Arc<Index>,
    /// The revision that wrote it.
    pub revision: Revision,
    /// Its JSON in the storage version, resourceVersion inside.
    pub bytes: Bytes,
    /// What is stored is in an older form: a write brings it up to date even if it changes nothing.
    pub older: bool,
    /// Where the metadata end in the bytes; 0 while nobody has asked.
    metadata_end: AtomicU32,
    forms: Forms,
}

impl Deref for Cached {
    type Target = Index;

    fn deref(&self) -> &Index {
        &self.index
    }
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
        let metadata = |name: &str| value.get("metadata").and_then(|metadata| metadata.get(name));
        let labels = metadata("labels").and_then(Value::as_object);
        let owners = metadata("ownerReferences").and_then(Value::as_array);
        let index = Index {
            key: ObjectKey::of(value),
            uid: metadata("uid").and_then(Value::as_str).unwrap_or_default().to_owned(),
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
        };
        Self::new(Arc::new(index), 0, stored.clone())
    }

    fn new(index: Arc<Index>, revision: Revision, bytes: Bytes) -> Self {
        Self {
            index,
            revision,
            bytes,
            older: false,
            metadata_end: AtomicU32::new(0),
            forms: Forms::default(),
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
            None => {
                let index = Index { fields: fields(&value, strategy), ..Index::clone(&self.index) };
                Self { older: self.older, ..Self::new(Arc::new(index), self.revision, self.bytes.clone()) }
            }
        }
    }

    /// The same object with another revision in its bytes: how a deletion is told.
    pub fn at_revision(&self, revision: Revision) -> Self {
        let bytes = with_revision(&self.bytes, revision);
        Self { older: self.older, ..Self::new(self.index.clone(), revision, bytes) }
    }

    /// The bytes from the metadata on, with the closing brace: the object without `apiVersion` and `kind`, as lists show it.
    pub fn body(&self) -> &[u8] {
        let at = self.bytes.windows(METADATA.len()).position(|w| w == METADATA);
        at.map_or(&self.bytes[..], |at| &self.bytes[at..])
    }

    /// The metadata alone, braces included.
    pub fn metadata(&self) -> &[u8] {
        let Some(at) = self.bytes.windows(METADATA.len()).position(|w| w == METADATA) else { return b"{}" };
        let from = at + METADATA.len() - 1;
        let known = self.metadata_end.load(Ordering::Relaxed) as usize;
        let end = if known > 0 { known } else { from + object_length(&self.bytes[from..]) };
        self.metadata_end.store(u32::try_from(end).unwrap_or(0), Ordering::Relaxed);
        &self.bytes[from..end]
    }

    /// What the object is sent as in a form other than the stored one, made the first time and kept if there is room. Forms are
    /// numbered by their maker: equal numbers mean equal bytes.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn form<E>(&self, number: u64, make: impl FnOnce() -> Result<Aged, E>) -> Result<Arc<Aged>, E> {
        match self.forms.find(number) {
            Some(form) => Ok(form),
            None => Ok(self.forms.keep(number, make()?)),
        }
    }

    /// Lets go of all forms.
    pub(super) fn forget_forms(&self) {
        self.forms.clear();
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

/// How long the JSON object is that the text begins with; the whole text if it does not end.
fn object_length(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            b'"' => at += string_length(&text[at..]),
            _ => {}
        }
    }
    text.len()
}

/// How long the rest of a JSON string is, its closing quotation mark included.
fn string_length(rest: &[u8]) -> usize {
    let mut escaped = false;
    let end = rest.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.map_or(rest.len(), |end| end + 1)
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
            json!({"metadata": {"annotations": {"a\"}": "}\\", "\\\"": "{"}, "managedFields": [{"x": {}}]}, "spec": {"y": {}}}),
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
            for _ in 0..2 {
                assert_eq!(
                    serde_json::from_slice::<Value>(later.metadata()).unwrap(),
                    expected["metadata"],
                    "{later:?}"
                );
            }
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
