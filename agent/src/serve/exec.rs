//! `kubectl exec` and the part it shares with `attach`: a client's WebSocket (or SPDY) on one side, the runtime's SPDY
//! streams on the other. It must not know how a command is run.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pagurus_cri_api::{Runtime, v1};
use tokio_tungstenite::tungstenite::Message;

use super::channels::{self, Said};
use super::reply::{Body, Refusal};
use super::runtime_stream::{self, STREAM_PROTOCOL};
use super::spdy::{self, Headers, Stream, StreamReader, StreamWriter};
use super::websocket::{self, Socket, Upgrade};
use super::{Sessions, query};

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Streams {
    /// Reads them from the query: by the kubelet's names (`input`), or by those of the pods API (`stdin`).
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let tty = query::is_set(text, "tty");
        let streams = Self {
            stdin: query::is_set(text, "input") || query::is_set(text, "stdin"),
            stdout: query::is_set(text, "output") || query::is_set(text, "stdout"),
            // A terminal has one output.
            stderr: !tty && (query::is_set(text, "error") || query::is_set(text, "stderr")),
            tty,
        };
        if streams.stdin || streams.stdout || streams.stderr {
            Ok(streams)
        } else {
            Err(Refusal::bad_request("you must specify at least 1 of stdin, stdout, stderr"))
        }
    }
}

/// Runs a command in a container, with its streams on the request's connection.
pub(super) async fn serve(
    runtime: &dyn Runtime,
    container_id: &str,
    sessions: &Sessions,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let text = request.uri().query().unwrap_or_default();
    let streams = Streams::parse(text)?;
    let command: Vec<String> =
        query::pairs(text).filter(|(name, _)| name == "command").map(|(_, word)| word.into_owned()).collect();
    if command.is_empty() {
        return Err(Refusal::bad_request("you must specify the command to run"));
    }
    let wanted = v1::ExecRequest {
        container_id: container_id.to_owned(),
        cmd: command,
        tty: streams.tty,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
    };
    connect(request, streams, sessions, runtime.exec(wanted)).await
}

/// Grants the client's upgrade once the runtime has granted ours, and joins the two.
pub(super) async fn connect(
    mut request: Request<Incoming>,
    streams: Streams,
    sessions: &Sessions,
    url: impl Future<Output = pagurus_cri_api::Result<String>>,
) -> Result<Response<Body>, Refusal> {
    let from_runtime = |error: pagurus_cri_api::Error| Refusal::internal(error.runtime_message());
    if websocket::wants(request.headers(), "websocket") {
        let upgrade = Upgrade::of(&mut request, &[channels::V5, channels::V4])?;
        let mut headers = HeaderMap::new();
        headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(channels::V4));
        let answer = runtime_stream::call(&url.await.map_err(from_runtime)?, &headers).await?;
        let protocol = upgrade.protocol;
        let (response, socket) = upgrade.grant();
        sessions.spawn("exec", async move {
            let (socket, runtime) = (socket.await?, hyper::upgrade::on(answer).await?);
            let (opener, _, connection) = spdy::connection(TokioIo::new(runtime), spdy::Role::Client);
            let session = async move {
                let remote = Remote::open(&opener, streams).await;
                drop(opener);
                match remote {
                    Ok(remote) => join(socket, protocol, remote).await,
                    Err(error) => end(socket, &lost(&error)).await,
                }
            };
            tokio::pin!(session, connection);
            tokio::select! {
                ended = &mut session => ended,
                // The runtime has gone; what it said before is still to be passed on.
                broken = &mut connection => {
                    let ended = session.await;
                    broken?;
                    ended
                }
            }
        });
        Ok(response)
    } else if websocket::wants(request.headers(), "SPDY/3.1") {
        // Both ends speak the same: the bytes are passed through.
        let answer = runtime_stream::call(&url.await.map_err(from_runtime)?, request.headers()).await?;
        let mut response = websocket::switching("SPDY/3.1");
        for value in answer.headers().get_all(&STREAM_PROTOCOL) {
            response.headers_mut().append(STREAM_PROTOCOL, value.clone());
        }
        let client = hyper::upgrade::on(&mut request);
        sessions.spawn("exec", async move {
            let (mut client, mut runtime) =
                (TokioIo::new(client.await?), TokioIo::new(hyper::upgrade::on(answer).await?));
            // Either end may just go: that is how these connections end.
            let _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut runtime, 16 * 1024, 16 * 1024)
                .await;
            Ok(())
        });
        Ok(response)
    } else {
        Err(Refusal::bad_request("unable to upgrade: an upgrade to websocket or SPDY/3.1 is required"))
    }
}

/// The runtime's streams of a command.
struct Remote {
    error: StreamReader,
    stdin: Option<StreamWriter>,
    stdout: Option<StreamReader>,
    stderr: Option<StreamReader>,
    resize: Option<StreamWriter>,
    /// The halves that nothing is written to.
    _unused: Vec<StreamWriter>,
}

