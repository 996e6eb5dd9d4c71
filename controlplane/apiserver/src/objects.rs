//! Read access to stored objects for the steps around the engine: authentication, authorization, admission.
//!
//! They see the caches through this trait and nothing else, so each can be tried with a handful of objects.

mod parsed;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

/// A stored object.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The namespace, empty for what is cluster-wide.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The revision of its last change.
    pub revision: u64,
    /// The object as JSON.
    pub bytes: Bytes,
}

impl Stored {
    /// The object. Stored bytes were encoded by this server; unreadable ones count as null.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// The object, for those who read the same ones again and again: not parsed anew while it is among the last ones asked for.
    pub fn parsed(&self) -> Arc<Value> {
        parsed::parsed(&self.bytes)
    }
}

/// Stored objects by resource.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// One object.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Stored>;

    /// One object, with everything that was acknowledged before this call.
    async fn fresh(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Stored>;

    /// All objects of a namespace, or of all namespaces if it is empty, by namespace and name.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Stored>;

    /// Those of them whose selectable field has that value.
    fn list_where(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        field: &str,
        value: &str,
    ) -> Vec<Stored>;

    /// A number that changes whenever an object of the resource does.
    fn generation(&self, group: &str, resource: &str) -> u64;
}

#[cfg(test)]
pub(crate) mod fake {
    //! Objects in a map.

    use std::collections::BTreeMap;

    use parking_lot::RwLock;

    use super::*;

    /// Objects that a test puts there.
    #[derive(Default)]
    pub(crate) struct FakeObjects {
        objects: RwLock<BTreeMap<(String, String, String), Stored>>,
    }

    impl FakeObjects {
        /// Puts an object; `resource` is `group/plural`, with an empty group for the core one.
        pub(crate) fn put(&self, resource: &str, object: &Value) {
            let text = |pointer: &str| {
                object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let mut objects = self.objects.write();
            let stored = Stored {
                namespace: text("/metadata/namespace"),
                name: text("/metadata/name"),
                revision: objects.len() as u64 + 1,
                bytes: object.to_string().into(),
            };
            objects.insert((resource.to_owned(), stored.namespace.clone(), stored.name.clone()), stored);
        }
    }

    #[async_trait]
    impl Objects for FakeObjects {
        async fn fresh(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Stored> {
            self.get(group, resource, namespace, name)
        }

        fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Stored> {
            let key = (format!("{group}/{resource}"), namespace.to_owned(), name.to_owned());
            self.objects.read().get(&key).cloned()
        }

        fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Stored> {
            let wanted = format!("{group}/{resource}");
            let objects = self.objects.read();
            let of_resource = objects
                .iter()
                .filter(|((r, ns, _), _)| *r == wanted && (namespace.is_empty() || ns == namespace));
            of_resource.map(|(_, stored)| stored.clone()).collect()
        }

        fn list_where(
            &self,
            group: &str,
            resource: &str,
            namespace: &str,
            field: &str,
            value: &str,
        ) -> Vec<Stored> {
            let pointer = format!("/{}", field.replace('.', "/"));
            let mut found = self.list(group, resource, namespace);
            found.retain(|stored| stored.value().pointer(&pointer).and_then(Value::as_str) == Some(value));
            found
        }

        fn generation(&self, _group: &str, _resource: &str) -> u64 {
            self.objects.read().len() as u64
        }
    }
}
