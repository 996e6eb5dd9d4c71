//! The paths that are no resources: discovery, OpenAPI, version, health, metrics, the token issuer's documents.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::discovery::Discovery;
use crate::engine::Engine;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::reply;
use crate::request::{Body, Call};
use crate::token::Tokens;

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
        let answer = match path {
            "/" => Some(reply::pretty_json(StatusCode::OK, &self.index().await)),
            "/version" | "/version/" => Some(reply::pretty_json(StatusCode::OK, &version())),
            "/metrics" => Some(self.metrics.serve()),
            "/openid/v1/jwks" => Some(reply::bytes(
                StatusCode::OK,
                "application/jwk-set+json",
                self.tokens.key_set().to_string(),
            )),
            "/.well-known/openid-configuration" => {
                let uri = format!("https://{}/openid/v1/jwks", self.address);
                Some(reply::json(StatusCode::OK, &self.tokens.openid_configuration(&uri)))
            }
            _ if path.starts_with("/api") => self.discovery.serve(call),
            _ if path.starts_with("/openapi") => self.openapi.serve(call).await,
            _ => self.health.serve(path, &call.query).await,
        };
        match answer {
            None => reply::no_such_path(),
            Some(_) if !matches!(call.method, Method::GET | Method::HEAD) => {
                reply::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed")
            }
            Some(response) => response,
        }
    }

    /// Every path there is, as `/` tells.
    async fn index(&self) -> Value {
        let mut paths: Vec<String> = [
            "/.well-known/openid-configuration",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openid/v1/jwks",
            "/version",
        ]
        .map(str::to_owned)
        .to_vec();
        paths.extend(self.discovery.paths());
        paths.extend(self.openapi.paths().await);
        paths.extend(self.health.paths());
        paths.sort();
        json!({"paths": paths})
    }
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
