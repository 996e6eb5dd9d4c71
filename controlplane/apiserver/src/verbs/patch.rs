//! PATCH: JSON patch, merge patch, strategic merge patch; the patched object then goes the way of an update.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::status::{ApiError, Reason, StatusDetails};
use pagurus_controlplane_schema::check::{self, Structural};
use pagurus_controlplane_schema::codec::Decoded;
use pagurus_controlplane_schema::patch::{self, PatchError};
use serde_json::Value;

use super::body::{Expected, Format};
use super::options::FieldValidation;
use super::update::{Done, Proposal, change, match_patched};
use super::{Request, WriteOptions, apply, body, create};
use crate::crd::Custom;
use crate::engine::{Engine, Target};
use crate::request::{Body, Call};
use crate::response::{self, Output};

/// The patches of custom objects that messages name: that in CBOR is there, but kube-apiserver does not name it unless a feature is on.
const CUSTOM: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// The kinds of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Merge,
    Strategic,
    /// Server-side apply, in YAML or CBOR.
    Apply(Format),
}

impl Kind {
    /// What the media type says; `routed` where a router looks at it first, else the handler of custom objects says which it knows.
    pub(super) fn of(call: &Call, routed: bool) -> Result<Self, ApiError> {
        match body::media_type(&call.headers) {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" if routed => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply(Format::Yaml)),
            "application/apply-patch+cbor" => Ok(Self::Apply(Format::Cbor)),
            // There are no types that could say how to merge strategically.
            _ if !routed => Err(ApiError::unsupported_media_type(&CUSTOM)),
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
    let kind = Kind::of(call, target.kind.strategy.custom().is_none())?;
    let bytes = body::read(content, engine.options().max_body).await?;
    let options = WriteOptions::read(call, "PatchOptions", matches!(kind, Kind::Apply(_)))?;
    let request = Request::of(call, target.clone(), options);
    let done = match kind {
        Kind::Apply(format) => apply::apply(engine, &request, format, &bytes).await?,
        _ => patch(engine, &request, kind, &bytes).await?,
    };
    response::object(call, output, &target, done.code(), &done.object)
}

async fn patch(engine: &Engine, request: &Request<'_>, kind: Kind, bytes: &Bytes) -> Result<Done, ApiError> {
    // A missing object is told before a bad patch.
    let parsed = patch::parse(bytes);
    let expected = Expected::of(&request.target);
    change(engine, request, |old| {
        let Some(old) = old else { return Err(request.not_found()) };
        let parsed = parsed.as_ref().map_err(|e| patch_error(e.clone()))?;
        let live = request.target.in_request_version(old)?;
        let patched = patched(&expected, request, kind, &live, parsed)?;
        match_patched(request, &patched)?;
        let mut given = body::defaulted(&request.target, patched)?;
        create::match_namespace(request, &mut given.object)?;
        Ok(Proposal { given, uid: None, creates: false, owned: false })
    })
    .await
}

/// What a patch makes of an object, in the request's version. Strict decoding's objections are told as the request wants them.
pub(super) fn patched(
    expected: &Expected<'_>,
    request: &Request<'_>,
    kind: Kind,
    live: &Value,
    patch: &Decoded,
) -> Result<Value, ApiError> {
    let Expected { table, id, .. } = *expected;
    let apply = || {
        let mut object = live.clone();
        let applied = match kind {
            Kind::Json => patch::json_patch::apply(&mut object, &patch.value),
            Kind::Strategic => patch::strategic::apply(table, id, &mut object, &patch.value),
            Kind::Merge | Kind::Apply(_) => patch::merge::apply(&mut object, &patch.value),
        };
        applied.map(|()| object).map_err(patch_error)
    };
    let mut object = apply()?;
    if kind == Kind::Strategic {
        // What is merged is of the one type whatever it says of itself.
        for name in ["apiVersion", "kind"] {
            match live.get(name) {
                Some(own) => object[name] = own.clone(),
                None => drop(object.as_object_mut().and_then(|fields| fields.remove(name))),
            }
        }
    }
    // What is shown of a patch that fails is made again: most do not.
    let bad = |error: &str| {
        let shown = match (kind, apply()) {
            (Kind::Strategic, _) => patch::printed(&patch.value),
            (_, Ok(whole)) => patch::shown::object(table, id, live, &whole),
            (_, Err(error)) => return error,
        };
        ApiError::invalid("", "", "", vec![FieldError::invalid("patch", shown, error)])
    };
    if kind != Kind::Strategic
        && let Some(error) = body::other_kind(expected, &object)
    {
        return Err(bad(&error));
    }
    let found = match custom(expected, request) {
        Some(custom) => {
            let version = &request.target.resource.version;
            let unknown = custom.receive(version, &mut object).map_err(|error| bad(&error))?;
            Structural { unknown, errors: Vec::new() }
        }
        // What was stored is of the type, so that only what is patched must be looked at, where the patch tells that.
        None => match (kind, strategic_fields(&patch.value)) {
            (Kind::Merge, _) => check::structural_where(table, id, &mut object, &patch.value),
            (Kind::Strategic, Some(named)) => check::structural_where(table, id, &mut object, &named),
            _ => check::structural(table, id, &mut object),
        },
    };
    if let Some(error) = found.errors.first() {
        let strategic =
            if kind == Kind::Strategic { patch::unstructured::objection(table, id, &apply()?) } else { None };
        return Err(bad(strategic.as_ref().unwrap_or(error)));
    }
    let mut unknown: Vec<String> = found.messages().collect();
    if kind == Kind::Strategic {
        unknown.sort();
    }
    let duplicates = patch.duplicate_fields.iter().map(|field| format!("duplicate field \"{field}\""));
    let strict: Vec<String> = duplicates.chain(unknown).collect();
    match request.options.validation {
        FieldValidation::Strict if !strict.is_empty() => {
            return Err(bad(&format!("strict decoding error: {}", strict.join(", "))));
        }
        FieldValidation::Warn => strict.into_iter().for_each(|text| request.warnings.add(text)),
        _ => {}
    }
    Ok(object)
}

/// The uppermost fields that a strategic merge patch changes, each as a whole; none if it has directives beside them.
fn strategic_fields(patch: &Value) -> Option<Value> {
    let names = patch.as_object()?.keys();
    names.map(|name| (!name.starts_with('$')).then(|| (name.clone(), Value::Null))).collect()
}

/// The definition of what is patched, if it is a custom object itself and not a view of it.
fn custom<'a>(expected: &Expected<'_>, request: &'a Request<'_>) -> Option<&'a Custom> {
    let custom = request.target.kind.strategy.custom();
    custom.filter(|_| expected.id == request.target.resource.type_id)
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
