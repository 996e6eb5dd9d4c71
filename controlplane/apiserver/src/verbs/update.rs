//! PUT, and what every change of a stored object goes through: read, change, check, compare and swap, again if somebody came
//! between.

use std::sync::Arc;

use http::Response;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::normalize;
use serde_json::Value;

use super::body::Given;
use super::write::{
    admit, allow, context, custom_errors, forbidden, invalid, judged, own, put, put_reserved, remove,
    unstored,
};
use super::{Request, WriteOptions, body, create, get, metadata, not_found};
use crate::admission::Operation;
use crate::cache::Cached;
use crate::engine::{Engine, Target};
use crate::request::{Body, Call};
use crate::response::{self, Output};

/// How often a change is tried when others keep coming between.
const ATTEMPTS: usize = 64;

pub(super) async fn answer(
    engine: &Arc<Engine>,
    call: &Call,
    target: Arc<Target>,
    output: &Output,
    content: Body,
) -> Result<Response<Body>, ApiError> {
    let format = body::format(&call.headers)?;
    let bytes = body::read(content, engine.options().max_body).await?;
    let options = WriteOptions::read(call, "UpdateOptions", false)?;
    let validation = options.validation;
    let given = body::object(&target, format, &bytes, validation, &call.warnings)?;
    let request = Request::of(call, target.clone(), options);
    let done = replace(engine, &request, given).await?;
    response::object(call, output, &target, done.code(), &done.object)
}

/// Replaces an object of the request's version, not yet defaulted.
pub(crate) async fn object(engine: &Engine, request: &Request<'_>, object: Value) -> Result<Value, ApiError> {
    let given = body::defaulted(&request.target, object)?;
    let done = replace(engine, request, given).await?;
    request.target.to_request_version(done.object.value())
}

async fn replace(engine: &Engine, request: &Request<'_>, mut given: Given) -> Result<Done, ApiError> {
    match_name(request, &given.object)?;
    create::match_namespace(request, &mut given.object)?;
    let creates = request.sub.is_none() && request.target.kind.strategy.allow_create_on_update();
    let uid = Some(metadata::text(&given.object, "uid").to_owned()).filter(|u| !u.is_empty());
    change(engine, request, |_| {
        Ok(Proposal { given: given.clone(), uid: uid.clone(), creates, owned: false })
    })
    .await
}

/// What a request wants the object to be.
pub(super) struct Proposal {
    /// The whole object.
    pub(super) given: Given,
    /// The uid the stored one must have.
    pub(super) uid: Option<String>,
    /// Whether it may be created.
    pub(super) creates: bool,
    /// Whether its managedFields are settled.
    pub(super) owned: bool,
}

/// What a change came to.
pub(super) struct Done {
    pub(super) object: Arc<Cached>,
    pub(super) created: bool,
}

impl Done {
    pub(super) fn code(&self) -> u16 {
        if self.created { 201 } else { 200 }
    }
}

/// Changes the stored object to what `propose` makes of it. Called anew with what is there when somebody came between.
pub(super) async fn change(
    engine: &Engine,
    request: &Request<'_>,
    mut propose: impl FnMut(Option<&Value>) -> Result<Proposal, ApiError>,
) -> Result<Done, ApiError> {
    let target = &request.target;
    let name = request.name.unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let Some(current) = get::newest(target, request.namespace, name).await? else {
            let proposal = propose(None)?;
            if !proposal.creates {
                return Err(request.not_found());
            }
            let created = create::store(engine, request, proposal.given, !proposal.owned).await?;
            return Ok(Done { object: created, created: true });
        };
        target.convert_ahead(vec![current.clone()]).await?;
        let old = current.value();
        let proposal = propose(Some(&old))?;
        if let Some(object) = attempt(engine, request, &current, &old, proposal).await? {
            target.convert_ahead(vec![object.clone()]).await?;
            return Ok(Done { object, created: false });
        }
    }
    Err(modified(target, name))
}

