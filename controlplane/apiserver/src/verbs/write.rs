//! What all writes have in common: admission, ownership of fields, and the one write to the store that decides.

use std::sync::Arc;

use bytes::Bytes;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::key::ObjectKey;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_api::time;
use pagurus_controlplane_schema::fields::{self, Form, Set, Writer};
use pagurus_controlplane_schema::normalize::{Emptied, normalize};
use pagurus_controlplane_schema::table::Resource;
use pagurus_controlplane_store::{Store, Txn};
use serde_json::Value;

use super::history::Author;
use super::{Request, metadata, store_error};
use crate::admission::{Attributes, Operation};
use crate::allocate::Reservation;
use crate::cache::{Cached, stored_bytes};
use crate::engine::{Engine, Kind, Target};
use crate::resources::pod_spec::policy;
use crate::strategy::Context;

/// What is stored must be read again, and the JSON reader does not go deeper than 127 levels. Clients' documents are
/// checked for that, but patches and the list of managed fields can go deeper than each document did.
const MOST_DEPTH: usize = 120;
/// The largest object that is stored, with all that the server adds (`managedFields`): one that comes in a single body fits, one
/// that patches make ever bigger does not.
const MOST_BYTES: usize = 6 << 20;

/// What strategies may know of a request.
pub(super) fn context<'a>(request: &'a Request<'_>) -> Context<'a> {
    Context { resource: told_of(&request.target), user: request.user, now: time::now() }
}

/// The resource that strategies are told of: the stored one; a custom one has its subresources for each version.
pub(super) fn told_of(target: &Target) -> &Resource {
    if target.kind.strategy.custom().is_some() { &target.resource } else { &target.kind.resource }
}

/// 422, named as the stored kind is.
pub(super) fn invalid(target: &Target, object: &Value, errors: Vec<FieldError>) -> ApiError {
    let resource = &target.kind.resource;
    ApiError::invalid(&resource.group, &resource.kind, metadata::text(object, "name"), errors)
}

/// Judges an object with the empty lists and maps that it was given, which the stored form does not have.
pub(super) fn judged(
    target: &Target,
    object: &mut Value,
    emptied: &[Emptied],
    judge: impl FnOnce(&Value) -> Vec<FieldError>,
) -> Vec<FieldError> {
    emptied.iter().for_each(|emptied| emptied.put_back(object));
    let errors = judge(object);
    if !emptied.is_empty() {
        normalize(target.table(), target.kind.resource.type_id, object);
    }
    errors
}

/// What the server's options forbid.
pub(super) fn forbidden(engine: &Engine, target: &Target, object: &Value) -> Vec<FieldError> {
    if engine.options().allow_privileged {
        return Vec::new();
    }
    policy::no_privileged(&target.kind.resource, object)
}

/// What a custom object's definition says against it, in the version of the request: clients know its fields by that.
pub(super) fn custom_errors(target: &Target, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let Some(custom) = target.kind.strategy.custom() else { return Vec::new() };
    let seen = |object: &Value| target.to_request_version(object.clone());
    match (seen(object), old.map(seen).transpose()) {
        (Ok(object), Ok(old)) => custom.errors(&target.resource.version, &object, old.as_ref()),
        (Err(error), _) | (_, Err(error)) => vec![FieldError::internal("<nil>", error.message)],
    }
}

/// The changing half of admission.
pub(super) async fn admit(
    engine: &Engine,
    request: &Request<'_>,
    operation: Operation,
    object: Option<&mut Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let name = name(request, object.as_deref());
    let mut attributes = attributes(request, operation, &name, object, old);
    engine.admission().admit(&mut attributes).await
}

/// The refusing half of admission.
pub(super) async fn allow(
    engine: &Engine,
    request: &Request<'_>,
    operation: Operation,
    object: Option<&mut Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let name = name(request, object.as_deref());
    let attributes = attributes(request, operation, &name, object, old);
    engine.admission().validate(&attributes).await
}

