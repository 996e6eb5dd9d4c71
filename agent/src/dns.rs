//! Cluster DNS: every node answers its own pods.
//!
//! ```text
//! pod --> ClusterIP of kube-dns --(dataplane)--> this node's DNS address --> udp, tcp --> server --> table (cluster names)
//!                                                                                               +--> forward (all others)
//! ```
//!
//! Must not know: how the dataplane leads packets here.

pub mod address;
mod clients;
mod forward;
pub mod keeper;
mod metrics;
mod saved;
mod server;
mod sockets;
mod table;
mod tcp;
mod udp;
mod upstream;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hickory_proto::rr::Name;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::process::debug_state::DebugState;
use crate::process::metrics::Metrics;

pub use crate::index::dns::SERVICE;
use clients::Clients;
use forward::Forwarder;
use metrics::DnsMetrics;
use server::Server;
use sockets::Sockets;
pub use table::Table;
pub use upstream::Source;
use upstream::Upstreams;

/// Where the process that holds the sockets is reached.
pub const KEEPER: &str = "/run/pagurus/dns-sockets.sock";
/// Where the names of the cluster are kept over restarts.
pub const NAMES: &str = "/run/pagurus/dns-names";
/// Questions that wait for an answer of others: of all clients, and of one.
const LATER: usize = 4096;
const LATER_OF_ONE: usize = 512;
/// How often it is looked whether addresses and sockets are as they should be.
const LOOK: Duration = Duration::from_secs(30);
/// How long questions that were taken before the end may still take. What comes later waits for the next agent.
const GRACE: Duration = Duration::from_secs(1);

/// How DNS is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's domain.
    pub domain: String,
    /// This node's DNS addresses; put on the loopback device.
    pub addresses: Vec<IpAddr>,
    /// Port.
    pub port: u16,
    /// Who is asked about other names.
    pub upstreams: Source,
    /// Who holds the sockets.
    pub keeper: keeper::Settings,
}

impl Settings {
    /// As a node does it.
    pub fn of_node(domain: &str, upstreams: Source) -> anyhow::Result<Self> {
        Ok(Self {
            domain: domain.to_owned(),
            addresses: address::all(),
            port: 53,
            upstreams,
            keeper: keeper::Settings::own(PathBuf::from(KEEPER))?,
        })
    }
}

/// DNS with its sockets open. Questions are answered once it runs; until then they wait.
pub struct Dns {
    settings: Settings,
    domain: Name,
    table: Table,
    sockets: Sockets,
    /// Where the names are kept over restarts.
    saved: Option<PathBuf>,
}

impl Dns {
    /// Puts the addresses in place and opens the sockets.
    pub fn open(settings: Settings) -> anyhow::Result<Self> {
        let mut domain = Name::from_ascii(&settings.domain)
            .with_context(|| format!("--cluster-domain {:?} is no DNS name", settings.domain))?;
        domain.set_fqdn(true);
        address::ensure(&settings.addresses).context("put the DNS addresses on the loopback device")?;
        let sockets = Sockets::open(&settings.addresses, settings.port, &settings.keeper)?;
        tracing::info!(
            addresses = ?settings.addresses,
            domain = %domain,
            taken_over = sockets.taken_over,
            "serving the cluster's DNS"
        );
        Ok(Self { table: Table::new(&domain, None), domain, settings, sockets, saved: None })
    }

    /// Keeps the names in this file, so that the next agent can answer before the API server has told it anything; what an earlier
    /// one left is answered until then. To be called before [`table`](Self::table).
    pub fn remember(self, file: PathBuf) -> Self {
        let table = Table::new(&self.domain, saved::load(&file, &self.domain));
        Self { table, saved: Some(file), ..self }
    }

    /// Where Services and EndpointSlices go.
    pub fn table(&self) -> Table {
        self.table.clone()
    }

