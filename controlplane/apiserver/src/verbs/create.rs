//! POST: a new object, and the creations that a PUT or an apply can come to.

use std::sync::Arc;

use http::Response;
use pagurus_controlplane_api::key::ObjectKey;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::normalize;
use serde_json::Value;

use super::body::Given;
use super::write::{
    admit, allow, context, custom_errors, forbidden, invalid, judged, own, put_reserved, unstored,
};
use super::{Request, WriteOptions, body, get, metadata};
use crate::admission::Operation;
use crate::cache::Cached;
use crate::engine::{Engine, Target};
use crate::request::{Body, Call};
use crate::response::{self, Output};

/// How often a generated name that is taken is made anew.
const ATTEMPTS: usize = 8;

pub(super) async fn answer(
    engine: &Arc<Engine>,
    call: &Call,
    target: Arc<Target>,
    output: &Output,
    content: Body,
) -> Result<Response<Body>, ApiError> {
    let format = body::format(&call.headers)?;
    let bytes = body::read(content, engine.options().max_body).await?;
    let options = WriteOptions::read(call, "CreateOptions", false)?;
    let validation = options.validation;
    let given = body::object(&target, format, &bytes, validation, &call.warnings)?;
    let request = Request::of(call, target.clone(), options);
    let created = store(engine, &request, given, true).await?;
    response::object(call, output, &target, 201, &created)
}

/// Creates an object of the request's version, not yet defaulted.
pub(crate) async fn object(engine: &Engine, request: &Request<'_>, object: Value) -> Result<Value, ApiError> {
    let given = body::defaulted(&request.target, object)?;
    let created = store(engine, request, given, true).await?;
    request.target.to_request_version(created.value())
}

/// Puts a new object, defaulted and in the stored form, through all steps. `owns` is false when the object's managedFields are
/// already settled (apply).
pub(super) async fn store(
    engine: &Engine,
    request: &Request<'_>,
    given: Given,
    owns: bool,
) -> Result<Arc<Cached>, ApiError> {
    let Given { mut object, emptied } = given;
    let (target, strategy) = (&request.target, &request.target.kind.strategy);
    match_namespace(request, &mut object)?;
    let asked_revision = !metadata::text(&object, "resourceVersion").is_empty();
    metadata::wipe(&mut object);
    warn_of_owners(request, &mut object);
    if owns {
        own(request, None, &mut object)?;
    }
    admit(engine, request, Operation::Create, Some(&mut object), None).await?;
    metadata::fill(&mut object);
    let generated = metadata::text(&object, "name").is_empty();
    metadata::generate_name(&mut object);
    strategy.prepare_create(&context(request), &mut object);
    if strategy.counts_generations() {
        metadata::of(&mut object).insert("generation".to_owned(), 1.into());
    }
    normalize(target.table(), target.kind.resource.type_id, &mut object);
    let errors = judged(target, &mut object, &emptied, |object| {
        let mut errors = metadata::validate(object, target.kind.resource.namespaced, &**strategy);
        errors.extend(match strategy.custom() {
            Some(_) => custom_errors(target, object, None),
            None => strategy.validate(object),
        });
        if strategy.custom().is_none() {
            errors.extend(metadata::unqualified_finalizers(&target.kind.resource.group, object));
        }
        errors.extend(forbidden(engine, target, object));
        errors
    });
    if !errors.is_empty() {
        return Err(invalid(target, &object, errors));
    }
    strategy.warnings(&object, None).into_iter().for_each(|text| request.warnings.add(text));
    allow(engine, request, Operation::Create, Some(&mut object), None).await?;
    if asked_revision {
        return Err(ApiError::unknown("resourceVersion should not be set on objects to be created"));
    }
    insert(engine, request, object, generated).await
}

/// Reserves and stores; a generated name is made anew while it is taken.
async fn insert(
    engine: &Engine,
    request: &Request<'_>,
    mut object: Value,
    generated: bool,
) -> Result<Arc<Cached>, ApiError> {
    let (target, strategy) = (&request.target, &request.target.kind.strategy);
    for attempt in 1.. {
        let key = ObjectKey::of(&object);
        let taken = if request.options.dry_run {
            get::newest(target, key.namespace.as_deref(), &key.name).await?.is_some()
        } else {
            false
        };
        if !taken {
            let reservation = strategy.reserve(engine.allocators(), &mut object, None)?;
            if request.options.dry_run {
                return Ok(unstored(target, &object, 0));
            }
            if let Some(stored) = put_reserved(engine, target, &key, 0, &object, reservation).await? {
                target.convert_ahead(vec![stored.clone()]).await?;
                return Ok(stored);
            }
        }
        let resource = &target.resource;
        let mut error = ApiError::already_exists(&resource.group, &resource.plural, &key.name);
        if !generated {
            return Err(error);
        }
        if attempt == ATTEMPTS {
            error.message.push_str(", the server was not able to generate a unique name for the object");
            return Err(error.retry_after(1));
        }
        metadata::of(&mut object).remove("name");
        metadata::generate_name(&mut object);
    }
    unreachable!("the loop ends by returning")
}

/// The object must be for the namespace of the request; one that says nothing is.
pub(super) fn match_namespace(request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
    let given = metadata::text(object, "namespace");
    match request.namespace {
        Some(namespace) if given.is_empty() => {
            metadata::of(object).insert("namespace".to_owned(), namespace.into());
        }
        Some(namespace) if given != namespace => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Some(_) => {}
        // Cluster-wide: whatever was said is taken back.
        None => drop(metadata::of(object).remove("namespace")),
    }
    Ok(())
}

/// Drops owners that are named twice and says so.
pub(super) fn warn_of_owners(request: &Request<'_>, object: &mut Value) {
    let twice = metadata::dedup_owners(object);
    if !twice.is_empty() {
        request.warnings.add(format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        ));
    }
}