fn name(request: &Request<'_>, object: Option<&Value>) -> String {
    match request.name {
        Some(name) => name.to_owned(),
        None => object.map(|o| metadata::text(o, "name").to_owned()).unwrap_or_default(),
    }
}

fn attributes<'a>(
    request: &'a Request<'_>,
    operation: Operation,
    name: &'a str,
    object: Option<&'a mut Value>,
    old: Option<&'a Value>,
) -> Attributes<'a> {
    Attributes {
        operation,
        resource: &request.target.kind.resource,
        subresource: request.sub,
        namespace: request.namespace,
        name,
        object,
        old,
        options: Some(&request.options.object).filter(|o| !o.is_null()),
        user: request.user,
        dry_run: request.options.dry_run,
        warnings: &request.warnings,
    }
}

/// Gives what the write sets to its manager in `metadata.managedFields`.
pub(super) fn own(request: &Request<'_>, live: Option<&Value>, object: &mut Value) -> Result<(), ApiError> {
    let target = &request.target;
    if live.is_some_and(is_unowned) && is_unowned(object) {
        // Nobody's fields are told apart in this object, and only an apply begins to.
        return Ok(());
    }
    if target.is_storage_version() {
        own_in(request, live, object);
        return Ok(());
    }
    // Ownership is told in the version that the client uses.
    let live = live.map(|live| target.to_request_version(live.clone())).transpose()?;
    let mut seen = target.to_request_version(object.clone())?;
    own_in(request, live.as_ref(), &mut seen);
    match seen.pointer_mut("/metadata/managedFields").map(Value::take) {
        Some(managed) => metadata::of(object).insert("managedFields".to_owned(), managed),
        None => metadata::of(object).remove("managedFields"),
    };
    Ok(())
}

/// Whether nobody owns a field of the object.
pub(super) fn is_unowned(object: &Value) -> bool {
    metadata::field(object, "managedFields").and_then(Value::as_array).is_none_or(Vec::is_empty)
}

fn own_in(request: &Request<'_>, live: Option<&Value>, object: &mut Value) {
    let resource = &request.target.resource;
    let now = time::now_text();
    let api_version = resource.api_version();
    let writer = writer(request, &api_version, &now);
    let reset = reset(request);
    fields::update(&form(&request.target), live, object, &writer, &reset);
}

/// What the object of a request is, for ownership.
pub(super) fn form(target: &Target) -> Form<'_> {
    Form { table: target.table(), id: target.resource.type_id, versions: target }
}

/// Who writes, for ownership.
pub(super) fn writer<'a>(request: &'a Request<'_>, api_version: &'a str, now: &'a str) -> Writer<'a> {
    let subresource = request.sub.unwrap_or_default();
    Writer { manager: &request.options.manager, api_version, subresource, now }
}

/// The fields the request cannot set.
pub(super) fn reset(request: &Request<'_>) -> Set {
    let target = &request.target;
    let sub = request.sub.unwrap_or_default();
    Set::of_fields(target.kind.strategy.reset_fields(told_of(target), sub))
}

/// An object that will not be stored, as the answer to a dry run.
pub(super) fn unstored(target: &Target, object: &Value, revision: u64) -> Arc<Cached> {
    let cached = Cached::index(object, &stored_bytes(object), &*target.kind.strategy);
    Arc::new(if revision == 0 { cached } else { cached.at_revision(revision) })
}

/// Stores the object if the stored one is still that of `expected` (0: if there is none). `None` means somebody came between.
pub(super) async fn put(
    engine: &Engine,
    target: &Target,
    key: &ObjectKey,
    expected: u64,
    object: &Value,
) -> Result<Option<Arc<Cached>>, ApiError> {
    let kind = &target.kind;
    put_as(engine.store().as_ref(), kind, kind.cache.store_key(key), expected, object, Bytes::new()).await
}