    /// The addresses at which it is served.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.settings.addresses
    }

    /// Answers until cancelled, and then what was taken by then. The sockets stay with who holds them.
    pub async fn run(
        self,
        metrics: &Metrics,
        debug: &DebugState,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let Self { settings, domain: _, table, mut sockets, saved } = self;
        let cancel = cancel.child_token();
        let _guard = cancel.clone().drop_guard();
        let metrics = DnsMetrics::register(metrics);
        let is_own = {
            let (table, own) = (table.clone(), settings.addresses.clone());
            move |ip: IpAddr| own.contains(&ip) || table.is_cluster_dns(ip)
        };
        let upstreams = Upstreams::new(settings.upstreams.clone(), is_own);
        // Others are asked a little longer than questions are taken.
        let end = CancellationToken::new();
        let _end = end.clone().drop_guard();
        let forwarder = Forwarder::new(upstreams, metrics.clone(), end.clone());
        let server = Server::new(table.clone(), forwarder.clone(), metrics);
        register_state(debug, &settings, &server);
        let (later, questions) = mpsc::channel(LATER);
        let (stop, stopped) = udp::stop().context("make a pipe")?;
        let stopped = Arc::new(stopped);
        let mut parts: JoinSet<anyhow::Result<()>> = JoinSet::new();
        if let Some(file) = saved {
            parts.spawn(saved::run(table.clone(), file, cancel.clone()));
        }
        let waiting = Clients::new(LATER_OF_ONE);
        for socket in sockets.datagrams.clone() {
            let (server, stopped) = (server.clone(), stopped.clone());
            let later = udp::Queue { questions: later.clone(), clients: waiting.clone() };
            let thread = thread("dns-udp", move || udp::serve(&socket, &stopped, &server, &later))?;
            parts.spawn(async move { thread.await.context("answer datagrams")?.context("answer datagrams") });
        }
        drop(later);
        for listener in &sockets.listeners {
            let listener = listener.try_clone().context("prepare a DNS socket")?;
            let listener = tokio::net::TcpListener::from_std(listener).context("prepare a DNS socket")?;
            parts.spawn(tcp::serve(listener, server.clone(), cancel.clone()));
        }
        parts.spawn(answer_later(questions, server, cancel.clone()));
        parts.spawn({
            let (forwarder, cancel) = (forwarder.clone(), cancel.clone());
            async move {
                tokio::select! {
                    () = async { table.completed().await; forwarder.look_for_loops().await } => {}
                    () = cancel.cancelled() => {}
                }
                cancel.cancelled().await;
                Ok(())
            }
        });
        let mut outcome = Ok(());
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {
                    let addresses = settings.addresses.clone();
                    let looked = tokio::task::spawn_blocking(move || {
                        sockets.hold();
                        (address::ensure(&addresses), sockets)
                    });
                    let (ensured, back) = looked.await.context("look after the DNS sockets")?;
                    sockets = back;
                    if let Err(error) = ensured {
                        tracing::error!(error = format!("{error:#}"), "the DNS addresses are not in place; trying again");
                    }
                }
                Some(ended) = parts.join_next() => {
                    outcome = ended.context("a part of DNS panicked").flatten();
                    break;
                }
                () = cancel.cancelled() => break,
            }
        }
        cancel.cancel();
        drop(stop);
        while let Some(ended) = parts.join_next().await {
            outcome = outcome.and(ended.context("a part of DNS panicked").flatten());
        }
        end.cancel();
        forwarder.finish().await;
        outcome
    }
}

/// Takes away what serving DNS leaves on a node.
pub fn remove() {
    let settings = keeper::Settings { socket: PathBuf::from(KEEPER), command: Vec::new() };
    if let Err(error) = keeper::end(&settings) {
        tracing::warn!(%error, "the process that holds the DNS sockets does not answer");
    }
    if let Err(error) = address::remove() {
        tracing::warn!(
            error = format!("{error:#}"),
            "the DNS addresses cannot be taken from the loopback device"
        );
    }
}

/// Answers the questions that take time, many at once.
async fn answer_later(
    mut questions: mpsc::Receiver<udp::Later>,
    server: Arc<Server>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            question = questions.recv(), if answers.len() < LATER => {
                let Some(question) = question else { break };
                let server = server.clone();
                answers.spawn(async move {
                    let answer = server.answer_later(&question.message, None, question.arrived).await;
                    // A full socket is as good as a lost datagram.
                    let _ = question.socket.send_to(&answer, question.from);
                    drop(question.share);
                });
            }
            Some(_) = answers.join_next() => {}
            () = async { cancel.cancelled().await; tokio::time::sleep(GRACE).await } => break,
        }
    }
    // The threads have ended: what they had taken is answered.
    let _ = tokio::time::timeout(GRACE, async { while answers.join_next().await.is_some() {} }).await;
    answers.shutdown().await;
    Ok(())
}

fn register_state(debug: &DebugState, settings: &Settings, server: &Arc<Server>) {
    let (settings, server) = (settings.clone(), server.clone());
    debug.register("dns", move || {
        let used = server.table.used();
        json!({
            "desired": { "addresses": settings.addresses, "domain": settings.domain },
            "observed": {
                "complete": server.table.is_complete(),
                "services": used.services,
                "slices": used.slices,
                "endpoints": used.endpoints,
                "forwarding": server.forwarder.explain(),
            },
        })
    });
}

/// Runs a function on a thread of its own; its outcome comes as a future.
fn thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<tokio::sync::oneshot::Receiver<T>> {
    let (tell, outcome) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(256 << 10)
        .spawn(move || drop(tell.send(body())))
        .with_context(|| format!("start the thread {name}"))?;
    Ok(outcome)
}
