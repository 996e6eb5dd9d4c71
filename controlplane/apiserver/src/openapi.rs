//! The OpenAPI documents: `/openapi/v2` and `/openapi/v3`, made when somebody asks and not kept.

pub(crate) mod descriptions;

use std::borrow::Cow;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use pagurus_controlplane_schema::openapi::{
    self, Format, Part, V2_PROTOBUF, V2_PROTOBUF_ASKED, V3_PROTOBUF, V3_PROTOBUF_ASKED, Version,
};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha512};

use crate::engine::{Engine, Registry};
use crate::paths::GIT_VERSION;
use crate::reply;
use crate::request::{Body, Call};
use crate::response;

use descriptions::Words;

/// What clients may keep for good: the address names the content.
const FOR_GOOD: HeaderValue = HeaderValue::from_static("public, immutable");

const YEAR: jiff::SignedDuration = jiff::SignedDuration::from_hours(365 * 24);

/// See the module's description.
#[derive(Debug)]
pub struct OpenApi {
    engine: Weak<Engine>,
    /// The index of version 3, which is small and costly (it names the content of every document), and of which registry it is.
    index: Mutex<Option<(u64, Arc<Value>)>>,
}

impl OpenApi {
    /// The documents of everything that an engine serves.
    pub fn new(engine: &Arc<Engine>) -> Self {
        Self { engine: Arc::downgrade(engine), index: Mutex::new(None) }
    }

    /// Answers a path if there is such a document.
    pub async fn serve(&self, call: &Call) -> Option<Response<Body>> {
        let path = call.info.path.trim_end_matches('/');
        if !path.starts_with("/openapi/") {
            return None;
        }
        let engine = self.engine.upgrade()?;
        match path {
            "/openapi/v2" => Some(self.v2(&engine, call).await),
            "/openapi/v3" => Some(json(call, self.index(&engine).await.to_string().into())),
            path => self.v3(&engine, call, path.strip_prefix("/openapi/v3/")?).await,
        }
    }

    /// All document paths.
    pub async fn paths(&self) -> Vec<String> {
        let Some(engine) = self.engine.upgrade() else { return Vec::new() };
        let index = self.index(&engine).await;
        let names = index.get("paths").and_then(Value::as_object).into_iter().flatten();
        names.map(|(name, _)| format!("/openapi/v3/{name}")).collect()
    }

    async fn index(&self, engine: &Arc<Engine>) -> Arc<Value> {
        let registry = engine.registry();
        let made = self.index.lock().clone();
        if let Some((_, index)) = made.filter(|(of, _)| *of == registry.generation()) {
            return index;
        }
        let (table, generation) = (engine.table(), registry.generation());
        let made =
            tokio::task::spawn_blocking(move || Arc::new(index(table, &versions(table, &registry)))).await;
        match made {
            Ok(index) => {
                *self.index.lock() = Some((generation, index.clone()));
                index
            }
            Err(error) => {
                tracing::error!(%error, "the index of the OpenAPI documents could not be made");
                Arc::default()
            }
        }
    }

    async fn v3(&self, engine: &Arc<Engine>, call: &Call, name: &str) -> Option<Response<Body>> {
        let index = self.index(engine).await;
        let address =
            index.get("paths").and_then(|paths| paths.get(name)?.get("serverRelativeURL")?.as_str());
        let Some(address) = address else { return Some(reply::empty(StatusCode::NOT_FOUND)) };
        let Some(is_protobuf) = accepted(&call.headers, &V3_PROTOBUF_ASKED) else {
            return Some(reply::empty(StatusCode::NOT_ACCEPTABLE));
        };
        let (format, content_type) =
            if is_protobuf { (Format::Protobuf, V3_PROTOBUF) } else { (Format::Json, "application/json") };
        let hash = address.split_once("hash=").map_or("", |(_, hash)| hash);
        let asked = call.query.get("hash").unwrap_or_default();
        let tag = HeaderValue::from_str(&format!("\"{hash}\"")).ok()?;
        let is_old = !asked.is_empty() && asked != hash;
        let mut response = if is_old {
            // The client has an old index; this is where the document is now.
            let mut moved = reply::bytes(StatusCode::MOVED_PERMANENTLY, content_type, Bytes::new());
            moved.headers_mut().insert(LOCATION, HeaderValue::from_str(address).ok()?);
            moved
        } else if is_known(&call.headers, &tag) {
            reply::not_modified()
        } else {
            let (table, registry, name) = (engine.table(), engine.registry(), name.to_owned());
            let made = made(move || {
                let versions = versions(table, &registry);
                openapi::v3(table, &name, &versions, &Words, GIT_VERSION, format).map(Bytes::from)
            });
            response::whole(&call.headers, content_type, 200, made.await?)
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, tag);
        headers.append(VARY, HeaderValue::from_static("Accept"));
        if !asked.is_empty() && !is_old {
            headers.insert(CACHE_CONTROL, FOR_GOOD);
            let until = jiff::Timestamp::now() + YEAR;
            let until = until.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            headers.insert(EXPIRES, HeaderValue::from_str(&until).ok()?);
        }
        Some(response)
    }

