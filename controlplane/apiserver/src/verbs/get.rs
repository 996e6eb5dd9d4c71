//! GET of one object, or of a subresource that is the object itself.

use std::sync::Arc;

use http::Response;
use pagurus_controlplane_api::status::ApiError;
use serde_json::Value;

use super::list::{self, Page};
use super::not_found;
use crate::cache::Cached;
use crate::engine::Target;
use crate::request::{Body, Call};
use crate::response::{self, Output};

pub(super) async fn answer(
    call: &Call,
    target: &Target,
    output: &Output,
) -> Result<Response<Body>, ApiError> {
    let name = call.info.name.as_deref().unwrap_or_default();
    let namespace = call.info.namespace.as_deref().filter(|_| target.resource.namespaced);
    let found = match call.query.get("resourceVersion") {
        // Any state, however old.
        Some("0") => target.kind.cache.get(namespace, name),
        None | Some("") => newest(target, namespace, name).await?,
        // That or a later one, or with `resourceVersionMatch=Exact`, which kube-apiserver has for lists only, exactly that one.
        Some(_) => list::snapshot(target, &Page::read(call)?).await?.get(namespace, name).cloned(),
    };
    let found = found.ok_or_else(|| not_found(target, name))?;
    target.convert_ahead(vec![found.clone()]).await?;
    response::object(call, output, target, 200, &found)
}

/// The object with everything that was acknowledged before this call.
pub(super) async fn newest(
    target: &Target,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Arc<Cached>>, ApiError> {
    let snapshot = target.kind.cache.current().await?;
    Ok(snapshot.get(namespace, name).cloned())
}

/// The same as a value in the request's version.
pub(crate) async fn object(target: &Target, namespace: Option<&str>, name: &str) -> Result<Value, ApiError> {
    let found = newest(target, namespace, name).await?.ok_or_else(|| not_found(target, name))?;
    target.convert_ahead(vec![found.clone()]).await?;
    target.to_request_version(found.value())
}
