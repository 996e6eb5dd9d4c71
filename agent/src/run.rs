//! The composition root: the only file that sees every subsystem. It starts them in order, keeps them, and ends them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::actuate;
use crate::config::{Config, NodeContext};
use crate::index::service_links::ServiceLinks;
use crate::observe::pods::PodTable;
use crate::process::shutdown::{self, Outcome, Signals};
use crate::process::{admin, lock, logging, preflight};
use crate::{dns, report, serve};

/// How long tasks may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// The agent's tasks by name; the first that ends before it was asked to ends the agent.
struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
    cancel: CancellationToken,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        use tracing::Instrument as _;
        let span = tracing::info_span!("task", name);
        self.set.spawn(async move { (name, task.await) }.instrument(span));
    }
}

/// Runs the agent until it is told to stop.
pub fn start(config: Config) -> anyhow::Result<()> {
    logging::start(&config.log)?;
    preflight::check(&config)?;
    // Two threads: the work is waiting, and each thread has stacks and allocator caches of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .thread_name("agent")
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let outcome = runtime.block_on(run(config));
    // A blocking task (a mount, a stuck file system) must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn run(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is installed already");
    }
    for field in &config.ignored {
        tracing::warn!("the agent does not act on the field {field} of the configuration file");
    }
    let serves = config.dataplane || config.dns_server;
    // Until the end: nobody takes away what this agent looks after.
    let running = serves.then(|| lock::running(Path::new(lock::FILE))).transpose()?;
    // Sockets first: a port that is taken is told before anything else happens.
    let node_api = config.kubelet.then(|| serve::bind(&config)).transpose()?;
    let dns = config.dns_server.then(|| dns_sockets(&config)).transpose()?;
    let admin_socket = config.healthz.map(admin::bind).transpose()?;
    let (context, event_writer) = NodeContext::new(config).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = %context.node_name,
        addresses = ?context.node_ips,
        kubelet = context.config.kubelet,
        dataplane = context.config.dataplane,
        "agent starts"
    );
    let cancel = CancellationToken::new();
    let mut tasks = Tasks { set: JoinSet::new(), cancel: cancel.clone() };
    let node_name: Arc<str> = context.node_name.as_str().into();
    tasks.spawn("events", event_writer.run(context.client.clone(), node_name, cancel.clone()));
    // Before anybody can ask: a part that has not begun is not ready.
    if context.config.dataplane {
        context.readiness.expect(&["services", "programs"]);
        if context.config.pod_network {
            context.readiness.expect(&["network"]);
        }
    }
    if node_api.is_some() {
        context.readiness.expect(&["node-api", "pods"]);
    }
    if let Some(listener) = admin_socket {
        tasks.spawn("health checks", admin::run(context.clone(), listener, cancel.clone()));
    }
    // What is known of names from before is answered whether the API server is there or not.
    let names = dns.as_ref().map(|dns| (dns.table(), dns.addresses().to_vec()));
    match dns {
        Some(dns) => {
            let (context, cancel) = (context.clone(), cancel.clone());
            tasks.spawn("DNS", async move { dns.run(&context.metrics, &context.debug, cancel).await });
        }
        // An agent that does without Services may have one beside it that does not.
        None if running.is_some() || lock::alone(Path::new(lock::FILE))?.is_some() => {
            tokio::task::spawn_blocking(dns::remove).await.context("end DNS")?;
        }
        None => {}
    }
    if let Some(address) = context.config.services.metrics.filter(|_| context.config.dataplane) {
        tasks.spawn("metrics", admin::run_metrics(context.clone(), address, cancel.clone()));
    }
    tokio::select! {
        () = preflight::api_rights(&context.client, &context.node_name, &cancel) => {}
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            return Ok(());
        }
    }
    // One watch of Services for everybody.
    let links = ServiceLinks::default();
    if context.config.dataplane {
        let links = node_api.is_some().then(|| links.clone());
        tasks.spawn("dataplane", actuate::dataplane::run(context.clone(), names, links, cancel.clone()));
    } else if node_api.is_some() {
        tasks.spawn("Services of pods", links.clone().run(context.client.clone(), cancel.clone()));
    }
    if let Some(listener) = node_api {
        let table = PodTable::default();
        let waited = tokio::select! {
            waited = preflight::runtime_socket(&context.config, &cancel) => waited,
            signal = signals.next() => {
                tracing::info!(signal, "stopping");
                return Ok(());
            }
        };
        waited?;
        tasks.spawn(
            "node API",
            serve::run(context.clone(), Arc::new(table.clone()), listener, cancel.clone()),
        );
        tasks.spawn("pods", actuate::pods::run_node(context.clone(), table, links, cancel.clone()));
        tasks.spawn("lease", report::lease::run(context.clone(), cancel.clone()));
        tasks.spawn("node status", report::node_status::run(context.clone(), cancel.clone()));
    }
    let ended = supervise(tasks, &mut signals).await;
    drop(running);
    ended
}

/// Opens the DNS sockets; what came for them since the last agent ended is waiting in them.
fn dns_sockets(config: &Config) -> anyhow::Result<dns::Dns> {
    let settings = dns::Settings::of_node(&config.cluster_domain, config.dns_upstreams.clone())?;
    let dns = dns::Dns::open(settings).context("prepare the cluster's DNS")?;
    Ok(dns.remember(PathBuf::from(dns::NAMES)))
}

/// Waits for a signal or the first task that fails, then ends the others.
async fn supervise(mut tasks: Tasks, signals: &mut Signals) -> anyhow::Result<()> {
    let ended = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping; containers and connections stay");
            Ok(())
        }
        ended = tasks.set.join_next() => Err(early_end(ended)),
    };
    match shutdown::drain(&mut tasks.set, &tasks.cancel, signals, GRACE).await {
        Outcome::Drained => tracing::info!("stopped"),
        Outcome::TimedOut => tracing::warn!("stopped with tasks unfinished after {} s", GRACE.as_secs()),
        Outcome::Aborted => tracing::warn!("stopped at once by a second signal"),
    }
    ended
}

fn early_end(
    ended: Option<Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>>,
) -> anyhow::Error {
    match ended {
        Some(Ok((name, Err(error)))) => error.context(format!("{name} failed")),
        Some(Ok((name, Ok(())))) => anyhow::anyhow!("{name} ended though nobody asked it to"),
        Some(Err(error)) => anyhow::anyhow!("a task of the agent panicked: {error}"),
        None => anyhow::anyhow!("the agent has no tasks"),
    }
}
