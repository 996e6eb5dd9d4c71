//! The way through the API server to nodes, pods and services: logs, exec, attach, port-forward, proxies.
//!
//! Bytes pass both ways as they are, upgraded connections of any protocol too. Where a request goes is decided by pure
//! functions in `target`; the connection is made in `forward`. It must not know what is said over a connection.

mod forward;
mod target;
mod trust;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, Method, Response};
use pagurus_controlplane_api::key::GroupVersionResource;
use pagurus_controlplane_api::status::ApiError;
use serde_json::Value;

use crate::authz::{Attributes, Authorizer};
use crate::engine::Engine;
use crate::objects::Objects;
use crate::reply;
use crate::request::{Body, Call, empty_body};
use crate::response::{self, Output};

pub use forward::Proxy;
use target::Target;

impl Proxy {
    /// Answers a request for one of the subresources that lead elsewhere.
    pub async fn serve(
        &self,
        engine: &Engine,
        objects: &dyn Objects,
        authorizer: &Authorizer,
        call: Call,
        body: Body,
    ) -> Response<Body> {
        let sub = call.info.subresource.clone().unwrap_or_default();
        let found = match (call.info.resource.as_str(), sub.as_str()) {
            ("pods", "log" | "exec" | "attach" | "portforward") => {
                pod_stream(engine, objects, authorizer, &call, &sub).await
            }
            ("pods", "proxy") => target::of_pod(engine, &call).await.map(Some),
            ("nodes", "proxy") => target::of_node(objects, &call).map(Some),
            _ => target::of_service(objects, &call).map(Some),
        };
        match found {
            Ok(Some(target)) if sub == "log" => self.log(&target, call).await,
            Ok(Some(target)) => self.forward(&target, call, body).await,
            // The pod is on no node yet: its log is empty.
            Ok(None) => reply::text(http::StatusCode::OK, ""),
            Err(error) => response::failure((&call).into(), &error),
        }
    }

    async fn log(&self, target: &Target, call: Call) -> Response<Body> {
        let output = Output::for_errors((&call).into());
        let response = self.forward(target, call, empty_body()).await;
        if response.status().is_success()
            || response.headers().get("content-type").is_some_and(|t| t == "application/json")
        {
            return response;
        }
        forward::error_of_node(&output, response).await
    }
}

/// Where the streams of a pod's containers are.
async fn pod_stream(
    engine: &Engine,
    objects: &dyn Objects,
    authorizer: &Authorizer,
    call: &Call,
    sub: &str,
) -> Result<Option<Target>, ApiError> {
    let method_fits = if sub == "log" {
        matches!(call.method, Method::GET)
    } else {
        matches!(call.method, Method::GET | Method::POST)
    };
    if !method_fits {
        return Err(ApiError::method_not_allowed());
    }
    if sub != "log" {
        if !is_upgrade(&call.headers) {
            return Err(ApiError::bad_request("Upgrade request required"));
        }
        // Opening a stream into a pod is a creation, however the client spells it.
        authorizer.check(&Attributes { verb: "create", ..Attributes::of_request(&call.info, &call.user) })?;
    }
    let pods = GroupVersionResource::new("", "v1", "pods");
    let name = call.info.name.as_deref().unwrap_or_default();
    let pod = engine.get(&pods, call.info.namespace.as_deref(), name).await?;
    target::of_stream(objects, &pod, sub, &call.query)
}

/// Whether the client wants to speak something else than HTTP.
fn is_upgrade(headers: &HeaderMap) -> bool {
    let wanted = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    headers.contains_key(UPGRADE)
        && wanted.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
