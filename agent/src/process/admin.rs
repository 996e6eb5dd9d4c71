//! What the process says of itself over HTTP: health, readiness, metrics, state. Served on the loopback without TLS, and
//! by the node API to those who may. It must not know what the parts do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::NodeContext;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// A port for metrics that is taken is tried again after this time.
const RETRY: Duration = Duration::from_secs(30);

/// The answer for a path; `None` if it is not one of these.
pub fn answer(context: &NodeContext, path: &str, query: &str) -> Option<Response<Bytes>> {
    let (status, content_type, text) = match path {
        "/livez" | "/healthz/ping" => (StatusCode::OK, TEXT, "ok".to_owned()),
        "/healthz" | "/readyz" | "/healthz/syncloop" => {
            let not_ready: Vec<String> = context
                .readiness
                .parts()
                .into_iter()
                .filter_map(|(name, state)| Some(format!("{name}: {}\n", state.err()?)))
                .collect();
            if not_ready.is_empty() {
                (StatusCode::OK, TEXT, "ok".to_owned())
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, TEXT, not_ready.concat())
            }
        }
        "/metrics" => (StatusCode::OK, OPEN_METRICS, context.metrics.encode()),
        "/debug/state" => {
            let only =
                query.split('&').find_map(|pair| pair.strip_prefix("part=")).filter(|part| !part.is_empty());
            match context.debug.collect(only) {
                Some(mut state) => {
                    if only.is_none() {
                        state["readiness"] = readiness(context);
                    }
                    (StatusCode::OK, JSON, format!("{state:#}\n"))
                }
                None => (StatusCode::NOT_FOUND, TEXT, "there is no such part\n".to_owned()),
            }
        }
        _ => return None,
    };
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Some(response)
}

fn readiness(context: &NodeContext) -> Value {
    let parts = context.readiness.parts().into_iter();
    parts
        .map(|(name, state)| (name.to_owned(), state.map_or_else(|error| json!(error), |()| json!("ready"))))
        .collect()
}

/// Takes the port.
pub fn bind(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    super::http::bind(address).with_context(|| {
        format!(
            "listen on {address} for health checks; give --healthz-port to use another port, or 0 for none"
        )
    })
}

/// Serves until cancelled.
pub async fn run(
    context: Arc<NodeContext>,
    listener: std::net::TcpListener,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let answer = move |path: &str, query: &str| answer(&context, path, query);
    super::http::serve("health checks", listener, answer, cancel).await
}

/// Serves the metrics where kube-proxy's are expected, until cancelled. A port that cannot be had is told and tried again: Services
/// are balanced all the same.
pub async fn run_metrics(
    context: Arc<NodeContext>,
    address: SocketAddr,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut told = None;
    let listener = loop {
        match super::http::bind(address) {
            Ok(listener) => break listener,
            Err(error) => {
                let message = format!("cannot serve metrics on {address} (metricsBindAddress): {error}");
                if told.as_ref() != Some(&message) {
                    tracing::error!("{message}");
                    let about = crate::report::events::about_node(&context.node_name);
                    context.events.warning(&about, "FailedToStartMetrics", message.as_str());
                    told = Some(message);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    };
    let answer = move |path: &str, query: &str| {
        matches!(path, "/metrics" | "/healthz" | "/livez").then(|| answer(&context, path, query)).flatten()
    };
    super::http::serve("metrics", listener, answer, cancel).await
}
