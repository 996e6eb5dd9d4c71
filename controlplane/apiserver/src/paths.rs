//! The paths that are no resources: discovery, OpenAPI, version, health, metrics, the token issuer's documents.

use std::sync::Arc;

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Method, Response, StatusCode};
use pagurus_controlplane_api::status::ApiError;
use serde_json::{Value, json};

use crate::discovery::Discovery;
use crate::engine::Engine;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::reply;
use crate::request::{Body, Call};
use crate::response;
use crate::token::Tokens;

/// What the issuer of tokens tells of itself, and the keys that its tokens are checked with (OpenID Connect Discovery 1.0).
const CONFIGURATION: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
const KEYS_TYPE: &str = "application/jwk-set+json";

/// The API version this server speaks; clients compare it with their own.
pub const MAJOR: &str = "1";
/// See [`MAJOR`].
pub const MINOR: &str = "37";
/// The version in full, with a suffix that tells the implementation.
pub const GIT_VERSION: &str = "v1.37.1+pagurus";

/// See the module's description.
#[derive(Debug)]
pub struct Paths {
    tokens: Arc<Tokens>,
    health: Health,
    metrics: Arc<Metrics>,
    discovery: Discovery,
    openapi: OpenApi,
    address: String,
}

impl Paths {
    /// The paths of a server that clients reach at `address`.
    pub fn new(
        engine: Arc<Engine>,
        tokens: Arc<Tokens>,
        health: Health,
        metrics: Arc<Metrics>,
        address: String,
    ) -> Self {
        let discovery = Discovery::new(&engine, address.clone());
        Self { tokens, health, metrics, discovery, openapi: OpenApi::new(&engine), address }
    }

    /// Answers any path.
    pub async fn serve(&self, call: &Call) -> Response<Body> {
        let path = call.info.path.as_str();
        let Some(named) = self.router(path) else {
            let answer = match path {
                "/" => Some(Ok(reply::pretty_json(StatusCode::OK, &self.index().await))),
                "/metrics" => Some(Ok(self.metrics.serve())),
                "/openapi" => None,
                _ if path.starts_with("/apis") => self.discovery.serve(call),
                _ if path.starts_with("/openapi") => self.openapi.serve(call).await.map(Ok),
                _ => self.health.serve(path, &call.query).await.map(Ok),
            };
            return answer.map_or_else(reply::no_such_path, |answer| response::finish(call, answer));
        };
        let answer = self.routed(call).unwrap_or_else(|| Err(ApiError::no_such_resource()));
        let answer = answer.and_then(|response| match call.method {
            Method::GET => response::check_route(call, named).map(|()| response),
            _ => Err(ApiError::method_not_allowed()),
        });
        response::finish(call, answer)
    }

    /// The media types that the paths of a router have; none where there is no router.
    fn router(&self, path: &str) -> Option<&'static [&'static str]> {
        let below =
            |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match () {
            () if below("/version") || below(CONFIGURATION) => Some(&["application/json"]),
            () if below(KEYS) => Some(&[KEYS_TYPE]),
            () if self.discovery.is_routed(path) => Some(&response::ACCEPTED),
            () => None,
        }
    }

    /// Answers a path of a router, if there is something.
    fn routed(&self, call: &Call) -> Option<Result<Response<Body>, ApiError>> {
        match call.info.path.trim_end_matches('/') {
            "/version" => Some(Ok(reply::pretty_json(StatusCode::OK, &version()))),
            KEYS => Some(Ok(public(KEYS_TYPE, self.tokens.key_set().to_string()))),
            CONFIGURATION => {
                let uri = format!("https://{}{KEYS}", self.address);
                let configuration = self.tokens.openid_configuration(&uri);
                Some(Ok(public("application/json", configuration.to_string())))
            }
            _ => self.discovery.serve(call),
        }
    }

    /// Every path there is, as `/` tells.
    async fn index(&self) -> Value {
        let mut paths: Vec<String> =
            [CONFIGURATION, "/metrics", "/openapi/v2", "/openapi/v3", KEYS, "/version"]
                .map(str::to_owned)
                .to_vec();
        paths.extend(self.discovery.paths());
        paths.extend(self.openapi.paths().await);
        paths.extend(self.health.paths());
        paths.sort();
        json!({"paths": paths})
    }
}

/// A document that anybody may keep for an hour.
fn public(content_type: &'static str, document: String) -> Response<Body> {
    let mut response = reply::bytes(StatusCode::OK, content_type, document);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// What `/version` tells.
fn version() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    })
}

/// The architecture by the name clients know it under.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
