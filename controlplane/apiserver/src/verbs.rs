//! The verbs of the API on stored resources, and what they have in common: which of them a path knows, and a request's
//! facts as the verbs need them.
//!
//! It must not know any kind, nor how a connection or a credential looks.

pub mod apply;
mod body;
pub mod create;
pub mod delete;
pub mod get;
mod history;
pub mod list;
mod metadata;
mod options;
pub mod patch;
mod scale;
mod selection;
pub mod update;
pub mod watch;
mod write;

use std::sync::Arc;

use http::{Method, Response};
use pagurus_controlplane_api::key::GroupVersionResource;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::table::Resource;

use crate::cache::CacheError;
use crate::engine::{Engine, Target};
use crate::reply;
use crate::request::{Body, Call, UserInfo, Verb, Warnings};
use crate::response::{Offer, Output};

pub use body::read_object;
pub(crate) use history::note_of_server;
pub(crate) use metadata::{embedded as embedded_metadata, unqualified_finalizer};
pub use options::{FieldValidation, WriteOptions};

/// What a verb needs to know of a request.
pub struct Request<'a> {
    /// The resource.
    pub target: Arc<Target>,
    /// The namespace, none for what is cluster-wide.
    pub namespace: Option<&'a str>,
    /// The name, none for what is about to be created.
    pub name: Option<&'a str>,
    /// The subresource.
    pub sub: Option<&'a str>,
    /// Who asks.
    pub user: &'a UserInfo,
    /// Where warnings go.
    pub warnings: Warnings,
    /// How to write.
    pub options: WriteOptions,
}

impl<'a> Request<'a> {
    /// A request of the server itself, on behalf of a user.
    pub fn internal(
        target: Arc<Target>,
        namespace: Option<&'a str>,
        name: Option<&'a str>,
        sub: Option<&'a str>,
        user: &'a UserInfo,
    ) -> Self {
        let options = WriteOptions::internal();
        Self { target, namespace, name, sub, user, warnings: Warnings::default(), options }
    }

    fn of(call: &'a Call, target: Arc<Target>, options: WriteOptions) -> Self {
        let (info, namespaced) = (&call.info, target.resource.namespaced);
        Self {
            target,
            namespace: info.namespace.as_deref().filter(|_| namespaced),
            name: info.name.as_deref(),
            sub: info.subresource.as_deref(),
            user: &call.user,
            warnings: call.warnings.clone(),
            options,
        }
    }

    /// 404 for the named object.
    fn not_found(&self) -> ApiError {
        not_found(&self.target, self.name.unwrap_or_default())
    }
}

/// 404 for an object of that name.
pub(crate) fn not_found(target: &Target, name: &str) -> ApiError {
    ApiError::not_found(&target.resource.group, &target.resource.plural, name)
}