/// One try; `None` when somebody came between.
async fn attempt(
    engine: &Engine,
    request: &Request<'_>,
    current: &Arc<Cached>,
    old: &Value,
    proposal: Proposal,
) -> Result<Option<Arc<Cached>>, ApiError> {
    let (target, strategy) = (&request.target, &request.target.kind.strategy);
    let Proposal { given: Given { mut object, emptied }, uid, owned, .. } = proposal;
    if let Some(uid) = uid.filter(|uid| *uid != current.uid) {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", current.uid);
        return Err(conflict(target, &current.key.name, &why));
    }
    create::warn_of_owners(request, &mut object);
    if !owned {
        own(request, Some(old), &mut object)?;
    }
    admit(engine, request, Operation::Update, Some(&mut object), Some(old)).await?;
    if owned {
        keep_times(&mut object, old);
    }
    check_revision(request, current, &object)?;
    prepare(request, &mut object, old);
    normalize(target.table(), target.kind.resource.type_id, &mut object);
    let errors = judged(target, &mut object, &emptied, |object| errors(engine, request, object, old));
    if !errors.is_empty() {
        return Err(invalid(target, &object, errors));
    }
    if request.sub.is_none() {
        strategy.warnings(&object, Some(old)).into_iter().for_each(|text| request.warnings.add(text));
    }
    allow(engine, request, Operation::Update, Some(&mut object), Some(old)).await?;
    if is_released(target, &object) {
        return finish_deletion(engine, request, current, &object).await;
    }
    if same(&object, old) && !current.older {
        return Ok(Some(current.clone()));
    }
    let reservation = strategy.reserve(engine.allocators(), &mut object, Some(old))?;
    if request.options.dry_run {
        return Ok(Some(unstored(target, &object, current.revision)));
    }
    put_reserved(engine, target, &current.key, current.revision, &object, reservation).await
}

/// The object must be based on what is stored, if it says what it is based on.
fn check_revision(request: &Request<'_>, current: &Cached, object: &Value) -> Result<(), ApiError> {
    let given = metadata::text(object, "resourceVersion");
    let name = &current.key.name;
    let number = match given {
        "" => 0,
        given => given.parse().map_err(|_| {
            let quoted = pagurus_controlplane_api::go::quote(given);
            let detail = format!("strconv.ParseUint: parsing {quoted}: invalid syntax");
            let error = FieldError::invalid("metadata.resourceVersion", given, detail);
            invalid(&request.target, object, vec![error])
        })?,
    };
    if number == 0 && request.target.kind.strategy.allow_unconditional_update() {
        return Ok(());
    }
    if number == 0 {
        let resource = &request.target.kind.resource;
        let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
        return Err(ApiError::invalid(&resource.group, &resource.plural, name, vec![error]));
    }
    if number != current.revision { Err(modified(&request.target, name)) } else { Ok(()) }
}

/// Sets what the server decides.
fn prepare(request: &Request<'_>, object: &mut Value, old: &Value) {
    let strategy = &request.target.kind.strategy;
    metadata::carry_over(object, old);
    let context = context(request);
    match request.sub {
        Some(sub) => strategy.prepare_subresource_update(&context, sub, object, old),
        None => strategy.prepare_update(&context, object, old),
    }
    metadata::carry_over(object, old);
    if strategy.counts_generations() && strategy.generation_changes(context.resource, object, old) {
        let generation = metadata::number(old, "generation").unwrap_or(0) + 1;
        metadata::of(object).insert("generation".to_owned(), generation.into());
    }
}

fn errors(engine: &Engine, request: &Request<'_>, object: &Value, old: &Value) -> Vec<FieldError> {
    let strategy = &request.target.kind.strategy;
    let mut errors = metadata::validate_update(object, old);
    if strategy.custom().is_some() {
        errors.extend(custom_errors(&request.target, object, Some(old)));
        return errors;
    }
    errors.extend(metadata::unqualified_finalizers(&request.target.kind.resource.group, object));
    errors.extend(match request.sub {
        Some(sub) => strategy.validate_subresource_update(sub, object, old),
        None => strategy.validate_update(object, old),
    });
    if matches!(request.sub, None | Some("ephemeralcontainers")) {
        errors.extend(forbidden(engine, &request.target, object));
    }
    errors
}

