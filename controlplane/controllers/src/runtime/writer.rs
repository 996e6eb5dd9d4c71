//! Writes of one controller to one kind. Every answer goes into the shared store before the call returns, so that
//! the next pass plans with it.

use std::sync::Arc;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Error};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::object::{Object, deleting, key_of, name, namespace, uid};
use super::store::Store;

/// Writes to objects of one kind with one identity.
pub struct Writer<K> {
    client: Client,
    store: Arc<Store<K>>,
}

impl<K> Clone for Writer<K> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), store: self.store.clone() }
    }
}

impl<K> Writer<K>
where
    K: Object<DynamicType = ()> + DeserializeOwned + Serialize,
{
    /// Writes through `client`, answers into `store`.
    pub fn new(client: Client, store: Arc<Store<K>>) -> Self {
        Self { client, store }
    }
}

impl<K> Writer<K>
where
    K: Object<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Serialize,
{
    fn api(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn keep(&self, mut object: K) -> K {
        object.meta_mut().managed_fields = None;
        self.store.written(object.clone());
        object
    }

    /// Creates an object in the namespace that its metadata names.
    pub async fn create(&self, object: &K) -> Result<K, Error> {
        let api = self.api(namespace(object.meta()));
        Ok(self.keep(api.create(&PostParams::default(), object).await?))
    }

    /// The object as the server has it now.
    pub async fn get(&self, object_namespace: &str, object_name: &str) -> Result<Option<K>, Error> {
        let found = self.api(object_namespace).get_opt(object_name).await?;
        Ok(found.map(|object| self.keep(object)))
    }

    /// Whether the object is really there, the same one, and not being deleted: asked before an adoption, since a stale
    /// cache must not give children to the dead.
    pub async fn lives(&self, object: &K) -> Result<bool, Error> {
        let meta = object.meta();
        let fresh = self.get(namespace(meta), name(meta)).await?;
        Ok(fresh.is_some_and(|f| uid(f.meta()) == uid(meta) && !deleting(f.meta())))
    }

    /// Replaces an object, if its resource version is still the one given.
    pub async fn replace(&self, object: &K) -> Result<K, Error> {
        let api = self.api(namespace(object.meta()));
        Ok(self.keep(api.replace(name(object.meta()), &PostParams::default(), object).await?))
    }

    /// Replaces an object's status, if its resource version is still the one given.
    pub async fn replace_status(&self, object: &K) -> Result<K, Error> {
        let api = self.api(namespace(object.meta()));
        Ok(self.keep(api.replace_status(name(object.meta()), &PostParams::default(), object).await?))
    }

    /// Patches an object.
    pub async fn patch(&self, object: &K, patch: &Patch<Value>) -> Result<K, Error> {
        let api = self.api(namespace(object.meta()));
        Ok(self.keep(api.patch(name(object.meta()), &PatchParams::default(), patch).await?))
    }

    /// Patches an object's status.
    pub async fn patch_status(&self, object: &K, patch: &Patch<Value>) -> Result<K, Error> {
        let api = self.api(namespace(object.meta()));
        Ok(self.keep(api.patch_status(name(object.meta()), &PatchParams::default(), patch).await?))
    }

    /// Deletes exactly this object: not a namesake, and not in a state it has since left if `same_revision`.
    pub async fn delete(&self, object: &K, params: &DeleteParams, same_revision: bool) -> Result<(), Error> {
        let meta = object.meta();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone().filter(|_| same_revision),
            }),
            ..params.clone()
        };
        match self.api(namespace(meta)).delete(name(meta), &params).await {
            Ok(answer) => match answer.left().filter(still_there) {
                Some(left) => {
                    self.keep(left);
                }
                None => self.store.removed(&key_of(meta), uid(meta)),
            },
            Err(error) if super::outcome::not_found(&error) => self.store.removed(&key_of(meta), uid(meta)),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether the answer to a deletion shows an object that waits for its grace period or its finalizers.
fn still_there<K: Object>(left: &K) -> bool {
    let meta = left.meta();
    meta.deletion_timestamp.is_some()
        && (meta.finalizers.as_ref().is_some_and(|f| !f.is_empty())
            || meta.deletion_grace_period_seconds.is_some_and(|s| s > 0))
}
