//! The verbs on a real engine over a store in a temporary directory: requests and what comes back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod definitions;
mod deletes;
mod encodings;
mod history;
mod reads;
mod watches;
mod writes;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt;
use pagurus_controlplane_store::embedded;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineOptions};
use crate::request::{Body, Call, Query, RequestInfo, UserInfo, Warnings, empty_body, full_body};

const CONFIG_MAPS: &str = "/api/v1/namespaces/n/configmaps";

/// An engine of its own, with its directory.
struct Fixture {
    engine: Arc<Engine>,
    directory: tempfile::TempDir,
    cancel: CancellationToken,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    code: u16,
    headers: HeaderMap,
    bytes: Bytes,
    body: Value,
    warnings: Vec<String>,
}

async fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    start(directory).await
}

async fn start(directory: tempfile::TempDir) -> Fixture {
    let store = embedded::Store::open(directory.path(), embedded::Options::default()).unwrap();
    let cancel = CancellationToken::new();
    let engine = Engine::start(Arc::new(store), EngineOptions::default(), cancel.clone()).await.unwrap();
    Fixture { engine, directory, cancel }
}

fn call(method: &str, address: &str, headers: &[(&str, &str)]) -> Call {
    let (method, uri) =
        (Method::from_bytes(method.as_bytes()).unwrap(), address.parse::<http::Uri>().unwrap());
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    Call {
        info: RequestInfo::parse(&method, &uri).unwrap(),
        user: UserInfo::authenticated("tester", ["system:masters"]),
        query: Query::parse(uri.query().unwrap_or_default()),
        headers: map,
        method,
        uri,
        extensions: http::Extensions::default(),
        warnings: Warnings::default(),
    }
}

impl Fixture {
    /// Ends this engine and starts another one on its directory.
    async fn restart(self) -> Self {
        let Self { engine, directory, cancel } = self;
        cancel.cancel();
        engine.ended().await;
        // The watches' cursors and the caches hold the store; all must be gone before it can be opened again.
        drop(engine);
        start(directory).await
    }

    async fn ask(&self, method: &str, address: &str, headers: &[(&str, &str)], body: Body) -> Response<Body> {
        self.engine.serve(call(method, address, headers), body).await
    }

    async fn with(&self, method: &str, address: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let call = call(method, address, headers);
        let warnings = call.warnings.clone();
        let content = if body.is_empty() { empty_body() } else { full_body(body.to_owned()) };
        let response = self.engine.serve(call, content).await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes).unwrap_or_default();
        Answer {
            code: head.status.as_u16(),
            headers: head.headers,
            bytes,
            body: value,
            warnings: warnings.texts(),
        }
    }

    async fn get(&self, address: &str) -> Answer {
        self.with("GET", address, &[], "").await
    }

    async fn post(&self, address: &str, body: Value) -> Answer {
        self.with("POST", address, &[], &body.to_string()).await
    }

    async fn put(&self, address: &str, body: Value) -> Answer {
        self.with("PUT", address, &[], &body.to_string()).await
    }

    async fn patch(&self, kind: &str, address: &str, body: Value) -> Answer {
        self.with("PATCH", address, &[("content-type", kind)], &body.to_string()).await
    }

    async fn merge(&self, address: &str, body: Value) -> Answer {
        self.patch("application/merge-patch+json", address, body).await
    }

    async fn delete(&self, address: &str, options: Value) -> Answer {
        let options = if options.is_null() { String::new() } else { options.to_string() };
        self.with("DELETE", address, &[], &options).await
    }

    /// A ConfigMap with labels.
    async fn config_map(&self, name: &str, labels: Value) -> Answer {
        let made = self.post(CONFIG_MAPS, json!({"metadata": {"name": name, "labels": labels}})).await;
        made.expect(201)
    }
}

impl Answer {
    #[track_caller]
    fn expect(self, code: u16) -> Self {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    /// The text of an error, which must have that code and reason.
    #[track_caller]
    fn error(&self, code: u16, reason: &str) -> &str {
        assert_eq!((self.code, self.body["reason"].as_str()), (code, Some(reason)), "{}", self.body);
        assert_eq!((&self.body["kind"], &self.body["code"]), (&json!("Status"), &json!(code)));
        self.body["message"].as_str().unwrap()
    }

    fn revision(&self) -> u64 {
        self.body["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    }

    fn names(&self) -> Vec<&str> {
        let items = self.body["items"].as_array().unwrap();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
    }
}