/// Whether the last thing that held a deletion is gone.
pub(super) fn is_released(target: &Target, object: &Value) -> bool {
    metadata::is_deleting(object)
        && metadata::finalizers(object).is_empty()
        && metadata::number(object, "deletionGracePeriodSeconds").unwrap_or(0) == 0
        && !target.kind.strategy.holds_deletion(object)
}

/// The update that takes the last finalizer away deletes the object; the answer is what it was at last.
async fn finish_deletion(
    engine: &Engine,
    request: &Request<'_>,
    current: &Arc<Cached>,
    object: &Value,
) -> Result<Option<Arc<Cached>>, ApiError> {
    let last = |revision| Some(unstored(&request.target, object, revision));
    if request.options.dry_run {
        return Ok(last(current.revision));
    }
    Ok(remove(engine, request, "Update", current).await?.and_then(last))
}

/// Whether two objects are the same but for their resourceVersion.
fn same(object: &Value, old: &Value) -> bool {
    fn equal(a: Option<&Value>, b: Option<&Value>, but: &str) -> bool {
        let (a, b) = (a.and_then(Value::as_object), b.and_then(Value::as_object));
        let others = |(name, _): &(&String, &Value)| *name != but;
        a.into_iter().flatten().filter(others).eq(b.into_iter().flatten().filter(others))
    }
    equal(Some(object), Some(old), "metadata")
        && equal(object.get("metadata"), old.get("metadata"), "resourceVersion")
}

/// An object that differs from the old one only in when its fields were set (a list that is applied again without what was filled in,
/// and filled in again) was not changed: the times stay.
fn keep_times(object: &mut Value, old: &Value) {
    fn managed(object: &Value) -> &[Value] {
        object.pointer("/metadata/managedFields").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
    fn but_for_time(entry: &Value) -> impl Iterator<Item = (&String, &Value)> {
        entry.as_object().into_iter().flatten().filter(|(name, _)| *name != "time")
    }
    let (new, before) = (managed(object), managed(old));
    let is_like = new.len() == before.len()
        && new.iter().zip(before).all(|(new, before)| but_for_time(new).eq(but_for_time(before)));
    if !is_like || new == before {
        return;
    }
    let before = before.to_vec();
    let new = metadata::of(object).insert("managedFields".to_owned(), before.into());
    if let Some(new) = new.filter(|_| !same(object, old)) {
        metadata::of(object).insert("managedFields".to_owned(), new);
    }
}

fn match_name(request: &Request<'_>, object: &Value) -> Result<(), ApiError> {
    let (given, name) = (metadata::text(object, "name"), request.name.unwrap_or_default());
    if given.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}

fn modified(target: &Target, name: &str) -> ApiError {
    let resource = &target.resource;
    ApiError::modified(&resource.group, &resource.plural, name)
}

fn conflict(target: &Target, name: &str, why: &str) -> ApiError {
    let resource = &target.resource;
    ApiError::conflict(&resource.group, &resource.plural, name, why)
}

/// Checks that a patched object is still the one of the request.
pub(super) fn match_patched(request: &Request<'_>, object: &Value) -> Result<(), ApiError> {
    match_name(request, object)
}

/// See [`Engine::modify`].
pub(crate) async fn modify(
    engine: &Engine,
    target: &Target,
    namespace: Option<&str>,
    name: &str,
    dry_run: bool,
    mut change: impl FnMut(&mut Value) -> Result<(), ApiError> + Send,
) -> Result<Value, ApiError> {
    for _ in 0..ATTEMPTS {
        let current = get::newest(target, namespace, name).await?.ok_or_else(|| not_found(target, name))?;
        let old = current.value();
        let mut object = old.clone();
        change(&mut object)?;
        if dry_run || object == old {
            return Ok(object);
        }
        if let Some(stored) = put(engine, target, &current.key, current.revision, &object).await? {
            return Ok(stored.value());
        }
    }
    Err(modified(target, name))
}