impl Remote {
    async fn open(opener: &spdy::Opener, streams: Streams) -> Result<Self, spdy::Error> {
        let open = async |kind: &str, wanted: bool| match wanted {
            true => opener.open(Headers::from([("streamtype".to_owned(), kind.to_owned())])).await.map(Some),
            false => Ok(None),
        };
        let mut unused = Vec::new();
        let mut reader = |stream: Option<Stream>| {
            stream.map(|stream| {
                unused.push(stream.writer);
                stream.reader
            })
        };
        let writer = |stream: Option<Stream>| stream.map(|stream| stream.writer);
        let error = reader(open("error", true).await?).ok_or(spdy::Error::Closed)?;
        let stdin = writer(open("stdin", streams.stdin).await?);
        let stdout = reader(open("stdout", streams.stdout).await?);
        let stderr = reader(open("stderr", streams.stderr).await?);
        let resize = writer(open("resize", streams.tty).await?);
        Ok(Self { error, stdin, stdout, stderr, resize, _unused: unused })
    }
}

/// Joins a client and the runtime's streams until the command has ended or the client has gone.
async fn join(socket: Socket, protocol: &str, remote: Remote) -> anyhow::Result<()> {
    let Remote { error, stdin, stdout, stderr, resize, _unused } = remote;
    let (mut sink, mut source) = socket.split();
    // Nothing is sent before the command says something: kubectl makes its streams after the upgrade, and drops what comes
    // for a stream it has not made yet.
    let mut input = Box::pin(async {
        let (mut stdin, mut resize) = (stdin, resize);
        while let Some(message) = source.next().await {
            let Ok(message) = message else { break };
            let Some(bytes) = websocket::payload(message) else { continue };
            // A runtime that takes no more has ended the command: how, comes by the other way.
            match channels::read(protocol, bytes) {
                Said::Stdin(bytes) => forward(&mut stdin, bytes).await,
                Said::StdinEnd => {
                    if let Some(mut stdin) = stdin.take() {
                        let _ = stdin.finish().await;
                    }
                }
                Said::Resize(size) => forward(&mut resize, size).await,
                Said::Nothing => {}
            }
        }
    });
    let ended = tokio::select! {
        written = output(&mut sink, error, stdout, stderr) => Some(written),
        // Without its client a command goes on, but nobody hears of it.
        () = &mut input => None,
    };
    drop(input);
    if let Some(written) = ended {
        written?;
        part(&mut sink, &mut source).await;
    }
    Ok(())
}

/// Passes on what the command writes, then its end.
async fn output<S>(
    sink: &mut S,
    mut error: StreamReader,
    mut stdout: Option<StreamReader>,
    mut stderr: Option<StreamReader>,
) -> anyhow::Result<()>
where
    S: futures::Sink<Message, Error = tokio_tungstenite::tungstenite::Error> + Unpin,
{
    let mut status = Vec::new();
    loop {
        let (channel, data) = tokio::select! {
            data = next(&mut stdout) => (channels::STDOUT, data),
            data = next(&mut stderr) => (channels::STDERR, data),
            data = error.next() => (channels::ERROR, data),
        };
        match (channel, data) {
            (channels::STDOUT, None) => stdout = None,
            (channels::STDERR, None) => stderr = None,
            (channels::ERROR, Some(data)) => status.extend_from_slice(&data),
            (channel, Some(data)) => send(sink, channel, &data).await?,
            // The error stream ends last. What came before it on the others is here by now.
            (_, None) => break,
        }
        if !status.is_empty() {
            break;
        }
    }
    for (channel, reader) in [(channels::STDOUT, &mut stdout), (channels::STDERR, &mut stderr)] {
        while let Some(data) = reader.as_mut().and_then(StreamReader::next_now) {
            send(sink, channel, &data).await?;
        }
    }
    // The rest of a status that came in several pieces; a runtime that leaves the stream open is not waited for.
    let rest = async {
        while let Some(data) = error.next().await {
            status.extend_from_slice(&data);
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
    if status.is_empty() {
        status = lost(&"it did not say how the command ended");
    }
    send(sink, channels::ERROR, &status).await
}

/// Passes bytes on, as long as they are taken.
async fn forward(writer: &mut Option<StreamWriter>, bytes: Bytes) {
    if let Some(stream) = writer
        && stream.write(bytes).await.is_err()
    {
        *writer = None;
    }
}

/// The status of a command whose end nobody knows.
fn lost(how: &dyn std::fmt::Display) -> Vec<u8> {
    let status = serde_json::json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("the container runtime closed the connection: {how}"),
    });
    status.to_string().into_bytes()
}

/// Ends a session with this status.
async fn end(socket: Socket, status: &[u8]) -> anyhow::Result<()> {
    let (mut sink, mut source) = socket.split();
    send(&mut sink, channels::ERROR, status).await?;
    part(&mut sink, &mut source).await;
    Ok(())
}

/// Says goodbye and waits for the client's: closing with unread data would cut off what the client has not read.
async fn part(sink: &mut SplitSink<Socket, Message>, source: &mut SplitStream<Socket>) {
    let _ = sink.send(websocket::goodbye()).await;
    let goodbye = async { while let Some(Ok(_)) = source.next().await {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
}

async fn next(reader: &mut Option<StreamReader>) -> Option<Bytes> {
    match reader {
        Some(reader) => reader.next().await,
        None => std::future::pending().await,
    }
}

async fn send<S>(sink: &mut S, channel: u8, data: &[u8]) -> anyhow::Result<()>
where
    S: futures::Sink<Message, Error = tokio_tungstenite::tungstenite::Error> + Unpin,
{
    Ok(sink.send(Message::Binary(channels::write(channel, data))).await?)
}

#[cfg(test)]
mod tests;