/// Answers a request for a stored resource.
pub(crate) async fn answer(
    engine: &Arc<Engine>,
    call: &Call,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let info = &call.info;
    let gvr = GroupVersionResource::new(info.group.as_str(), info.version.as_str(), info.resource.as_str());
    let registry = engine.registry();
    let served = registry.resource(&gvr.group, &gvr.version, &gvr.resource);
    let Some(served) = served else {
        let versions = registry.group(&gvr.group).map(|group| group.versions()).unwrap_or_default();
        let builtin = versions.iter().any(|v| v.resources().iter().any(|served| !served.is_custom()));
        // In a group where the program serves nothing, nobody can say in a `Status` that something is missing.
        return if builtin { Err(ApiError::no_such_resource()) } else { Ok(reply::no_such_path()) };
    };
    if !served.is_custom() {
        check_path(call, &served.resource)?;
    } else if is_in_scope(call, &served.resource) {
        check_custom_path(call, &served.resource)?;
    } else {
        return Ok(reply::no_such_path());
    }
    let target = served.target.clone().ok_or_else(ApiError::no_such_resource)?;
    if let Some(text) = target.kind.strategy.deprecation(&target.resource.version) {
        call.warnings.add(text);
    }
    let routed = target.kind.strategy.custom().is_none();
    let scales = info.subresource.as_deref() == Some("scale");
    if info.verb == Verb::Patch {
        patch::Kind::of(call, routed)?;
    }
    let output = Output::negotiate(call, Offer { messages: routed || scales, views: true, routed })?;
    if info.subresource.as_deref() == Some("scale") {
        return scale::answer(engine, call, &target, &output, body).await;
    }
    match info.verb {
        Verb::Get if history::is_asked(call)? => history::answer(call, &target, &output).await,
        Verb::Get => get::answer(call, &target, &output).await,
        Verb::List => list::answer(call, &target, &output).await,
        Verb::Watch => watch::answer(engine, call, &target, &output).await,
        Verb::Create => create::answer(engine, call, target, &output, body).await,
        Verb::Update => update::answer(engine, call, target, &output, body).await,
        Verb::Patch => patch::answer(engine, call, target, &output, body).await,
        Verb::Delete => delete::answer(engine, call, target, &output, body).await,
        Verb::DeleteCollection => delete::answer_collection(engine, call, target, &output, body).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Whether a path has a namespace if the custom resource has, unless all are read.
fn is_in_scope(call: &Call, resource: &Resource) -> bool {
    let info = &call.info;
    let everywhere = matches!(info.verb, Verb::List | Verb::Watch);
    if resource.namespaced { info.namespace.is_some() || everywhere } else { info.namespace.is_none() }
}

/// Whether subresource and method exist for the custom resource. No router looks at its paths: what they do not need is passed over.
fn check_custom_path(call: &Call, resource: &Resource) -> Result<(), ApiError> {
    let (info, group, plural) = (&call.info, &resource.group, &resource.plural);
    let name = info.name.as_deref().unwrap_or_default();
    let verbs = match &info.subresource {
        Some(sub) => {
            &resource.subresource(sub).ok_or_else(|| ApiError::not_found(group, plural, name))?.verbs
        }
        None => &resource.verbs,
    };
    if !verbs.iter().any(|verb| &**verb == info.verb.as_str()) {
        return Err(ApiError::method_not_supported(group, plural, info.verb.as_str()));
    }
    if name.is_empty() && matches!(info.verb, Verb::Update | Verb::Patch) {
        return Err(ApiError::bad_request("name must be provided"));
    }
    Ok(())
}

/// Whether path and method exist for the resource.
fn check_path(call: &Call, resource: &Resource) -> Result<(), ApiError> {
    let info = &call.info;
    let below = info.namespace.is_some() && &*resource.plural != "namespaces";
    if below && !resource.namespaced {
        return Err(ApiError::no_such_resource());
    }
    let verbs = match &info.subresource {
        Some(sub) => &resource.subresource(sub).ok_or_else(ApiError::no_such_resource)?.verbs,
        None => &resource.verbs,
    };
    if !info.rest.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    let everywhere = resource.namespaced && info.namespace.is_none();
    let one = matches!(info.verb, Verb::Get | Verb::Update | Verb::Patch | Verb::Delete)
        || info.subresource.is_some();
    let fits = match info.verb {
        // A create has a name only on subresources.
        Verb::Create => info.subresource.is_some() == info.name.is_some(),
        Verb::List | Verb::Watch | Verb::DeleteCollection => true,
        _ => info.name.is_some(),
    };
    let read = matches!(info.verb, Verb::List | Verb::Watch);
    if everywhere && info.is_named {
        return Err(ApiError::no_such_resource());
    }
    let known = verbs.iter().any(|v| &**v == info.verb.as_str());
    if call.method == Method::HEAD || !known || !fits || (everywhere && (one || !read)) {
        return Err(ApiError::method_not_allowed());
    }
    Ok(())
}

impl From<CacheError> for ApiError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::NotYet { asked, current } => Self::too_large_resource_version(asked, current, 1),
            CacheError::Gone { .. } => Self::expired("The resourceVersion for the provided list is too old."),
            CacheError::Store(error) => store_error(&error),
        }
    }
}

/// What a client hears when the store fails.
fn store_error(error: &pagurus_controlplane_store::Error) -> ApiError {
    ApiError::internal(error)
}

#[cfg(test)]
mod tests;