/// The same for an object that is marked as deleted, which nothing in it tells by whom.
pub(super) async fn mark(
    engine: &Engine,
    request: &Request<'_>,
    current: &Cached,
    object: &Value,
) -> Result<Option<Arc<Cached>>, ApiError> {
    let (kind, note) = (&request.target.kind, Author::of(request, "Delete").to_note());
    let key = kind.cache.store_key(&current.key);
    put_as(engine.store().as_ref(), kind, key, current.revision, object, note).await
}

async fn put_as(
    store: &dyn Store,
    kind: &Kind,
    key: String,
    expected: u64,
    object: &Value,
    note: Bytes,
) -> Result<Option<Arc<Cached>>, ApiError> {
    if is_deeper_than(object, MOST_DEPTH) {
        let text = format!("the object nests more than {MOST_DEPTH} levels deep and cannot be stored");
        return Err(ApiError::bad_request(text));
    }
    let bytes = stored_bytes(object);
    if bytes.len() > MOST_BYTES {
        return Err(ApiError::request_entity_too_large(&format!(
            "the object would have {} bytes, the limit is {MOST_BYTES}: split it",
            bytes.len()
        )));
    }
    let cached = Arc::new(Cached::index(object, &bytes, &*kind.strategy));
    let guard = kind.cache.expect(cached.clone());
    let result = store.txn(Txn::put_if(key, expected, bytes).noted(note)).await;
    drop(guard);
    let result = result.map_err(|e| store_error(&e))?;
    Ok(result.committed.then(|| Arc::new(cached.at_revision(result.revision))))
}

/// Whether lists and objects nest deeper than that.
fn is_deeper_than(value: &Value, levels: usize) -> bool {
    match (value, levels.checked_sub(1)) {
        (Value::Array(_) | Value::Object(_), None) => true,
        (Value::Array(items), Some(left)) => items.iter().any(|item| is_deeper_than(item, left)),
        (Value::Object(fields), Some(left)) => fields.values().any(|value| is_deeper_than(value, left)),
        _ => false,
    }
}

/// The same with something reserved for the object, which it then keeps.
pub(super) async fn put_reserved(
    engine: &Engine,
    target: &Target,
    key: &ObjectKey,
    expected: u64,
    object: &Value,
    reservation: Reservation,
) -> Result<Option<Arc<Cached>>, ApiError> {
    if !target.kind.strategy.reserves() {
        return put(engine, target, key, expected, object).await;
    }
    let (store, kind, object) = (engine.store().clone(), target.kind.clone(), object.clone());
    let key = kind.cache.store_key(key);
    unbroken(async move {
        let stored = put_as(store.as_ref(), &kind, key, expected, &object, Bytes::new()).await?;
        if stored.is_some() {
            reservation.commit();
        }
        Ok(stored)
    })
    .await
}

/// Removes the object if the stored one is still that of `expected`; the revision of the removal. `operation` is what the request
/// does: `Delete`, or `Update` where it takes away the last thing that held a deletion.
pub(super) async fn remove(
    engine: &Engine,
    request: &Request<'_>,
    operation: &str,
    current: &Arc<Cached>,
) -> Result<Option<u64>, ApiError> {
    let target = &request.target;
    let key = target.kind.cache.store_key(&current.key);
    let note = Author::of(request, operation).to_note();
    let txn = Txn::delete_if(key, current.revision).noted(note);
    let strategy = target.kind.strategy.clone();
    if !strategy.reserves() {
        let result = engine.store().txn(txn).await.map_err(|e| store_error(&e))?;
        return Ok(result.committed.then_some(result.revision));
    }
    let (store, allocators, current) = (engine.store().clone(), engine.allocators().clone(), current.clone());
    unbroken(async move {
        let result = store.txn(txn).await.map_err(|e| store_error(&e))?;
        if result.committed {
            strategy.release(&allocators, &current.value());
        }
        Ok(result.committed.then_some(result.revision))
    })
    .await
}

/// Runs to its end even if the client goes away meanwhile: what the store does and what the allocators know must not part.
async fn unbroken<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(ApiError::internal(error)))
}
