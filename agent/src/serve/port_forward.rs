//! `kubectl port-forward`: SPDY streams in pairs, in a WebSocket or bare, each pair a connection to a port in the pod's
//! network namespace; and the older subprotocol with two channels per port. It must not know services.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pagurus_agent_core::names::PodUid;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::reply::{Body, Refusal};
use super::runtime_stream::STREAM_PROTOCOL;
use super::spdy::{self, Headers, Stream, StreamReader, StreamWriter};
use super::websocket::{self, Upgrade};
use super::{PodEntry, Sessions, channels};

mod legacy;
mod namespace;

/// SPDY in the messages of a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// What the streams mean.
const PROTOCOL: &str = "portforward.k8s.io";
/// How long the second stream of a pair may be missing.
const PAIR_PATIENCE: Duration = Duration::from_secs(30);
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
const CHUNK: usize = 16 * 1024;

/// The pod whose ports are meant.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) pod: String,
    pub(super) uid: PodUid,
    /// File of its network namespace.
    pub(super) namespace: PathBuf,
}

impl Target {
    /// Connects to a port of the pod's loopback, IPv4 first.
    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let connect = namespace::connect_loopback(&self.namespace, port);
        let connected = tokio::time::timeout(CONNECT_PATIENCE, connect).await;
        connected
            .map_err(|_| format!("no connection within {} s", CONNECT_PATIENCE.as_secs()))?
            .map_err(|e| e.to_string())
    }

    fn failure(&self, port: u16, problem: &str) -> String {
        format!("error forwarding port {port} to pod {}, uid {}: {problem}", self.pod, self.uid)
    }
}

/// Grants the upgrade and forwards until the client goes.
pub(super) async fn serve(
    runtime_socket: &std::path::Path,
    pod: &PodEntry,
    sessions: &Sessions,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let name = pod.pod.name.name.clone();
    let Some(sandbox) = &pod.sandbox_id else {
        return Err(Refusal::bad_request(format!(
            "unable to forward port because pod {name:?} is not running"
        )));
    };
    let namespace = namespace::of_sandbox(runtime_socket, sandbox)
        .await
        .map_err(|problem| Refusal::internal(format!("find the network of pod {name:?}: {problem}")))?;
    let target = Target { pod: name, uid: pod.pod.uid.clone(), namespace };
    if websocket::wants(request.headers(), "websocket") {
        let upgrade = Upgrade::of(&mut request, &[TUNNEL, channels::V4, PROTOCOL])?;
        let query = request.uri().query().unwrap_or_default();
        let ports = if upgrade.protocol == TUNNEL { Vec::new() } else { legacy::ports(query)? };
        let is_tunnel = upgrade.protocol == TUNNEL;
        let (response, socket) = upgrade.grant();
        sessions.spawn("port-forward", async move {
            let socket = socket.await?;
            if is_tunnel {
                forward(websocket::byte_stream(socket), &target).await?;
            } else {
                legacy::forward(socket, &ports, &target).await?;
            }
            Ok(())
        });
        Ok(response)
    } else if websocket::wants(request.headers(), "SPDY/3.1") {
        if !websocket::words(request.headers(), STREAM_PROTOCOL).any(|word| word == PROTOCOL) {
            let text =
                format!("unable to upgrade: unable to negotiate protocol: this server speaks {PROTOCOL}");
            return Err(Refusal::new(http::StatusCode::FORBIDDEN, text));
        }
        let mut response = websocket::switching("SPDY/3.1");
        response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        let upgrade = hyper::upgrade::on(&mut request);
        sessions.spawn("port-forward", async move {
            forward(TokioIo::new(upgrade.await?), &target).await?;
            Ok(())
        });
        Ok(response)
    } else {
        Err(Refusal::bad_request("unable to upgrade: an upgrade to websocket or SPDY/3.1 is required"))
    }
}

/// The two streams of one connection, as far as they have come.
struct Pair {
    port: u16,
    error: Option<Stream>,
    data: Option<Stream>,
    since: tokio::time::Instant,
}

