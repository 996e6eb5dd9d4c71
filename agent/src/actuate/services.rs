//! Services into kernel maps: watches feed the desired state, the plan of each changed Service is carried out at once.
//!
//! Nothing is written before both watches have told everything there is, so that a restart never takes an endpoint away;
//! the programs of an earlier agent serve until then. Lists are read, maps opened and programs verified ([`programs`]) at the same
//! time; once maps are open and lists complete, changes are written, whether the programs are through or not. Must not know: how a
//! plan is made (`agent-core`), how a map is written (`agent-datapath`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use pagurus_agent_core::node_config::{self, Facts};
use pagurus_agent_core::services::plan::Table;
use pagurus_agent_core::services::{Algorithm, Desired, Forwarding, ServiceName};
use pagurus_agent_datapath::conntrack::Conntrack;
use pagurus_agent_datapath::devices::Early;
use pagurus_agent_datapath::load::NodeMap;
use pagurus_agent_datapath::names::Names;
use pagurus_agent_datapath::programs::Programs;
use pagurus_agent_datapath::services::KernelMaps;
use pagurus_agent_datapath::{Config as DatapathConfig, LIMITS, LoadError, MapCapacity, Parts, ServiceMaps};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::actuate::delivery::Handles;
use crate::actuate::devices::Attacher;
use crate::config::{Choice, Mode, NodeContext, NodePortAddresses};
use crate::index::balanced::{ServiceReader, SliceReader};
use crate::index::feed::Feed;
use crate::index::services::Defaults;
use crate::observe::machine;
use crate::process::memory::Burst;
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
mod programs;
mod rivals;
mod sockets;
mod told;

pub use feeds::Sources;
pub use health::FILE as HEALTH_CHECKS;

use balancer::{Balancer, Outcome};
use feeds::Feeds;
use health::Health;
use metrics::ServiceMetrics;
use programs::{Attachment, RELOAD, may_be_granted, shortened};
use sockets::Endings;
use told::Told;

/// Bytes of a flow that XDP has at hand.
const WARM_FLOW: u64 = 32;

/// Keeps the Service maps right until cancelled, and what hangs on them: health checks, sockets of backends that went.
pub async fn run(
    context: Arc<NodeContext>,
    sources: Sources,
    attacher: Attacher,
    hand_over: oneshot::Sender<Handles>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let condition = Condition::default();
    let health = match &context.config.services.node_port_addresses {
        NodePortAddresses::All => Health::default(),
        NodePortAddresses::Primary | NodePortAddresses::Ranges(_) => Health::at_some_addresses(),
    };
    let health = Arc::new(health);
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
    let (tell_written, written) = watch::channel(false);
    let (give_programs, programs) = oneshot::channel();
    let attachment = Attachment {
        context: context.clone(),
        attacher,
        condition: condition.clone(),
        health: health.clone(),
        part: context.readiness.register("programs"),
        written,
    };
    parts.spawn(attachment.run(programs, ended.clone()));
    let outlets = Outlets { table: give, handles: hand_over, programs: give_programs };
    let mut work = Work { context, condition, health, endings, written: tell_written };
    let outcome = tokio::select! {
        outcome = work.run(sources, outlets, cancel) => outcome,
        Some(part) = parts.join_next() => part.context("a part of Service balancing panicked").flatten(),
    };
    ended.cancel();
    while let Some(part) = parts.join_next().await {
        part.context("a part of Service balancing panicked").flatten()?;
    }
    outcome
}

/// Where the parts go that others own.
struct Outlets {
    /// Where the table of connections is cleaned.
    table: oneshot::Sender<Conntrack>,
    /// Where pods and announced addresses are written.
    handles: oneshot::Sender<Handles>,
    /// Where programs are verified and attached.
    programs: oneshot::Sender<Programs>,
}

impl Outlets {
    fn give(self, programs: Programs, connections: Conntrack) -> anyhow::Result<()> {
        let handles = Handles { endpoints: programs.endpoints()?, announced: programs.announced()? };
        // Nobody takes them when all is ending.
        let _ = self.handles.send(handles);
        let _ = self.table.send(connections);
        let _ = self.programs.send(programs);
        Ok(())
    }
}

/// What the loop works with.
struct Work {
    context: Arc<NodeContext>,
    condition: Condition,
    health: Arc<Health>,
    endings: Arc<Endings>,
    /// Whether the maps say what they should.
    written: watch::Sender<bool>,
}

