//! Upgrades of a request to WebSocket, and the upgraded connection as messages or as a stream of bytes. It must not know
//! what the messages mean.

use bytes::Bytes;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::reply::{Body, Refusal, empty};

/// The longest message we take.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
const BUFFER: usize = 16 * 1024;

/// An upgraded connection.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a request asks for this protocol (`websocket`, `SPDY/3.1`) by an upgrade.
pub(super) fn wants(headers: &HeaderMap, protocol: &str) -> bool {
    let has = |name, word: &str| words(headers, name).any(|found| found.eq_ignore_ascii_case(word));
    has(CONNECTION, "upgrade") && has(UPGRADE, protocol)
}

/// The comma-separated words of all headers of this name.
pub(super) fn words(headers: &HeaderMap, name: http::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// An upgrade that was asked for and can be granted.
pub(super) struct Upgrade {
    /// The subprotocol chosen.
    pub(super) protocol: &'static str,
    upgrade: OnUpgrade,
    accept: String,
}

impl Upgrade {
    /// Chooses a subprotocol: the client's first that we support.
    pub(super) fn of(request: &mut Request<Incoming>, supported: &[&'static str]) -> Result<Self, Refusal> {
        let headers = request.headers();
        let key =
            headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| Refusal::bad_request("no Sec-WebSocket-Key"))?;
        let accept = derive_accept_key(key.as_bytes());
        let protocol = choose(words(headers, SEC_WEBSOCKET_PROTOCOL), supported)?;
        Ok(Self { protocol, upgrade: hyper::upgrade::on(request), accept })
    }

    /// The answer that grants it, and the connection to be.
    pub(super) fn grant(self) -> (Response<Body>, impl Future<Output = hyper::Result<Socket>> + Send) {
        let mut response = switching("websocket");
        let headers = response.headers_mut();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        let upgrade = self.upgrade;
        let socket = async move {
            let config = WebSocketConfig::default()
                .max_message_size(Some(MAX_MESSAGE))
                .max_frame_size(Some(MAX_MESSAGE))
                .read_buffer_size(BUFFER)
                .write_buffer_size(0);
            let io = TokioIo::new(upgrade.await?);
            Ok(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
        };
        (response, socket)
    }
}

/// The answer 101 for a protocol.
pub(super) fn switching(protocol: &'static str) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}

fn choose<'a>(
    offered: impl Iterator<Item = &'a str>,
    supported: &[&'static str],
) -> Result<&'static str, Refusal> {
    let offered: Vec<&str> = offered.collect();
    let chosen = offered.iter().find_map(|offer| supported.iter().find(|known| *known == offer));
    chosen.copied().ok_or_else(|| {
        Refusal::bad_request(format!(
            "none of the WebSocket subprotocols {offered:?} is served here; these are: {supported:?}"
        ))
    })
}

/// The bytes in a message; `None` for messages that carry none.
pub(super) fn payload(message: Message) -> Option<Bytes> {
    match message {
        Message::Binary(bytes) => Some(bytes),
        Message::Text(text) => Some(text.into()),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => None,
    }
}

/// The message that ends a connection well. Clients take any other end for a failure.
pub(super) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

/// The connection as a stream of bytes, however they are cut into messages.
pub(super) fn byte_stream<S>(socket: S) -> impl AsyncRead + AsyncWrite + Send
where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send,
{
    let (sink, stream) = socket.split();
    let bytes = stream.filter_map(|message| {
        std::future::ready(match message {
            Ok(message) => payload(message).map(Ok),
            Err(error) => Some(Err(std::io::Error::other(error))),
        })
    });
    let sink = sink.with(|bytes: Bytes| std::future::ready(Ok::<_, Error>(Message::Binary(bytes))));
    let sink = sink.sink_map_err(std::io::Error::other);
    tokio::io::join(StreamReader::new(Box::pin(bytes)), SinkWriter::new(CopyToBytes::new(Box::pin(sink))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subprotocols() {
        let supported = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
        let check = |offered: &[&str], expected: Option<&str>| {
            assert_eq!(choose(offered.iter().copied(), &supported).ok(), expected, "{offered:?}");
        };
        check(&["v5.channel.k8s.io", "v4.channel.k8s.io"], Some("v5.channel.k8s.io"));
        check(&["v4.channel.k8s.io", "v5.channel.k8s.io"], Some("v4.channel.k8s.io"));
        check(&["base64.channel.k8s.io", "v4.channel.k8s.io"], Some("v4.channel.k8s.io"));
        check(&["base64.channel.k8s.io"], None);
        check(&[], None);
    }

    #[test]
    fn upgrades() {
        let check = |connection: &'static str, upgrade: &'static str, expected: [bool; 2]| {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static(connection));
            headers.insert(UPGRADE, HeaderValue::from_static(upgrade));
            assert_eq!(["websocket", "SPDY/3.1"].map(|protocol| wants(&headers, protocol)), expected);
        };
        check("Upgrade", "websocket", [true, false]);
        check("keep-alive, upgrade", "WebSocket", [true, false]);
        check("Upgrade", "SPDY/3.1", [false, true]);
        check("keep-alive", "websocket", [false, false]);
    }
}
