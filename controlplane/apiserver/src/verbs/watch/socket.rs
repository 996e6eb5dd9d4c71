//! A watch over a WebSocket (RFC 6455), for clients that cannot read a stream of lines: a message per event, text for JSON and binary for
//! the other formats. What the client sends is read and thrown away. It must not know what is watched.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, Stream, StreamExt as _};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use pagurus_controlplane_api::status::ApiError;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tracing::{Instrument as _, debug};

use crate::authn::SOCKET_TOKEN;
use crate::engine::Engine;
use crate::request::{Body, Call, empty_body};

/// Clients have nothing to say; whatever they send is at most so long.
const MOST_RECEIVED: usize = 4 << 10;
/// How long a client may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that takes nothing for so long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// What the events of a watch look like as messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Texts.
    Text,
    /// Bytes, without so many at the beginning.
    Binary { skip: usize },
}

/// The connection that is about to speak WebSocket, if the client wants that.
pub(super) fn wanted(call: &Call) -> Option<OnUpgrade> {
    let asks = |name, word: &str| words(&call.headers, name).any(|w| w.eq_ignore_ascii_case(word));
    let is_socket = asks(UPGRADE, "websocket") && asks(CONNECTION, "upgrade");
    is_socket.then(|| call.extensions.get::<OnUpgrade>().cloned()).flatten()
}

/// Agrees to the client's handshake and then sends the events, as a task of the engine.
pub(super) fn answer(
    engine: &Engine,
    call: &Call,
    upgrade: OnUpgrade,
    framing: Framing,
    events: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Response<Body>, ApiError> {
    let mut response = agreed(&call.headers)?;
    *response.body_mut() = empty_body();
    let cancelled = engine.cancelled();
    let work = async move {
        let connection = tokio::select! {
            () = cancelled.cancelled_owned() => return,
            connection = upgrade => connection,
        };
        match connection {
            // It ends with its watch, which ends with the server, or with its client.
            Ok(connection) => send(connection, framing, events).await,
            Err(error) => debug!(%error, "a connection did not become a WebSocket"),
        }
    };
    engine.spawn(work.instrument(tracing::debug_span!("watch over a WebSocket", path = %call.info.path)));
    Ok(response)
}

fn words(headers: &HeaderMap, name: http::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// 101, or what is wrong with the handshake.
fn agreed(headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    if words(headers, SEC_WEBSOCKET_VERSION).all(|version| version != "13") {
        return Err(ApiError::bad_request("missing or bad WebSocket Version"));
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return Err(ApiError::bad_request("challenge is missing: no Sec-WebSocket-Key"));
    };
    // Credentials are no protocol.
    let mut protocols = words(headers, SEC_WEBSOCKET_PROTOCOL).filter(|p| !p.starts_with(SOCKET_TOKEN));
    let protocol = protocols.next();
    if protocols.next().is_some() {
        return Err(ApiError::bad_request("a watch takes one subprotocol at most"));
    }
    let mut response = Response::new(empty_body());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(ApiError::internal)?;
    out.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol.and_then(|name| HeaderValue::from_str(name).ok()) {
        out.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

async fn send(connection: Upgraded, framing: Framing, events: impl Stream<Item = Bytes> + Send) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MOST_RECEIVED)).max_frame_size(Some(MOST_RECEIVED));
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, Some(config)).await;
    let mut events = std::pin::pin!(events);
    loop {
        let event = tokio::select! {
            received = socket.next() => match received {
                Some(Ok(message)) if !message.is_close() => continue,
                // The client has closed, or broken off.
                _ => break,
            },
            event = events.next() => match event {
                Some(event) => event,
                None => break,
            },
        };
        let sent = tokio::time::timeout(SEND_TIMEOUT, socket.send(message(framing, event))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let closing = async {
        socket.close(Some(goodbye)).await?;
        // The client answers, and has nothing more to say.
        while socket.next().await.transpose()?.is_some() {}
        Ok::<_, Error>(())
    };
    // Whoever is gone needs no goodbye.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}

fn message(framing: Framing, event: Bytes) -> Message {
    match framing {
        Framing::Binary { skip } => Message::Binary(event.slice(skip.min(event.len())..)),
        Framing::Text => match event.try_into() {
            Ok(text) => Message::Text(text),
            // JSON is UTF-8: it was made of strings.
            Err(_) => Message::Text("{}".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn headers(rows: &[(&'static str, &str)]) -> HeaderMap {
        rows.iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    /// The key and its answer are those of RFC 6455, section 1.3.
    #[test]
    fn handshakes() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let version = ("sec-websocket-version", "13");
        let response = agreed(&headers(&[key, version])).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
        let protocols = "base64url.bearer.authorization.k8s.io.dG9rZW4, base64.binary.k8s.io";
        let response = agreed(&headers(&[key, version, ("sec-websocket-protocol", protocols)])).unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "base64.binary.k8s.io");
        for bad in [
            &[key][..],
            &[version],
            &[key, ("sec-websocket-version", "8")],
            &[key, version, ("sec-websocket-protocol", "a, b")],
        ] {
            assert_eq!(agreed(&headers(bad)).unwrap_err().code, 400, "{bad:?}");
        }
    }

    #[test]
    fn messages() {
        assert_eq!(message(Framing::Text, Bytes::from_static(b"{}\n")), Message::Text("{}\n".into()));
        let frame = Bytes::from_static(&[0, 0, 0, 1, 7]);
        assert_eq!(message(Framing::Binary { skip: 4 }, frame), Message::Binary(Bytes::from_static(&[7])));
    }
}