impl Work {
    async fn run(
        &mut self,
        sources: Sources,
        outlets: Outlets,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let context = self.context.clone();
        let config = &context.config.services;
        let part = context.readiness.register("services");
        let burst = Burst::begin();
        let mut feeds = self.feeds(sources);
        let mut desired = Desired::default();
        desired.set_local_dns(feeds.local_dns());
        // What the lists say is taken while the maps are being opened.
        let opened = {
            let mut opening = std::pin::pin!(self.open(&part, &cancel));
            loop {
                tokio::select! {
                    opened = &mut opening => break opened?,
                    change = feeds.next() => feeds.take(&mut desired, config, change),
                }
            }
        };
        let Some(Opened { parts, table, names }) = opened else { return Ok(()) };
        let Parts { programs, services, conntrack, node, counts } = parts;
        outlets.give(programs, conntrack)?;
        let metrics = ServiceMetrics::register(&context.metrics);
        let mut balancer = Balancer::new(services, table, Some(names), metrics);
        balancer.desired = desired;
        let shared = Arc::new(Mutex::new(balancer));
        let debug = shared.clone();
        context.debug.register("services", move || debug.lock().explain());
        metrics::register_counters(&context.metrics, &shared, counts);
        part.not_ready("waiting for the lists of Services, EndpointSlices and Nodes");
        // Until everything is known.
        while !feeds.is_complete() {
            tokio::select! {
                change = feeds.next() => feeds.take(&mut shared.lock().desired, config, change),
                () = cancel.cancelled() => return Ok(()),
            }
        }
        let mut node = NodeState { map: node, facts: None, routes: 0 };
        self.first_pass(&shared, &mut feeds, &mut node);
        part.ready();
        drop(burst);
        self.follow(&shared, &mut feeds, &mut node, &cancel).await;
        Ok(())
    }

    /// Makes the maps say what the lists said.
    fn first_pass(&self, shared: &Mutex<Balancer<KernelMaps>>, feeds: &mut Feeds, node: &mut NodeState) {
        let mut balancer = shared.lock();
        let started = Instant::now();
        balancer.write_all();
        node.write(self, feeds);
        tracing::info!(
            services = balancer.table.used().services,
            backends = balancer.table.used().backends,
            elapsed_ms = started.elapsed().as_millis(),
            "the maps of Services are written"
        );
        let outcome = balancer.take_outcome();
        self.act(feeds, &balancer, outcome);
        self.written.send_replace(true);
    }

    /// Writes changes as they come, until cancelled.
    async fn follow(
        &self,
        shared: &Mutex<Balancer<KernelMaps>>,
        feeds: &mut Feeds,
        node: &mut NodeState,
        cancel: &CancellationToken,
    ) {
        let config = &self.context.config.services;
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
                    () = cancel.cancelled() => return,
                },
            };
            match change {
                Some(change) => feeds.take(&mut shared.lock().desired, config, change),
                None => shared.lock().wake(),
            }
            // Whatever else is there already is written in the same pass.
            while let Some(change) = futures::FutureExt::now_or_never(feeds.next()) {
                feeds.take(&mut shared.lock().desired, config, change);
            }
            quiet = Instant::now();
            let mut balancer = shared.lock();
            balancer.write_dirty(arrived);
            let outcome = balancer.take_outcome();
            self.act(feeds, &balancer, outcome);
            drop(balancer);
            if std::mem::take(&mut feeds.addresses_changed) {
                node.write(self, feeds);
            }
        }
    }

    fn feeds(&self, sources: Sources) -> Feeds {
        let client = &self.context.client;
        let services = &self.context.config.services;
        let (dns, links) = (sources.dns.is_some(), sources.links.is_some());
        let defaults = Defaults {
            algorithm: match services.algorithm {
                Choice::Maglev => Algorithm::Maglev,
                Choice::Random => Algorithm::Random,
            },
            forwarding: match services.mode {
                Mode::Snat => Forwarding::Snat,
                Mode::Dsr => Forwarding::Dsr,
            },
        };
        let node_name = self.context.node_name.clone();
        let services = ServiceReader { defaults, dns, links };
        let slices = SliceReader { node_name: node_name.clone(), dns };
        Feeds {
            services: Feed::reading::<Service>("Service", client.clone(), services),
            slices: Feed::reading::<EndpointSlice>("EndpointSlice", client.clone(), slices),
            sources,
            node_name,
            told: Told::new(self.context.events.clone()),
            services_complete: false,
            slices_complete: false,
            pod_uids: BTreeMap::new(),
            nodes_known: false,
            pods_known: !self.context.config.pod_network,
            node_port_addresses: BTreeSet::new(),
            addresses_changed: false,
        }
    }

    /// Opens the maps. What the kernel refuses is told and tried again: what an earlier agent attached goes on serving. None if
    /// cancelled.
    async fn open(&self, part: &Part, cancel: &CancellationToken) -> anyhow::Result<Option<Opened>> {
        let config = DatapathConfig {
            cgroup_root: self.context.config.cgroup_root.clone(),
            bpffs: self.context.config.bpffs.clone(),
            capacity: self.capacity(),
            node_ports: self.context.config.services.node_ports.clone(),
        };
        let mut told = Told::new(self.context.events.clone());
        loop {
            let job = config.clone();
            let opened = tokio::select! {
                opened = tokio::task::spawn_blocking(move || open(&job)) => opened.context("open the maps")?,
                () = cancel.cancelled() => return Ok(None),
            };
            let error = match opened {
                Ok(opened) => return Ok(Some(opened)),
                Err(error) => error,
            };
            if error.downcast_ref::<LoadError>().is_none_or(|error| !may_be_granted(error)) {
                return Err(error);
            }
            let message = shortened(&format!("{error:#}"));
            part.not_ready(format!("the maps cannot be opened: {message}"));
            self.condition.set(false, "MapsRefused", message.as_str());
            self.health.set_refused();
            told.tell(&self.node(), "DataplaneProgramsRefused", vec![message]);
            tokio::select! {
                () = tokio::time::sleep(RELOAD) => {}
                () = cancel.cancelled() => return Ok(None),
            }
        }
    }

    fn capacity(&self) -> MapCapacity {
        let services = &self.context.config.services;
        capacity(services.conntrack_max, services.xdp, machine::resources(&self.context.config).memory)
    }

    fn node(&self) -> ObjectReference {
        about_node(&self.context.node_name)
    }

    /// Acts on what passes have come to.
    fn act<M: ServiceMaps>(&self, feeds: &mut Feeds, balancer: &Balancer<M>, outcome: Outcome) {
        self.health.set_checks(balancer.checks());
        self.health.set_written(true);
        for (name, problems) in outcome.problems {
            if problems.is_none() && feeds.told.is_empty() {
                continue;
            }
            let about = about(&name, &problems.uid, &feeds.pod_uids);
            feeds.told.tell(&about, "AddressInUse", problems.contested);
            feeds.told.tell(&about, "ServiceNotServed", problems.unwritten.into_iter().collect());
        }
        self.endings.add(outcome.ended);
    }
}

