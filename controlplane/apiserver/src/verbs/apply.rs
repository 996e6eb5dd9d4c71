//! Server-side apply: the client's whole intent, merged into what is there by who owns what.

use bytes::Bytes;
use pagurus_controlplane_api::key::GroupVersionKind;
use pagurus_controlplane_api::status::{ApiError, Reason, StatusDetails};
use pagurus_controlplane_api::time;
use pagurus_controlplane_schema::codec;
use pagurus_controlplane_schema::fields::{self, ApplyError, Conflict, Writer};
use serde_json::Value;

use super::body::Format;
use super::options::FieldValidation;
use super::update::{Done, Proposal, change};
use super::write::{form, is_unowned, reset, writer};
use super::{Request, body, metadata};
use crate::engine::Engine;

/// Applies a configuration.
pub(super) async fn apply(
    engine: &Engine,
    request: &Request<'_>,
    format: Format,
    bytes: &Bytes,
) -> Result<Done, ApiError> {
    let config = read(request, format, bytes)?;
    let resource = &request.target.resource;
    let wanted = GroupVersionKind::new(&*resource.group, &*resource.version, &*resource.kind);
    check(request, &wanted, &config)?;
    let resource = &request.target.resource;
    let (api_version, now) = (resource.api_version(), time::now_text());
    change(engine, request, |old| {
        let mut live = old.map(|old| request.target.in_request_version(old)).transpose()?;
        let (form, options) = (form(&request.target), &request.options);
        let writer = writer(request, &api_version, &now);
        let reset = reset(request);
        if let Some(live) = live.as_mut().filter(|live| is_unowned(live)) {
            // Whoever made the object until now counts as one manager.
            let earlier = Writer { manager: "before-first-apply", subresource: "", ..writer };
            fields::update(&form, None, live.to_mut(), &earlier, &reset);
        }
        let applied = fields::apply(&form, live.as_deref(), &config, &writer, options.force, &reset);
        let mut applied = applied.map_err(|e| apply_error(&wanted, &config, e))?;
        if let Some(fields) = applied.as_object_mut() {
            fields.insert("apiVersion".to_owned(), api_version.as_str().into());
            fields.insert("kind".to_owned(), (*resource.kind).into());
        }
        if old.is_none() {
            let namespace = request.namespace.map(Value::from);
            metadata::of(&mut applied).extend(namespace.map(|n| ("namespace".to_owned(), n)));
            metadata::of(&mut applied).remove("resourceVersion");
            if !metadata::text(&config, "uid").is_empty() {
                return Err(uid_mismatch(request));
            }
        }
        let given = body::defaulted(&request.target, applied)?;
        Ok(Proposal { given, uid: None, creates: request.sub.is_none(), owned: true })
    })
    .await
}

/// Reads a configuration; keys given twice are told as the request wants them.
pub(super) fn read(request: &Request<'_>, format: Format, bytes: &Bytes) -> Result<Value, ApiError> {
    let decoded = match format {
        Format::Cbor => codec::cbor::decode(bytes)
            .map_err(|error| ApiError::bad_request(format!("error decoding CBOR: {error}"))),
        // JSON is YAML too.
        _ => codec::yaml::decode(bytes)
            .map_err(|error| ApiError::bad_request(format!("error encoding patch: {error}"))),
    }?;
    let duplicates = decoded.duplicate_fields.iter().cloned();
    match request.options.validation {
        FieldValidation::Strict if !decoded.duplicate_fields.is_empty() => {
            let all = duplicates.collect::<Vec<_>>().join(", ");
            return Err(ApiError::bad_request(format!("error strict decoding YAML: {all}")));
        }
        FieldValidation::Warn => duplicates.for_each(|text| request.warnings.add(text)),
        _ => {}
    }
    Ok(decoded.value)
}

/// Whether the configuration is for the object of the request, and of the kind that is wanted.
pub(super) fn check(
    request: &Request<'_>,
    wanted: &GroupVersionKind,
    config: &Value,
) -> Result<(), ApiError> {
    if !config.is_object() {
        return Err(ApiError::bad_request("error decoding patch: the configuration is not an object"));
    }
    let gvk = GroupVersionKind::of(config).map_err(|e| ApiError::bad_request(e.to_string()))?;
    if gvk != *wanted {
        let text = if gvk.group.is_empty() { format!("/{}", gvk.version) } else { gvk.api_version() };
        return Err(ApiError::bad_request(format!("invalid object type: {text}, Kind={}", gvk.kind)));
    }
    let given = metadata::text(config, "name");
    let name = request.name.unwrap_or_default();
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let namespace = metadata::text(config, "namespace");
    if !namespace.is_empty() && request.namespace.is_some_and(|n| n != namespace) {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

fn uid_mismatch(request: &Request<'_>) -> ApiError {
    let resource = &request.target.resource;
    let why = "uid mismatch: the provided object specified uid, and no existing object was found";
    ApiError::conflict(&resource.group, &resource.plural, request.name.unwrap_or_default(), why)
}

/// Why an object of the kind cannot be applied.
pub(super) fn apply_error(kind: &GroupVersionKind, config: &Value, error: ApplyError) -> ApiError {
    match error {
        ApplyError::Typed(error) => {
            let group = if kind.group.is_empty() { "/" } else { "" };
            let (namespace, name) = (metadata::text(config, "namespace"), metadata::text(config, "name"));
            ApiError::unknown(format!(
                "failed to create typed patch object ({namespace}/{name}; {group}{}, Kind={}): {error}",
                kind.api_version(),
                kind.kind
            ))
        }
        ApplyError::Conflicts(conflicts) => conflict(&ApplyError::Conflicts(conflicts.clone()), conflicts),
    }
}

fn conflict(error: &ApplyError, conflicts: Vec<Conflict>) -> ApiError {
    let mut out = ApiError::new(409, Reason::Conflict, error.to_string());
    out.details = Some(Box::new(StatusDetails::default()));
    for conflict in conflicts {
        out = out.cause("FieldManagerConflict", format!("conflict with {}", conflict.owner), &conflict.path);
    }
    out
}