    async fn v2(&self, engine: &Arc<Engine>, call: &Call) -> Response<Body> {
        let Some(is_protobuf) = accepted(&call.headers, &V2_PROTOBUF_ASKED) else {
            return reply::empty(StatusCode::NOT_ACCEPTABLE);
        };
        let (format, content_type) =
            if is_protobuf { (Format::Protobuf, V2_PROTOBUF) } else { (Format::Json, "application/json") };
        // The index names the content of every document of version 3, which are made of the same.
        let digest = Sha512::digest(format!("{content_type} {}", self.index(engine).await));
        let digest: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        let tag = HeaderValue::from_str(&format!("\"{digest}\""));
        let tag = tag.unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        let mut response = if is_known(&call.headers, &tag) {
            reply::not_modified()
        } else {
            let (table, registry) = (engine.table(), engine.registry());
            let made = made(move || {
                Some(openapi::v2(table, &versions(table, &registry), &Words, GIT_VERSION, format).into())
            });
            match made.await {
                Some(bytes) => response::whole(&call.headers, content_type, 200, bytes),
                None => return reply::empty(StatusCode::INTERNAL_SERVER_ERROR),
            }
        };
        response.headers_mut().insert(ETAG, tag);
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
        response
    }
}

/// Whether the client has what that tag names (RFC 9110, 13.1.2).
fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(str::trim);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known).as_bytes() == tag.as_bytes())
}

/// What is served, as documents see it.
fn versions<'a>(table: &'a pagurus_controlplane_schema::Table, registry: &'a Registry) -> Vec<Version<'a>> {
    let mut out: Vec<Version<'a>> = Vec::new();
    for group in registry.groups() {
        for version in group.versions() {
            let parts = version.resources().iter().map(|served| {
                let kept = served.target.as_ref();
                let custom = kept.and_then(|t| t.kind.strategy.published_schema(&version.name));
                let custom =
                    custom.map(Cow::Owned).or_else(|| served.is_custom().then(|| Cow::Owned(json!({}))));
                Part { table: kept.map_or(table, |t| t.table()), resource: &served.resource, custom }
            });
            out.push(Version { group: &group.name, version: &version.name, parts: parts.collect() });
        }
    }
    out.sort_by_key(|version| (version.group, version.version));
    out
}

/// `/openapi/v3`: where the documents are. The hash in each address names the content, so that clients can cache it for good.
fn index(table: &pagurus_controlplane_schema::Table, versions: &[Version<'_>]) -> Value {
    let address = |name: &String| {
        let hash = openapi::content_hash(table, name, versions);
        json!({"serverRelativeURL": format!("/openapi/v3/{name}?hash={hash}")})
    };
    let paths: Map<String, Value> =
        openapi::v3_names(versions).into_iter().map(|name| (name.clone(), address(&name))).collect();
    json!({"paths": paths})
}

/// Whether the best of the accepted types that there is, is the protobuf one. None: neither that nor JSON is accepted.
fn accepted(headers: &HeaderMap, protobuf: &[&str]) -> Option<bool> {
    let header = response::accept(headers);
    let means = |clause: &response::Clause<'_>, media: &str| {
        media.split_once('/').is_some_and(|(kind, subtype)| clause.means(kind, subtype))
    };
    response::clauses(&header).iter().find_map(|clause| {
        let protobuf = protobuf.iter().any(|media| means(clause, media));
        if means(clause, "application/json") { Some(false) } else { protobuf.then_some(true) }
    })
}

/// A document, compressed if it is large and the client can read that.
fn json(call: &Call, document: Bytes) -> Response<Body> {
    response::whole(&call.headers, "application/json", 200, document)
}

/// Makes a document where it holds nobody up: that takes a while.
async fn made(make: impl FnOnce() -> Option<Bytes> + Send + 'static) -> Option<Bytes> {
    tokio::task::spawn_blocking(make).await.unwrap_or_else(|error| {
        tracing::error!(%error, "an OpenAPI document could not be made");
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_taken_in_their_order() {
        let rows = [
            ("", Some(false)),
            ("application/json, */*", Some(false)),
            (V2_PROTOBUF_ASKED[1], Some(true)),
            ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf,application/json", Some(true)),
            ("*/*;q=0.1,application/com.github.proto-openapi.spec.v2.v1.0+protobuf", Some(true)),
            ("text/html", None),
        ];
        for (accept, want) in rows {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(http::header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(accepted(&headers, &V2_PROTOBUF_ASKED), want, "{accept}");
        }
    }

    #[test]
    fn tags_that_clients_know() {
        let tag = HeaderValue::from_static("\"A\"");
        let rows = [("\"A\"", true), ("\"B\", W/\"A\"", true), ("*", true), ("A", false), ("\"AA\"", false)];
        for (known, want) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(known));
            assert_eq!(is_known(&headers, &tag), want, "{known}");
        }
    }
}