/// What the programs were told of this node.
struct NodeState {
    map: NodeMap,
    facts: Option<Facts>,
    /// As [`Seen::routes`](crate::observe::devices::Seen::routes).
    routes: u64,
}

impl NodeState {
    /// Tells them, if something is different.
    fn write(&mut self, work: &Work, feeds: &mut Feeds) {
        let context = &work.context;
        let nodes = feeds.sources.nodes.borrow().clone();
        let own = nodes.as_ref().and_then(|nodes| nodes.get(&context.node_name));
        if context.config.services.node_port_addresses != NodePortAddresses::All {
            work.health.set_addresses(feeds.node_port_addresses.clone());
        }
        work.health.set_eligible(own.is_none_or(|node| !node.leaving));
        let seen = feeds.sources.devices.borrow().clone();
        if std::mem::replace(&mut self.routes, seen.routes) != seen.routes {
            self.map.routes_changed();
        }
        let facts = node::facts(&context.config, &context.node_ips, nodes.as_deref(), &seen);
        if self.facts.as_ref() == Some(&facts) {
            return;
        }
        let (config, mut problems) = node_config::node_config(&facts);
        match self.map.set(&config) {
            Ok(()) => self.facts = Some(facts),
            Err(error) => problems
                .push(format!("the programs cannot be told of this node: {:#}", anyhow::Error::from(error))),
        }
        feeds.told.tell(&work.node(), "DataplaneConfiguration", problems);
    }
}

/// The object that something with addresses comes from: a Service of this uid, or the pod whose host port it is. Who shows an object
/// looks for its events by its uid.
fn about(name: &ServiceName, uid: &str, pods: &BTreeMap<(String, String), String>) -> ObjectReference {
    let (kind, namespace, object, uid) = match host_ports::pod(name) {
        Some((namespace, pod)) => {
            let uid = pods.get(&(namespace.to_owned(), pod.to_owned()));
            ("Pod", namespace, pod, uid.map_or("", String::as_str))
        }
        None => ("Service", &*name.namespace, &*name.name, uid),
    };
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(object.to_owned()),
        uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What was opened.
struct Opened {
    parts: Parts,
    table: Table,
    names: Names,
}

/// Opens the maps, and reads what an earlier agent wrote.
fn open(config: &DatapathConfig) -> anyhow::Result<Opened> {
    let mut parts = Parts::open(config)?;
    let observed = parts.services.observe().context("read the Service maps")?;
    let names = Names::open(config).context("open the names of Services")?;
    Ok(Opened { parts, table: Table::new(observed, LIMITS, 0), names })
}

/// How large maps are made on a machine with so much memory; each connection has two entries, and there are never more of them than
/// were asked for. XDP has a flow of each connection at hand as long as that is no more than a 512th of the memory, which is taken at
/// once; without XDP it needs none.
fn capacity(connections: u32, xdp: Early, memory: u64) -> MapCapacity {
    let default = MapCapacity::default();
    let share = u32::try_from(memory / 512 / WARM_FLOW).unwrap_or(u32::MAX);
    let warm = match xdp {
        Early::Off => 0,
        _ => connections.min(share).max(default.warm),
    };
    MapCapacity { conntrack: default.conntrack.min(connections.saturating_mul(2)), warm, ..default }
}

#[cfg(test)]
mod tests;
