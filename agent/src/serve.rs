//! The node API on port 10250: what `kubectl logs`, `exec`, `attach` and `port-forward` end at, and what monitoring
//! reads. It must not know how pods come to be; it asks a [`PodDirectory`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use pagurus_agent_core::pods::Pod;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::auth::Gate;
use self::reply::Body;
use crate::config::{Config, NodeContext};

mod attach;
mod auth;
mod channels;
mod directory;
mod exec;
mod logs;
mod port_forward;
mod query;
mod reply;
mod routes;
mod runtime_stream;
mod spdy;
mod stats;
mod tls;
mod websocket;

/// Connections at once; each may be an exec or a log that is followed.
const MAX_CONNECTIONS: usize = 512;
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
const HEADERS_PATIENCE: Duration = Duration::from_secs(10);

/// What the node API must know of this node's pods. Calls are frequent and must be quick.
pub trait PodDirectory: Send + Sync + 'static {
    /// The pods of this node with what the runtime has of them.
    fn pods(&self) -> Vec<PodEntry>;

    /// The pod of this name, with what the runtime has of it.
    fn find(&self, namespace: &str, name: &str) -> Option<PodEntry>;
}

/// A pod and what the runtime has of it.
#[derive(Clone, Debug)]
pub struct PodEntry {
    /// The pod as the API server told it.
    pub pod: Arc<Pod>,
    /// The sandbox that is ready, if there is one.
    pub sandbox_id: Option<String>,
    /// Every container of the pod's spec, init and ephemeral ones among them.
    pub containers: Vec<ContainerEntry>,
}

/// A container of a pod's spec.
#[derive(Clone, Debug)]
pub struct ContainerEntry {
    /// Its name in the spec.
    pub name: String,
    /// The newest instance the runtime has, running or not.
    pub current: Option<Instance>,
    /// The one before it.
    pub previous: Option<Instance>,
    /// Why there is no instance, in the words of the container's status (`ContainerCreating`, `ImagePullBackOff`).
    pub waiting: Option<String>,
}

/// One life of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The runtime's id, without scheme.
    pub id: String,
    /// Its log file.
    pub log_path: PathBuf,
    /// Whether it runs.
    pub running: bool,
}

/// Takes the port, before anything else starts. Says who is likely to have it if it is taken.
pub fn bind(config: &Config) -> anyhow::Result<std::net::TcpListener> {
    let port = config.port;
    let listener = match config.address {
        Some(address) => std::net::TcpListener::bind((address, port)),
        // IPv6's "any" takes IPv4 in, too, but not where the kernel has no IPv6.
        None => {
            std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|error| match error.kind() {
                std::io::ErrorKind::AddrInUse => Err(error),
                _ => std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
            })
        }
    };
    match listener {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "port {port} of the node API is taken: stop the other node agent on this machine, or give --port"
        ),
        listener => {
            let address = config.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            let listener =
                listener.with_context(|| format!("listen on {}", SocketAddr::new(address, port)))?;
            listener.set_nonblocking(true).context("prepare the node API's socket")?;
            Ok(listener)
        }
    }
}

/// Everything a request needs.
struct Server {
    context: Arc<NodeContext>,
    directory: Arc<dyn PodDirectory>,
    gate: Gate,
    sessions: Sessions,
    requests: Family<RequestLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    path: &'static str,
    code: u16,
}

impl RequestLabels {
    /// Only the first word of known paths becomes a label: others are chosen by whoever asks.
    fn new(path: &str, code: u16) -> Self {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let known = ["containerLogs", "exec", "attach", "portForward", "pods", "stats", "metrics", "healthz"];
        Self { path: known.into_iter().find(|known| *known == first).unwrap_or("other"), code }
    }
}

/// Upgraded connections: they outlive their request, and end with the server.
#[derive(Clone)]
struct Sessions {
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Sessions {
    /// Runs a session to its end.
    fn spawn(&self, what: &'static str, session: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            let ended = tokio::select! {
                ended = session => ended,
                () = cancel.cancelled() => Ok(()),
            };
            if let Err(error) = ended {
                tracing::debug!(what, error = format!("{error:#}"), "session ended");
            }
        });
    }
}

/// Serves until cancelled.
pub async fn run(
    context: Arc<NodeContext>,
    directory: Arc<dyn PodDirectory>,
    listener: std::net::TcpListener,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let ready = context.readiness.register("node-api");
    let acceptor = TlsAcceptor::from(tls::server_config(&context)?);
    let listener = TcpListener::from_std(listener).context("listen for the node API")?;
    let sessions = Sessions { tasks: TaskTracker::new(), cancel: cancel.clone() };
    let gate = Gate::new(context.client.clone(), context.node_name.clone());
    let requests = Family::<RequestLabels, Counter>::default();
    context.metrics.register("node_api", |registry| {
        registry.register("requests", "Requests of the node API by path and status", requests.clone());
    });
    let server = Arc::new(Server { context, directory, gate, sessions: sessions.clone(), requests });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    ready.ready();
    loop {
        let place = places.clone().acquire_owned().await.context("wait for a place")?;
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or a peer that went at once: neither is better for a tight loop.
                    tracing::warn!(%error, "the node API cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = cancel.cancelled() => break,
        };
        let connection = connection(server.clone(), acceptor.clone(), stream, cancel.clone());
        sessions.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, error = format!("{error:#}"), "connection to the node API ended");
            }
            drop(place);
        });
    }
    sessions.tasks.close();
    sessions.tasks.wait().await;
    Ok(())
}

/// Serves one connection.
async fn connection(
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    // A peer that is gone without a word is noticed in the end.
    setsockopt(&stream, sockopt::KeepAlive, &true)?;
    setsockopt(&stream, sockopt::TcpKeepIdle, &60)?;
    setsockopt(&stream, sockopt::TcpKeepInterval, &30)?;
    let accepted = tokio::time::timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream)).await;
    let stream = accepted.context("TLS handshake took too long")?.context("TLS handshake")?;
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .cloned()
        .map(CertificateDer::into_owned);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (server, certificate) = (server.clone(), certificate.clone());
        async move { Ok::<Response<Body>, std::convert::Infallible>(server.respond(certificate, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_PATIENCE)
        .max_buf_size(32 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        ended = connection => ended.context("serve"),
        () = cancel.cancelled() => Ok(()),
    }
}

impl Server {
    async fn respond(
        &self,
        certificate: Option<CertificateDer<'static>>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let checked = self.gate.check(certificate.as_ref(), request.method(), &path, request.headers()).await;
        let answered = match checked {
            Ok(caller) => {
                tracing::debug!(caller = caller.name, method = %request.method(), path, "node API");
                self.route(&path, request).await
            }
            Err(refusal) => Err(refusal),
        };
        let response = answered.unwrap_or_else(|refusal| {
            tracing::debug!(path, status = %refusal.status, "{refusal}");
            refusal.response()
        });
        self.requests.get_or_create(&RequestLabels::new(&path, response.status().as_u16())).inc();
        response
    }
}
