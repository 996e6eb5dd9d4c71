//! A small HTTP server for what machines ask: health, metrics, state. Answers come from memory; requests have no body that
//! anybody reads. It must not know what is answered.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const MAX_CONNECTIONS: usize = 32;
/// How long a connection may take until its request is there.
const REQUEST: Duration = Duration::from_secs(10);

/// Takes a port.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until cancelled. `answer` is given path and query; without an answer there is nothing at that path.
pub async fn serve(
    what: &'static str,
    listener: std::net::TcpListener,
    answer: impl Fn(&str, &str) -> Option<Response<Bytes>> + Clone + Send + 'static,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let listener =
        tokio::net::TcpListener::from_std(listener).with_context(|| format!("listen for {what}"))?;
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for {what}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            () = cancel.cancelled() => return Ok(()),
        };
        let answer = answer.clone();
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let uri = request.uri();
            let response = answer(uri.path(), uri.query().unwrap_or_default()).unwrap_or_else(not_found);
            std::future::ready(Ok::<_, Infallible>(response.map(Full::new)))
        });
        connections.spawn(
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

fn not_found() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(b"404 page not found\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
