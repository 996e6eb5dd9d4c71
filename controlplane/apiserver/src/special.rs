//! Requests that are not plain storage: reviews, tokens, bindings, evictions, and the way through to the nodes.
//!
//! Each answers from the caches and the engine's own writes; it must not know how objects are stored.

mod binding;
mod component_status;
mod eviction;
mod reviews;
mod token_request;

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use http::Response;
use pagurus_controlplane_api::key::GroupVersionKind;
use pagurus_controlplane_api::status::ApiError;
use serde_json::{Value, json};

use crate::authz::Authorizer;
use crate::engine::{Engine, Special};
use crate::objects::Objects;
use crate::proxy::Proxy;
use crate::request::{Body, Call, Verb};
use crate::response::{self, Offer, Output};
use crate::token::Tokens;
use crate::verbs;

/// See the module's description.
pub struct Specials {
    /// Held weakly: the engine holds this.
    pub engine: Weak<Engine>,
    /// Reads the engine's caches.
    pub objects: Arc<dyn Objects>,
    /// Who decides, for the access reviews.
    pub authorizer: Arc<Authorizer>,
    /// Who signs and checks ServiceAccount tokens.
    pub tokens: Arc<Tokens>,
    /// The way to the nodes.
    pub proxy: Proxy,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Review(reviews::Review),
    Token,
    Binding,
    Eviction,
    Proxy,
    ComponentStatus,
}

fn purpose(call: &Call) -> Option<Purpose> {
    let info = &call.info;
    if info.version != "v1" {
        return None;
    }
    let sub = info.subresource.as_deref().unwrap_or_default();
    let resource = info.resource.as_str();
    match (info.group.as_str(), resource, sub) {
        ("", "pods", "log" | "exec" | "attach" | "portforward" | "proxy") => Some(Purpose::Proxy),
        ("", "services" | "nodes", "proxy") => Some(Purpose::Proxy),
        ("", "componentstatuses", "") if matches!(info.verb, Verb::Get | Verb::List) => {
            Some(Purpose::ComponentStatus)
        }
        _ if info.verb != Verb::Create => None,
        ("", "serviceaccounts", "token") => Some(Purpose::Token),
        ("", "pods", "binding") | ("", "bindings", "") => Some(Purpose::Binding),
        ("", "pods", "eviction") => Some(Purpose::Eviction),
        ("authorization.k8s.io" | "authentication.k8s.io", _, "") => {
            reviews::Review::of_resource(resource).map(Purpose::Review)
        }
        _ => None,
    }
}

#[async_trait]
impl Special for Specials {
    fn takes(&self, call: &Call) -> bool {
        purpose(call).is_some()
    }

    async fn serve(&self, call: Call, body: Body) -> Response<Body> {
        let Some(engine) = self.engine.upgrade() else {
            let error = ApiError::service_unavailable("the server is shutting down");
            return response::failure((&call).into(), &error);
        };
        match purpose(&call) {
            Some(Purpose::Proxy) => {
                self.proxy.serve(&engine, &*self.objects, &self.authorizer, call, body).await
            }
            Some(purpose) => {
                let answer = self.answer(&engine, purpose, &call, body).await;
                response::finish(&call, answer)
            }
            None => response::failure((&call).into(), &ApiError::no_such_resource()),
        }
    }
}

impl Specials {
    async fn answer(
        &self,
        engine: &Engine,
        purpose: Purpose,
        call: &Call,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        // What is asked and done is shown as itself only.
        let views = purpose == Purpose::ComponentStatus;
        let output = Output::negotiate(call, Offer { messages: true, views, routed: true })?;
        let (code, answer) = match purpose {
            Purpose::ComponentStatus => (200, component_status::serve(engine, call, &output).await?),
            Purpose::Review(review) => (201, self.review(engine, review, call, body).await?),
            Purpose::Token => (201, self.token_request(engine, call, body).await?),
            Purpose::Binding => (201, binding::serve(engine, &*self.objects, call, body).await?),
            Purpose::Eviction => (201, eviction::serve(engine, &*self.objects, call, body).await?),
            Purpose::Proxy => return Err(ApiError::no_such_resource()),
        };
        Ok(response::value(call, &output, code, &answer))
    }
}

impl std::fmt::Debug for Specials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Specials").finish_non_exhaustive()
    }
}

/// Reads the object of a request, which must be of that kind; says what its namespace is.
async fn read(
    engine: &Engine,
    (group, version, kind): (&str, &str, &str),
    call: &Call,
    body: Body,
) -> Result<Value, ApiError> {
    let table = engine.table();
    let id = table
        .kind_type(group, version, kind)
        .ok_or_else(|| ApiError::internal(format!("the type table has no {group}/{version} {kind}")))?;
    let gvk = GroupVersionKind::new(group, version, kind);
    let object = verbs::read_object(table, id, gvk, call, body, engine.options().max_body).await?;
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let of_request = call.info.namespace.as_deref().unwrap_or_default();
    if !namespace.is_empty() && namespace != of_request {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(object)
}

/// The answer of something that has been done.
fn done() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
