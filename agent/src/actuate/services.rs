//! Services into kernel maps: watches feed the desired state, the plan of each changed Service is carried out at once.
//!
//! Nothing is written before both watches have told everything there is, so that a restart never takes an endpoint away;
//! the programs of an earlier agent serve until then. Must not know: how a plan is made (`agent-core`), how a map is
//! written (`agent-datapath`).

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use pagurus_agent_core::node_config::{self, Facts};
use pagurus_agent_core::services::plan::Table;
use pagurus_agent_core::services::{Algorithm, Forwarding};
use pagurus_agent_datapath::conntrack::Conntrack;
use pagurus_agent_datapath::devices::{Devices, Early};
use pagurus_agent_datapath::names::Names;
use pagurus_agent_datapath::{
    Config as DatapathConfig, Datapath, LIMITS, LoadError, MapCapacity, ServiceMaps,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::actuate::delivery::Handles;
use crate::actuate::devices::Attacher;
use crate::config::{Choice, Mode, NodeContext};
use crate::index::feed::Feed;
use crate::index::services::Defaults;
use crate::process::readiness::Part;
use crate::report::dataplane::Condition;
use crate::report::events::about_node;

mod balancer;
mod connections;
mod feeds;
mod health;
mod host_ports;
mod metrics;
mod node;
mod rivals;
mod sockets;
mod told;

pub use feeds::Sources;

use balancer::{Balancer, Outcome};
use feeds::Feeds;
use health::Health;
use metrics::ServiceMetrics;
use sockets::Endings;
use told::Told;

/// Programs that the kernel refused are tried again after this time.
const RELOAD: Duration = Duration::from_secs(60);

/// Keeps the Service maps right until cancelled, and what hangs on them: health checks, sockets of backends that went.
pub async fn run(
    context: Arc<NodeContext>,
    sources: Sources,
    attacher: Attacher,
    hand_over: oneshot::Sender<Handles>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let condition = Condition::default();
    let health = Arc::new(Health::default());
    let endings = Arc::new(Endings::default());
    let mut parts = JoinSet::new();
    let ended = cancel.child_token();
    let _guard = ended.clone().drop_guard();
    parts.spawn(crate::report::dataplane::run(context.clone(), condition.clone(), ended.clone()));
    parts.spawn(health::run(context.clone(), health.clone(), ended.clone()));
    parts.spawn(sockets::run(context.clone(), endings.clone(), ended.clone()));
    parts.spawn(rivals::run(context.clone(), ended.clone()));
    let (give, table) = oneshot::channel();
    parts.spawn(connections::run(context.clone(), table, ended.clone()));
    let mut work =
        Work { context, attacher, condition, health, endings, table: Some(give), handles: Some(hand_over) };
    let outcome = tokio::select! {
        outcome = work.run(sources, cancel) => outcome,
        Some(part) = parts.join_next() => part.context("a part of Service balancing panicked").flatten(),
    };
    ended.cancel();
    while let Some(part) = parts.join_next().await {
        part.context("a part of Service balancing panicked").flatten()?;
    }
    outcome
}

/// What the loop works with.
struct Work {
    context: Arc<NodeContext>,
    attacher: Attacher,
    condition: Condition,
    health: Arc<Health>,
    endings: Arc<Endings>,
    /// Where the table of connections is cleaned.
    table: Option<oneshot::Sender<Conntrack>>,
    /// Where pods and announced addresses are written.
    handles: Option<oneshot::Sender<Handles>>,
}

impl Work {
    async fn run(&mut self, sources: Sources, cancel: CancellationToken) -> anyhow::Result<()> {
        let context = self.context.clone();
        let part = context.readiness.register("services");
        let config = DatapathConfig {
            cgroup_root: context.config.cgroup_root.clone(),
            bpffs: context.config.bpffs.clone(),
            capacity: MapCapacity::default(),
            node_ports: context.config.services.node_ports.clone(),
        };
        let Some(loaded) = self.load(&config, &part, &cancel).await? else { return Ok(()) };
        let Loaded { mut datapath, table, names } = loaded;
        if let Some((give, connections)) = self.table.take().zip(datapath.take_conntrack()) {
            // Nobody takes it when all is ending.
            let _ = give.send(connections);
        }
        if let Some(give) = self.handles.take() {
            // As above.
            let _ = give.send(Handles { endpoints: datapath.endpoints()?, announced: datapath.announced()? });
        }
        let metrics = ServiceMetrics::register(&context.metrics);
        let shared = Arc::new(Mutex::new(Balancer::new(datapath, table, Some(names), metrics)));
        let debug = shared.clone();
        context.debug.register("services", move || debug.lock().explain());
        metrics::register_counters(&context.metrics, &shared);
        let mut feeds = self.feeds(sources);
        shared.lock().desired.set_local_dns(feeds.local_dns());
        part.not_ready("waiting for the lists of Services and EndpointSlices");
        // Until everything is known.
        while !feeds.is_complete() {
            tokio::select! {
                change = feeds.next() => feeds.take(&shared, &context.config.services, change),
                () = cancel.cancelled() => return Ok(()),
            }
        }
        let mut node = NodeState::default();
        {
            let mut balancer = shared.lock();
            let started = Instant::now();
            balancer.write_all();
            node.write(self, &mut feeds, &mut balancer);
            let attached = balancer.maps.attach().context("attach the socket programs")?;
            tracing::info!(
                created = attached.created,
                replaced = attached.replaced,
                services = balancer.table.used().services,
                backends = balancer.table.used().backends,
                elapsed_ms = started.elapsed().as_millis(),
                "serving Services"
            );
            self.attach_devices(&mut balancer.maps, &config, &mut feeds.told);
            let outcome = balancer.take_outcome();
            self.act(&mut feeds, &balancer, outcome);
        }
        part.ready();
        // Up to here nothing was waiting.
        let mut quiet = Instant::now();
        loop {
            let wake_at = shared.lock().wake_at();
            // What is there without waiting came while the last changes were written: since then it has been waiting.
            let waited = futures::FutureExt::now_or_never(feeds.next()).map(|change| (Some(change), quiet));
            let (change, arrived) = match waited {
                Some(waited) => waited,
                None => tokio::select! {
                    change = feeds.next() => {
                        let arrived = feeds.arrived(&change);
                        (Some(change), arrived)
                    }
                    () = sleep_until(wake_at) => (None, Instant::now()),
                    () = cancel.cancelled() => return Ok(()),
                },
            };
            match change {
                Some(change) => feeds.take(&shared, &context.config.services, change),
                None => shared.lock().wake(),
            }
            // Whatever else is there already is written in the same pass.
            while let Some(change) = futures::FutureExt::now_or_never(feeds.next()) {
                feeds.take(&shared, &context.config.services, change);
            }
            quiet = Instant::now();
            let mut balancer = shared.lock();
            balancer.write_dirty(arrived);
            if std::mem::take(&mut feeds.addresses_changed) {
                node.write(self, &mut feeds, &mut balancer);
            }
            let outcome = balancer.take_outcome();
            self.act(&mut feeds, &balancer, outcome);
        }
    }

    fn feeds(&self, sources: Sources) -> Feeds {
        let client = &self.context.client;
        let services = &self.context.config.services;
        Feeds {
            services: Feed::all("Service", Api::<Service>::all(client.clone())),
            slices: Feed::all("EndpointSlice", Api::<EndpointSlice>::all(client.clone())),
            sources,
            node_name: self.context.node_name.clone(),
            defaults: Defaults {
                algorithm: match services.algorithm {
                    Choice::Maglev => Algorithm::Maglev,
                    Choice::Random => Algorithm::Random,
                },
                forwarding: match services.mode {
                    Mode::Snat => Forwarding::Snat,
                    Mode::Dsr => Forwarding::Dsr,
                },
            },
            told: Told::new(self.context.events.clone()),
            services_complete: false,
            slices_complete: false,
            pods_known: !self.context.config.pod_network,
            addresses_changed: false,
        }
    }

    /// Loads programs and maps. What the kernel refuses is told and tried again: what an earlier agent attached goes on serving. None
    /// if cancelled.
    async fn load(
        &self,
        config: &DatapathConfig,
        part: &Part,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Option<Loaded>> {
        let mut told = Told::new(self.context.events.clone());
        loop {
            let job = config.clone();
            let loaded =
                tokio::task::spawn_blocking(move || load(&job)).await.context("load the dataplane")?;
            let error = match loaded {
                Ok(loaded) => return Ok(Some(loaded)),
                Err(error) => error,
            };
            // What the machine or this binary lacks does not come by waiting.
            if matches!(
                error.downcast_ref(),
                None | Some(LoadError::NoObject | LoadError::Missing(_) | LoadError::Lacks(_))
            ) {
                return Err(error);
            }
            let message = shortened(&format!("{error:#}"));
            part.not_ready(format!("the programs cannot be loaded: {message}"));
            self.condition.set(false, "ProgramsRefused", message.as_str());
            told.tell(&self.node(), "DataplaneProgramsRefused", vec![message]);
            tokio::select! {
                () = tokio::time::sleep(RELOAD) => {}
                () = cancel.cancelled() => return Ok(None),
            }
        }
    }

    /// Loads the packet programs and gives them to the devices. If the kernel refuses them, those of an earlier agent stay, and sockets are
    /// balanced all the same.
    fn attach_devices(&self, datapath: &mut Datapath, config: &DatapathConfig, told: &mut Told) {
        let early = self.context.config.services.xdp;
        let devices = datapath
            .packet_programs(early != Early::Off)
            .map_err(anyhow::Error::from)
            .and_then(|programs| Ok(Devices::new(config, programs, early)?));
        match devices {
            Ok(devices) => {
                self.attacher.install(devices);
                self.condition.set(true, "ServingServices", "sockets and packets are balanced");
            }
            Err(error) => {
                let message = shortened(&format!("only sockets are balanced, packets are not: {error:#}"));
                self.condition.set(false, "PacketProgramsRefused", message.as_str());
                told.tell(&self.node(), "DataplaneProgramsRefused", vec![message]);
            }
        }
    }

    fn node(&self) -> ObjectReference {
        about_node(&self.context.node_name)
    }

    /// Acts on what passes have come to.
    fn act<M: ServiceMaps>(&self, feeds: &mut Feeds, balancer: &Balancer<M>, outcome: Outcome) {
        self.health.set_checks(balancer.checks());
        self.health.set_serving(true);
        for (name, problems) in outcome.problems {
            let about = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Service".to_owned()),
                namespace: Some(name.namespace.to_string()),
                name: Some(name.name.to_string()),
                uid: Some(problems.uid.to_string()),
                ..ObjectReference::default()
            };
            feeds.told.tell(&about, "AddressInUse", problems.contested);
            feeds.told.tell(&about, "ServiceNotServed", problems.unwritten.into_iter().collect());
        }
        self.endings.add(outcome.ended);
    }
}

/// What the programs were told of this node.
#[derive(Default)]
struct NodeState {
    facts: Option<Facts>,
}

impl NodeState {
    /// Tells them, if something is different.
    fn write(&mut self, work: &Work, feeds: &mut Feeds, balancer: &mut Balancer<Datapath>) {
        let context = &work.context;
        let nodes = feeds.sources.nodes.borrow().clone();
        let own = nodes.as_ref().and_then(|nodes| nodes.get(&context.node_name));
        work.health.set_eligible(own.is_none_or(|node| !node.leaving));
        let seen = feeds.sources.devices.borrow().clone();
        let facts = node::facts(&context.config, &context.node_ips, nodes.as_deref(), &seen);
        if self.facts.as_ref() == Some(&facts) {
            return;
        }
        let (config, mut problems) = node_config::node_config(&facts);
        match balancer.maps.set_node_config(&config) {
            Ok(()) => self.facts = Some(facts),
            Err(error) => problems
                .push(format!("the programs cannot be told of this node: {:#}", anyhow::Error::from(error))),
        }
        feeds.told.tell(&work.node(), "DataplaneConfiguration", problems);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What was loaded.
struct Loaded {
    datapath: Datapath,
    table: Table,
    names: Names,
}

/// Loads programs and maps, and reads what an earlier agent wrote.
fn load(config: &DatapathConfig) -> anyhow::Result<Loaded> {
    let mut datapath = Datapath::load(config)?;
    let observed = datapath.services().observe().context("read the Service maps")?;
    let names = Names::open(config).context("open the names of Services")?;
    Ok(Loaded { datapath, table: Table::new(observed, LIMITS, 0), names })
}

/// The verifier's log can be very long; what it says last is why.
fn shortened(text: &str) -> String {
    const HEAD: usize = 300;
    const TAIL: usize = 600;
    if text.len() <= HEAD + TAIL {
        return text.to_owned();
    }
    let (head, tail) = (text.floor_char_boundary(HEAD), text.ceil_char_boundary(text.len() - TAIL));
    format!("{} ... {}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests;
