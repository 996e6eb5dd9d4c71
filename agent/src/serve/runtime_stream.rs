//! The runtime's streaming end points: it answers `exec` and `attach` with a URL at which it speaks SPDY. It must not know
//! who the client is.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::FusedFuture as _;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::reply::Refusal;

/// The header in which the two ends agree on what the streams mean.
pub(super) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// No runtime says more in a refusal.
const MAX_REFUSAL: usize = 16 * 1024;

/// Calls the URL and asks for SPDY, with what the headers say about the streams. The answer is a 101 to be upgraded.
pub(super) async fn call(url: &str, headers: &HeaderMap) -> Result<Response<Incoming>, Refusal> {
    let failed = |what: &dyn std::fmt::Display| Refusal::internal(what.to_string());
    let uri: Uri = url.parse().map_err(|error| failed(&format_args!("runtime's URL {url:?}: {error}")))?;
    if uri.scheme_str() != Some("http") {
        return Err(failed(&format_args!("the runtime streams at {url:?}; only http is spoken here")));
    }
    let authority =
        uri.authority().ok_or_else(|| failed(&format_args!("runtime's URL {url:?} has no host")))?;
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| failed(&format_args!("connect to the runtime at {authority}: {error}")))?;
    stream.set_nodelay(true).map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = http::Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::POST;
    *request.uri_mut() =
        path.parse().map_err(|error| failed(&format_args!("runtime's URL {url:?}: {error}")))?;
    let ours = request.headers_mut();
    ours.insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(|error| failed(&error))?);
    ours.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    ours.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    for value in headers.get_all(&STREAM_PROTOCOL) {
        ours.append(STREAM_PROTOCOL, value.clone());
    }
    let connection = connection.with_upgrades().fuse();
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    let answer = answer.map_err(|error| failed(&error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), MAX_REFUSAL).collect();
        tokio::pin!(body);
        // The connection brings the body, and may stay open after it.
        let body = tokio::select! {
            biased;
            body = &mut body => body,
            _ = &mut connection, if !connection.is_terminated() => body.await,
        };
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
        return Err(failed(&format_args!("the runtime answered {status}: {}", text.unwrap_or_default())));
    }
    // The head is read: the connection hands the socket over and ends.
    if !connection.is_terminated() {
        connection.await.map_err(|error| failed(&error))?;
    }
    Ok(answer)
}
