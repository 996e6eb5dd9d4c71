//! Deletion of what is stored and cannot be read (KEP-3926): without a look at it, so without preconditions, finalizers or dependents.

use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::key::ObjectKey;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_store::Txn;
use serde_json::{Value, json};

use super::super::history::Author;
use super::super::options::IGNORE_READ_ERROR;
use super::super::write::{admit, allow};
use super::super::{Request, get, store_error};
use crate::admission::Operation;
use crate::engine::Engine;

/// Deletes the named object if it is there and cannot be read. The answer is a `Status`, as nobody knows the object.
pub(super) async fn delete(engine: &Engine, request: &Request<'_>) -> Result<Value, ApiError> {
    let (target, name) = (&request.target, request.name.unwrap_or_default());
    let resource = &target.kind.resource;
    if get::newest(target, request.namespace, name).await?.is_some() {
        let detail = "is exclusively used to delete corrupt object(s), try again by removing this option";
        let error = FieldError::invalid(IGNORE_READ_ERROR, true, detail);
        return Err(ApiError::invalid(&resource.group, &resource.kind, name, vec![error]));
    }
    let key = ObjectKey { namespace: request.namespace.map(str::to_owned), name: name.to_owned() };
    let key = target.kind.cache.store_key(&key);
    let stored = engine.store().get(&key, None).await.map_err(|e| store_error(&e))?;
    let stored = stored.ok_or_else(|| request.not_found())?;
    admit(engine, request, Operation::Delete, None, None).await?;
    allow(engine, request, Operation::Delete, None, None).await?;
    let note = Author::of(request, "Delete").to_note();
    let done = engine.store().txn(Txn::delete_if(key, stored.mod_revision).noted(note)).await;
    if !done.map_err(|e| store_error(&e))?.committed {
        return Err(ApiError::modified(&resource.group, &resource.plural, name));
    }
    tracing::warn!(resource = %resource.plural, namespace = request.namespace, name, "an object that cannot be read was deleted unread");
    let mut details = json!({"name": name, "kind": *resource.plural});
    if !resource.group.is_empty() {
        details["group"] = (*resource.group).into();
    }
    Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}))
}
