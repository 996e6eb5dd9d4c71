//! Sessions from a WebSocket client through the agent to a runtime that speaks SPDY, all on the loopback.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;

use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;

#[test]
fn wanted_streams() {
    let check = |query: &str, expected: Option<[bool; 4]>| {
        let got = Streams::parse(query).ok().map(|s| [s.stdin, s.stdout, s.stderr, s.tty]);
        assert_eq!(got, expected, "{query}");
    };
    check("command=x&input=1&output=1&error=1", Some([true, true, true, false]));
    check("stdout=true&stderr=true", Some([false, true, true, false]));
    check("stdin=true&stdout=true&stderr=true&tty=true", Some([true, true, false, true]));
    check("output=1&tty=1", Some([false, true, false, true]));
    check("command=x", None);
    check("tty=1&stderr=1", None);
}

/// Serves one connection of HTTP with upgrades; the function answers every request.
async fn serve_http<F, R>(answer: F) -> u16
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request| {
            let answered = answer(request);
            async move { Ok::<_, Infallible>(answered.await) }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let _ = connection.with_upgrades().await;
    });
    port
}

/// A runtime that gives standard input back on standard output, then says `status`.
async fn runtime(kinds: usize, status: &'static str) -> u16 {
    serve_http(move |mut request| async move {
        assert_eq!(request.headers()[STREAM_PROTOCOL], channels::V4);
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let io = TokioIo::new(upgrade.await.unwrap());
            let (opener, mut incoming, connection) = spdy::connection(io, spdy::Role::Server);
            let command = async move {
                drop(opener);
                let mut streams = std::collections::BTreeMap::new();
                for _ in 0..kinds {
                    let (headers, stream) = incoming.accept().await.unwrap();
                    streams.insert(headers["streamtype"].clone(), stream);
                }
                let mut stdin = streams.remove("stdin").unwrap();
                let mut stdout = streams.remove("stdout").unwrap();
                let mut error = streams.remove("error").unwrap();
                while let Some(data) = stdin.reader.next().await {
                    stdout.writer.write(data).await.unwrap();
                }
                error.writer.write(Bytes::from_static(status.as_bytes())).await.unwrap();
                error.writer.finish().await.unwrap();
                stdout.writer.finish().await.unwrap();
            };
            tokio::pin!(command, connection);
            tokio::select! {
                () = &mut command => connection.await.unwrap(),
                _ = &mut connection => panic!("the agent has gone"),
            }
        });
        let mut response = websocket::switching("SPDY/3.1");
        response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(channels::V4));
        response
    })
    .await
}

/// A client of an agent that sends execs to this runtime.
async fn client(runtime: u16, protocols: &str) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, String> {
    let sessions = Sessions { tasks: TaskTracker::new(), cancel: CancellationToken::new() };
    let port = serve_http(move |request| {
        let sessions = sessions.clone();
        async move {
            let streams = Streams { stdin: true, stdout: true, ..Streams::default() };
            let url = std::future::ready(Ok(format!("http://127.0.0.1:{runtime}/exec/token")));
            connect(request, streams, &sessions, url).await.unwrap_or_else(Refusal::response)
        }
    })
    .await;
    let mut request = format!("ws://127.0.0.1:{port}/exec/ns/p/c").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_str(protocols).unwrap());
    let stream = MaybeTlsStream::Plain(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    client_async(request, stream).await.map(|(socket, _)| socket).map_err(|error| error.to_string())
}

async fn next_message(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> Message {
    tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn a_session_from_first_byte_to_goodbye() {
    let status = r#"{"metadata":{},"status":"Success"}"#;
    let mut socket = client(runtime(3, status).await, "v5.channel.k8s.io, v4.channel.k8s.io").await.unwrap();
    let big = vec![b'x'; 300_000];
    socket.send(Message::Binary(channels::write(channels::STDIN, &big))).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(&[255, channels::STDIN]))).await.unwrap();
    let mut echoed = 0;
    let end = loop {
        match next_message(&mut socket).await {
            Message::Binary(message) if message[0] == channels::STDOUT => echoed += message.len() - 1,
            other => break other,
        }
    };
    assert_eq!(echoed, big.len());
    assert_eq!(end, Message::Binary(channels::write(channels::ERROR, status.as_bytes())));
    match next_message(&mut socket).await {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Normal),
        other => panic!("no goodbye but {other:?}"),
    }
}

#[tokio::test]
async fn a_runtime_that_goes_is_told_to_the_client() {
    let port = serve_http(|mut request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move { drop(upgrade.await.unwrap()) });
        websocket::switching("SPDY/3.1")
    })
    .await;
    let mut socket = client(port, "v4.channel.k8s.io").await.unwrap();
    let Message::Binary(message) = next_message(&mut socket).await else { panic!("no status") };
    assert_eq!(message[0], channels::ERROR);
    let status: serde_json::Value = serde_json::from_slice(&message[1..]).unwrap();
    assert_eq!(status["status"], "Failure");
}

#[tokio::test]
async fn refusals_come_before_the_upgrade() {
    // A subprotocol that nobody here speaks.
    let error = client(1, "base64.channel.k8s.io").await.unwrap_err();
    assert!(error.contains("400"), "{error}");
    // A runtime that does not take the call.
    let port = serve_http(|_| async { Refusal::not_found("no such token").response() }).await;
    let error = client(port, channels::V5).await.unwrap_err();
    assert!(error.contains("500"), "{error}");
    // A runtime that is not there.
    let error = client(1, channels::V5).await.unwrap_err();
    assert!(error.contains("500"), "{error}");
}
