//! PATCH: JSON patch, merge patch, strategic merge patch; the patched object then goes the way of an update.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::status::{ApiError, Reason, StatusDetails};
use pagurus_controlplane_schema::check;
use pagurus_controlplane_schema::patch::{self, PatchError};
use serde_json::Value;

use super::options::FieldValidation;
use super::update::{Done, Proposal, change, match_patched};
use super::{Request, WriteOptions, apply, body, create};
use crate::engine::{Engine, Target};
use crate::request::{Body, Call};
use crate::response::{self, Output};

/// The kinds of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl Kind {
    pub(super) fn of(call: &Call) -> Result<Self, ApiError> {
        match body::media_type(&call.headers) {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => {
                let mut error =
                    ApiError::new(415, Reason::UnsupportedMediaType, "415: Unsupported Media Type");
                error.details = Some(Box::new(StatusDetails::default()));
                Err(error)
            }
        }
    }
}

pub(super) async fn answer(
    engine: &Arc<Engine>,
    call: &Call,
    target: Arc<Target>,
    output: &Output,
    content: Body,
) -> Result<Response<Body>, ApiError> {
    let kind = Kind::of(call)?;
    let bytes = body::read(content, engine.options().max_body).await?;
    let options = WriteOptions::read(call, "PatchOptions", kind == Kind::Apply)?;
    let request = Request::of(call, target.clone(), options);
    let done = match kind {
        Kind::Apply => apply::apply(engine, &request, &bytes).await?,
        _ => patch(engine, &request, kind, &bytes).await?,
    };
    response::object(call, output, &target, done.code(), &done.object)
}

async fn patch(engine: &Engine, request: &Request<'_>, kind: Kind, bytes: &Bytes) -> Result<Done, ApiError> {
    // A missing object is told before a bad patch.
    let parsed = patch::parse(bytes);
    change(engine, request, |old| {
        let Some(old) = old else { return Err(request.not_found()) };
        let parsed = parsed.as_ref().map_err(|e| patch_error(e.clone()))?;
        let live = request.target.to_request_version(old.clone())?;
        let strict = parsed.duplicate_fields.iter().map(|f| format!("duplicate field \"{f}\"")).collect();
        let (patched, strict) = patched(request, kind, live, &parsed.value, strict)?;
        tell(request, &patched, strict)?;
        match_patched(request, &patched)?;
        let mut given = body::defaulted(&request.target, patched)?;
        create::match_namespace(request, &mut given.object)?;
        Ok(Proposal { given, uid: None, creates: false, owned: false })
    })
    .await
}

/// The patched object in the request's version, and what strict decoding objects to.
fn patched(
    request: &Request<'_>,
    kind: Kind,
    mut object: Value,
    patch: &Value,
    mut strict: Vec<String>,
) -> Result<(Value, Vec<String>), ApiError> {
    let (table, id) = (request.target.table(), request.target.resource.type_id);
    let applied = match kind {
        Kind::Json => patch::json_patch::apply(&mut object, patch),
        Kind::Strategic => patch::strategic::apply(table, id, &mut object, patch),
        Kind::Merge | Kind::Apply => patch::merge::apply(&mut object, patch),
    };
    applied.map_err(patch_error)?;
    let shown = object.clone();
    let found = check::structural(table, id, &mut object);
    if let Some(error) = found.errors.first() {
        return Err(bad_result(&shown, error));
    }
    strict.extend(found.messages());
    Ok((object, strict))
}

/// Warns of what strict decoding objects to, or refuses it.
fn tell(request: &Request<'_>, object: &Value, strict: Vec<String>) -> Result<(), ApiError> {
    match request.options.validation {
        FieldValidation::Strict if !strict.is_empty() => {
            Err(bad_result(object, &format!("strict decoding error: {}", strict.join(", "))))
        }
        FieldValidation::Warn => {
            strict.into_iter().for_each(|text| request.warnings.add(text));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// 422 for a patch whose result is not of the type.
fn bad_result(object: &Value, error: &str) -> ApiError {
    let error = FieldError::invalid("patch", object.to_string(), error);
    ApiError::invalid("", "", "", vec![error])
}

pub(super) fn patch_error(error: PatchError) -> ApiError {
    match error {
        PatchError::BadRequest(message) => ApiError::bad_request(message),
        PatchError::Unprocessable(reason) => {
            tracing::debug!(reason, "a JSON patch does not fit its object");
            let message = "the server rejected our request due to an error in our request";
            let mut error = ApiError::new(422, Reason::Invalid, message);
            error.details = Some(Box::new(StatusDetails::default()));
            error
        }
        PatchError::Inconsistent(message) => ApiError::unknown(message),
        PatchError::TooLarge(message) => ApiError::new(413, Reason::RequestEntityTooLarge, message),
    }
}
