//! The composition root: starts the parts in order, waits for the signal or a fault, ends them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use pagurus_controlplane_apiserver::request::UserInfo;
use pagurus_controlplane_controllers::{self as controllers, ClientFor, SigningCa};
use pagurus_controlplane_scheduler as scheduler;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::apiserver::{self, Running};
use crate::args::{Args, Command};
use crate::client;
use crate::config::{Config, ControllersConfig};
use crate::kubeconfig;
use crate::logging;
use crate::memory;
use crate::shutdown::{Drain, Signals};

/// How long the parts have to finish what they are doing.
const GRACE: Duration = Duration::from_secs(10);
const SCHEDULER_AGENT: &str = "kube-scheduler/v1.37";
const CONTROLLERS_AGENT: &str = "kube-controller-manager/v1.37";

/// Does what the command line says.
pub fn main(args: Args) -> Result<()> {
    let begun = Instant::now();
    if let Some(Command::Kubeconfig(args)) = &args.command {
        return kubeconfig::run(args);
    }
    let config = Config::new(args.serve)?;
    logging::start();
    let prepared = config.apiserver.clone().map(apiserver::prepare).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()
        .context("cannot start the threads")?;
    // A second provider in the process would be an error in a test only; either serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    runtime.block_on(run(config, prepared, begun))
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8)
}

async fn run(config: Config, prepared: Option<apiserver::Prepared>, begun: Instant) -> Result<()> {
    let mut signals = Signals::new()?;
    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (faults, mut faulty) = mpsc::channel(4);
    let running = match prepared {
        Some(prepared) => Some(apiserver::start(prepared, &tasks, &cancel, &faults).await?),
        None => None,
    };
    let clients = Clients::new(&config, running.as_ref()).await?;
    let early = match &running {
        Some(running) => tokio::select! {
            () = running.roles.wait() => None,
            end = ending(&mut signals, &mut faulty) => Some(end),
        },
        None => None,
    };
    let outcome = match early {
        Some(outcome) => outcome,
        None => {
            start_components(&config, clients, &tasks, &cancel, &faults);
            info!(after = ?begun.elapsed(), "started");
            tasks.spawn(memory::give_back(cancel.clone()));
            ending(&mut signals, &mut faulty).await
        }
    };
    let drained = signals.drain(&cancel, &tasks, GRACE).await;
    if let Some(running) = running {
        running.end(GRACE).await;
    }
    match drained {
        Drain::Complete => info!("shut down"),
        Drain::TimedOut => warn!(grace = ?GRACE, "shut down before all connections had ended"),
        Drain::Interrupted => bail!("interrupted while shutting down"),
    }
    outcome
}

/// Waits for what ends the process: a signal, or a part that failed.
async fn ending(signals: &mut Signals, faulty: &mut mpsc::Receiver<anyhow::Error>) -> Result<()> {
    tokio::select! {
        signal = signals.next() => {
            info!(signal, "shutting down");
            Ok(())
        }
        fault = faulty.recv() => Err(fault.unwrap_or_else(|| anyhow::anyhow!("all parts ended"))),
    }
}

/// How the components reach the API server.
struct Clients {
    scheduler: Client,
    controllers: ClientFor,
    ca: String,
    /// The key of the CA, where it is in this process.
    signing: Option<SigningCa>,
}

impl Clients {
    async fn new(config: &Config, running: Option<&Running>) -> Result<Self> {
        if let Some(running) = running {
            let server = running.server.clone();
            let user = UserInfo::authenticated("system:kube-scheduler", []);
            return Ok(Self {
                scheduler: client::local(server.clone(), user, SCHEDULER_AGENT),
                controllers: Arc::new(move |name| {
                    let identity = controllers::identity(name);
                    let groups = identity.groups.iter().map(String::as_str);
                    let user = UserInfo::authenticated(identity.user.as_str(), groups);
                    client::local(server.clone(), user, CONTROLLERS_AGENT)
                }),
                ca: running.ca.clone(),
                signing: Some(SigningCa { certificate: running.ca.clone(), key: running.ca_key.clone() }),
            });
        }
        let kubeconfig = config.kubeconfig.as_deref().context("--kubeconfig is required")?;
        let (client, ca) = client::remote(kubeconfig).await?;
        let shared = client.clone();
        Ok(Self { scheduler: client, controllers: Arc::new(move |_| shared.clone()), ca, signing: None })
    }
}

fn start_components(
    config: &Config,
    clients: Clients,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
    faults: &mpsc::Sender<anyhow::Error>,
) {
    if config.scheduler {
        let scheduling =
            scheduler::run(clients.scheduler, scheduler::SchedulerConfig::default(), cancel.clone());
        watch_over("scheduler", scheduling, tasks, cancel, faults);
    }
    if let Some(ControllersConfig { cluster_cidrs, node_mask_v4, node_mask_v6 }) = config.controllers.clone()
    {
        let config = controllers::ControllersConfig {
            cluster_cidrs,
            node_cidr_mask_v4: node_mask_v4,
            node_cidr_mask_v6: node_mask_v6,
            service_account_ca: clients.ca,
            signing_ca: clients.signing,
        };
        let controlling = controllers::run(clients.controllers, config, cancel.clone());
        watch_over("controllers", controlling, tasks, cancel, faults);
    }
}

/// Runs a component; it must not end by itself.
fn watch_over(
    name: &'static str,
    component: impl Future<Output = Result<()>> + Send + 'static,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
    faults: &mpsc::Sender<anyhow::Error>,
) {
    let (cancel, faults) = (cancel.clone(), faults.clone());
    tasks.spawn(async move {
        let outcome = Box::pin(component).await;
        let fault = match outcome {
            Err(error) => error.context(format!("the {name} failed")),
            Ok(()) if !cancel.is_cancelled() => anyhow::anyhow!("the {name} ended by itself"),
            Ok(()) => return,
        };
        // The receiver is gone only when the process ends anyway.
        let _ = faults.send(fault).await;
    });
}