/// Serves the streams of a SPDY connection.
async fn forward(io: impl AsyncRead + AsyncWrite + Send, target: &Target) -> Result<(), spdy::Error> {
    let (opener, incoming, connection) = spdy::connection(io, spdy::Role::Server);
    drop(opener);
    let streams = serve_streams(incoming, target);
    tokio::pin!(streams, connection);
    tokio::select! {
        // The connection must go on while what has been accepted is served.
        () = &mut streams => Ok(()),
        ended = &mut connection => ended,
    }
}

async fn serve_streams(mut incoming: spdy::Incoming, target: &Target) {
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        let oldest = pairs.values().map(|pair| pair.since).min();
        let (headers, stream) = tokio::select! {
            accepted = incoming.accept() => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
            Some(_) = connections.join_next() => continue,
            () = expire(oldest) => {
                pairs.retain(|_, pair| pair.since.elapsed() < PAIR_PATIENCE);
                continue;
            }
        };
        match take(&mut pairs, &headers, stream) {
            Ok(Some(Pair { port, error: Some(error), data: Some(data), .. })) => {
                let target = target.clone();
                connections.spawn(async move { serve_pair(&target, port, error, data).await });
            }
            Ok(_) => {}
            Err(problem) => tracing::debug!(problem, ?headers, "a stream of a port-forward is refused"),
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn expire(oldest: Option<tokio::time::Instant>) {
    match oldest {
        Some(oldest) => tokio::time::sleep_until(oldest + PAIR_PATIENCE).await,
        None => std::future::pending().await,
    }
}

/// Puts a stream to its pair; gives the pair back once it is complete. A stream that is dropped is reset.
fn take(
    pairs: &mut HashMap<String, Pair>,
    headers: &Headers,
    stream: Stream,
) -> Result<Option<Pair>, &'static str> {
    let header = |name: &str| headers.get(name).map(String::as_str);
    let port = header("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
    let port = port.ok_or("no valid port")?;
    // Clients older than request ids open one pair at a time per port.
    let id = header("requestid").map_or_else(|| format!("port {port}"), str::to_owned);
    let since = tokio::time::Instant::now();
    let pair = pairs.entry(id.clone()).or_insert(Pair { port, error: None, data: None, since });
    let slot = match header("streamtype") {
        Some("error") => &mut pair.error,
        Some("data") => &mut pair.data,
        _ => return Err("neither an error nor a data stream"),
    };
    if slot.replace(stream).is_some() {
        return Err("the stream is there already");
    }
    Ok(if pair.error.is_some() && pair.data.is_some() { pairs.remove(&id) } else { None })
}

async fn serve_pair(target: &Target, port: u16, error: Stream, data: Stream) {
    let Stream { reader: _, writer: mut error } = error;
    let Stream { mut reader, mut writer } = data;
    let outcome = match target.connect(port).await {
        Ok(connection) => {
            pump(connection, &mut reader, &mut writer).await.map_err(|problem| problem.to_string())
        }
        Err(problem) => Err(problem),
    };
    if let Err(problem) = outcome {
        let text = target.failure(port, &problem);
        tracing::debug!("{text}");
        let _ = error.write(Bytes::from(text)).await;
    }
    // Both halves end well in any case: the client waits for it.
    let _ = writer.finish().await;
    let _ = error.finish().await;
}

/// Copies both ways until both have ended, or the pod's side has.
async fn pump(
    connection: TcpStream,
    reader: &mut StreamReader,
    writer: &mut StreamWriter,
) -> std::io::Result<()> {
    let (mut from_pod, mut to_pod) = connection.into_split();
    let inward = async {
        while let Some(bytes) = reader.next().await {
            to_pod.write_all(&bytes).await?;
        }
        to_pod.shutdown().await
    };
    let outward = async {
        loop {
            let mut buffer = bytes::BytesMut::with_capacity(CHUNK);
            if from_pod.read_buf(&mut buffer).await? == 0 {
                break;
            }
            writer.write(buffer.freeze()).await.map_err(std::io::Error::other)?;
        }
        writer.finish().await.map_err(std::io::Error::other)
    };
    tokio::pin!(inward, outward);
    tokio::select! {
        ended = &mut outward => ended,
        ended = &mut inward => {
            // A write that failed: the pod has closed. What it said before is still there to be read.
            if let Err(error) = ended {
                tracing::debug!(%error, "the pod does not take what the client sends");
            }
            outward.await
        }
    }
}

#[cfg(test)]
mod tests;
