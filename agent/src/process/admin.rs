//! What the process says of itself over HTTP: health, readiness, metrics, state. Served on the loopback without TLS, and
//! by the node API to those who may. It must not know what the parts do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::NodeContext;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const MAX_CONNECTIONS: usize = 32;

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
    let listener = std::net::TcpListener::bind(address).with_context(|| {
        format!(
            "listen on {address} for health checks; give --healthz-port to use another port, or 0 for none"
        )
    })?;
    listener.set_nonblocking(true).context("prepare the socket for health checks")?;
    Ok(listener)
}

/// Serves until cancelled.
pub async fn run(
    context: Arc<NodeContext>,
    listener: std::net::TcpListener,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("listen for health checks")?;
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for health checks");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            () = cancel.cancelled() => return Ok(()),
        };
        let context = context.clone();
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let uri = request.uri();
            let found = answer(&context, uri.path(), uri.query().unwrap_or_default());
            let response = found.unwrap_or_else(|| {
                let mut response = Response::new(Bytes::from_static(b"404 page not found\n"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            });
            std::future::ready(Ok::<_, std::convert::Infallible>(response.map(Full::new)))
        });
        connections.spawn(
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}
