//! Services into kernel maps: watches feed the desired state, the plan of each changed Service is carried out at once.
//!
//! Nothing is written before both watches have told everything there is, so that a restart never takes an endpoint away;
//! the programs of an earlier agent serve until then. Must not know: how a plan is made (`agent-core`), how a map is
//! written (`agent-datapath`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use pagurus_agent_core::services::plan::{Full, MapOp, Table};
use pagurus_agent_core::services::{Desired, LocalDns, NodeAddress, ServiceName};
use pagurus_agent_datapath::{Config as DatapathConfig, Datapath, Failed, LIMITS, MapCapacity, ServiceMaps};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::actuate::delivery::Handles;
use crate::actuate::network::PodsHere;
use crate::config::NodeContext;
use crate::dns;
use crate::index::feed::{Change, Feed};
use crate::index::node::{Nodes, Published};
use crate::index::{endpoint_slices, services};

mod host_ports;
mod metrics;

use metrics::ServiceMetrics;

/// The NodePort range of API servers that are not told another one.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// So many Services are written at once when the agent starts.
const TOGETHER: usize = 1024;
/// A Service that could not be written is tried again after this time, or as soon as there is room again.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the Service maps right until cancelled.
pub async fn run(
    context: Arc<NodeContext>,
    nodes: watch::Receiver<Published>,
    pods: watch::Receiver<PodsHere>,
    dns: Option<(dns::Table, Vec<IpAddr>)>,
    hand_over: oneshot::Sender<Handles>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let part = context.readiness.register("services");
    let config = DatapathConfig {
        cgroup_root: context.config.cgroup_root.clone(),
        bpffs: context.config.bpffs.clone(),
        capacity: MapCapacity::default(),
        node_ports: NODE_PORTS,
    };
    let loaded = tokio::task::spawn_blocking(move || load(&config)).await.context("load the dataplane")?;
    let (datapath, table) = loaded?;
    // Whoever waited for them has ended: then everything ends.
    let _ = hand_over.send(Handles { endpoints: datapath.endpoints()?, announced: datapath.announced()? });
    let metrics = ServiceMetrics::register(&context.metrics);
    let shared = Arc::new(Mutex::new(Balancer::new(datapath, table, metrics)));
    let debug = shared.clone();
    context.debug.register("services", move || debug.lock().explain());
    metrics::register_counters(&context.metrics, {
        let shared = shared.clone();
        move || shared.lock().maps.counters().unwrap_or_default()
    });
    let mut feeds = Feeds {
        services: Feed::all("Service", Api::<Service>::all(context.client.clone())),
        slices: Feed::all("EndpointSlice", Api::<EndpointSlice>::all(context.client.clone())),
        nodes,
        pods,
        dns,
        node_name: context.node_name.clone(),
        services_complete: false,
        slices_complete: false,
        pods_known: false,
    };
    if let Some((_, ips)) = &feeds.dns {
        let service = ServiceName::new(dns::SERVICE.0, dns::SERVICE.1);
        shared.lock().desired.set_local_dns(Some(LocalDns { service, ips: ips.clone() }));
    }
    part.not_ready("waiting for the lists of Services and EndpointSlices");
    // Until everything is known.
    while !(feeds.services_complete && feeds.slices_complete && feeds.pods_known) {
        tokio::select! {
            change = feeds.next() => feeds.take(&shared, change),
            () = cancel.cancelled() => return Ok(()),
        }
    }
    {
        let mut balancer = shared.lock();
        let started = Instant::now();
        balancer.write_all();
        let attached = balancer.maps.attach().context("attach the socket programs")?;
        tracing::info!(
            created = attached.created,
            replaced = attached.replaced,
            services = balancer.table.used().services,
            backends = balancer.table.used().backends,
            elapsed_ms = started.elapsed().as_millis(),
            "serving Services"
        );
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
            Some(change) => feeds.take(&shared, change),
            None => shared.lock().wake(),
        }
        // Whatever else is there already is written in the same pass.
        while let Some(change) = futures::FutureExt::now_or_never(feeds.next()) {
            feeds.take(&shared, change);
        }
        quiet = Instant::now();
        shared.lock().write_dirty(arrived);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Loads programs and maps, and reads what an earlier agent wrote.
fn load(config: &DatapathConfig) -> anyhow::Result<(Datapath, Table)> {
    let mut datapath = Datapath::load(config)?;
    let observed = datapath.services().observe().context("read the Service maps")?;
    Ok((datapath, Table::new(observed, LIMITS, 0)))
}

/// What the balancer listens to.
struct Feeds {
    services: Feed<Service>,
    slices: Feed<EndpointSlice>,
    nodes: watch::Receiver<Published>,
    pods: watch::Receiver<PodsHere>,
    /// What this node's DNS is told, and where it is reached.
    dns: Option<(dns::Table, Vec<IpAddr>)>,
    node_name: String,
    services_complete: bool,
    slices_complete: bool,
    pods_known: bool,
}

enum News {
    Service(Box<Change<Service>>),
    Slice(Box<Change<EndpointSlice>>),
    Nodes,
    Pods,
}

impl Feeds {
    async fn next(&mut self) -> News {
        tokio::select! {
            change = self.services.next() => News::Service(Box::new(change)),
            change = self.slices.next() => News::Slice(Box::new(change)),
            // The sender lives as long as the watch of Nodes; after that nothing changes any more.
            Ok(()) = self.nodes.changed() => News::Nodes,
            Ok(()) = self.pods.changed() => News::Pods,
        }
    }

    /// When this change came, which `next` has just answered.
    fn arrived(&self, news: &News) -> Instant {
        match news {
            News::Service(_) => self.services.arrived(),
            News::Slice(_) => self.slices.arrived(),
            News::Nodes | News::Pods => Instant::now(),
        }
    }

    fn take<M: ServiceMaps>(&mut self, balancer: &Mutex<Balancer<M>>, news: News) {
        if let Some((names, _)) = &self.dns {
            tell(names, &news);
        }
        let mut balancer = balancer.lock();
        let desired = &mut balancer.desired;
        match news {
            News::Service(change) => match *change {
                Change::Set(object) => set_service(desired, &object),
                Change::Gone((namespace, name)) => {
                    desired.remove_service(&ServiceName::new(&namespace, &name));
                }
                Change::Complete => self.services_complete = true,
            },
            News::Slice(change) => match *change {
                Change::Set(object) => set_slice(desired, &object, &self.node_name),
                Change::Gone((namespace, name)) => desired.remove_slice(&namespace, &name),
                Change::Complete => self.slices_complete = true,
            },
            News::Nodes => {
                let nodes = self.nodes.borrow_and_update().clone();
                if let Some(nodes) = nodes {
                    desired.set_addresses(node_ips(&nodes, &self.node_name));
                }
            }
            News::Pods => {
                let pods = self.pods.borrow_and_update().clone();
                if let Some(pods) = pods {
                    host_ports::set(desired, &pods);
                    self.pods_known = true;
                }
            }
        }
        if let (Some((names, _)), true, true) = (&self.dns, self.services_complete, self.slices_complete) {
            names.set_complete();
        }
    }
}

/// Tells DNS what the balancer is about to be told.
fn tell(names: &dns::Table, news: &News) {
    match news {
        News::Service(change) => match &**change {
            Change::Set(object) => names.set_service(object),
            Change::Gone((namespace, name)) => names.remove_service(namespace, name),
            Change::Complete => {}
        },
        News::Slice(change) => match &**change {
            Change::Set(object) => names.set_slice(object),
            Change::Gone((namespace, name)) => names.remove_slice(namespace, name),
            Change::Complete => {}
        },
        News::Nodes | News::Pods => {}
    }
}

fn set_service(desired: &mut Desired, object: &Service) {
    match services::service(object) {
        Some(service) => desired.set_service(service),
        None => {
            let (namespace, name) = (object.metadata.namespace.as_deref(), object.metadata.name.as_deref());
            desired
                .remove_service(&ServiceName::new(namespace.unwrap_or_default(), name.unwrap_or_default()));
        }
    }
}

fn set_slice(desired: &mut Desired, object: &EndpointSlice, node_name: &str) {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    match endpoint_slices::slice(object, node_name) {
        Some(slice) => desired.set_slice(name, slice),
        None => desired.remove_slice(object.metadata.namespace.as_deref().unwrap_or_default(), name),
    }
}

/// The addresses of all nodes; NodePorts are reached at each.
fn node_ips(nodes: &Nodes, own: &str) -> BTreeMap<IpAddr, NodeAddress> {
    let of = |name: &String| NodeAddress { local: name == own, node_ports: true };
    nodes.iter().flat_map(|(name, node)| node.ips.iter().map(move |ip| (*ip, of(name)))).collect()
}

/// Why a Service is not in the maps as it should be.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    Map(#[from] Failed),
}

/// Desired state, mirror and maps, and what is yet to be done.
struct Balancer<M> {
    desired: Desired,
    table: Table,
    maps: M,
    failed: BTreeMap<ServiceName, String>,
    retry_at: Option<Instant>,
    /// Where the clock of the table began.
    started: Instant,
    metrics: ServiceMetrics,
}

impl<M: ServiceMaps> Balancer<M> {
    fn new(maps: M, table: Table, metrics: ServiceMetrics) -> Self {
        Self {
            desired: Desired::default(),
            table,
            maps,
            failed: BTreeMap::new(),
            retry_at: None,
            started: Instant::now(),
            metrics,
        }
    }

    /// The first pass: every Service is planned against what is in the maps, then what is left over goes.
    fn write_all(&mut self) {
        self.desired.take_dirty();
        let names: Vec<ServiceName> = self.desired.service_names().collect();
        for names in names.chunks(TOGETHER) {
            self.write_together(names);
        }
        let ops = self.table.sweep();
        self.carry_out_logged(&ops, "remove what no Service owns");
        // There may be room now.
        self.retry_failed();
        for name in self.desired.take_dirty() {
            self.write(&name);
        }
        self.write_nodes();
        self.metrics.observe_table(&self.table, self.failed.len());
    }

    /// Writes many Services at once; each for itself if that does not succeed.
    fn write_together(&mut self, names: &[ServiceName]) {
        let mut ops = Vec::new();
        let mut full = Vec::new();
        for name in names {
            let compiled = self.desired.compile(name);
            match self.table.plan(name, &compiled, self.desired.claims()) {
                Ok(more) => ops.extend(more),
                Err(_) => full.push(name),
            }
        }
        if self.carry_out(&ops).is_err() {
            full = names.iter().collect();
        }
        for name in full {
            self.write(name);
        }
    }

    /// Writes every Service that changed; `arrived` is when the first of the changes came.
    fn write_dirty(&mut self, arrived: Instant) {
        let dirty = self.desired.take_dirty();
        for name in &dirty {
            self.write(name);
            self.metrics.event_to_maps.observe(arrived.elapsed().as_secs_f64());
        }
        self.write_nodes();
        if !dirty.is_empty() {
            self.metrics.observe_table(&self.table, self.failed.len());
        }
    }

    /// Writes one Service.
    fn write(&mut self, name: &ServiceName) {
        let compiled = self.desired.compile(name);
        let planned = self.table.plan(name, &compiled, self.desired.claims()).map_err(Failure::from);
        match planned.and_then(|ops| Ok(self.carry_out(&ops)?)) {
            Ok(()) => {
                if self.failed.remove(name).is_some() {
                    tracing::info!(service = %name, "written after all");
                }
            }
            Err(error) => {
                let text = error.to_string();
                if self.failed.get(name) != Some(&text) {
                    tracing::error!(service = %name, error = &error as &dyn std::error::Error, "not written; trying again");
                }
                self.metrics.failures.inc();
                self.failed.insert(name.clone(), text);
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }

    fn write_nodes(&mut self) {
        let ops = self.table.plan_nodes(self.desired.addresses());
        self.carry_out_logged(&ops, "write the addresses of nodes");
    }

    fn carry_out_logged(&mut self, ops: &[MapOp], what: &str) {
        if let Err(error) = self.carry_out(ops) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "{what}; trying again at the next change"
            );
            self.metrics.failures.inc();
        }
    }

    /// Carries out operations in order; the mirror follows each, so that it is true also after a failure.
    fn carry_out(&mut self, ops: &[MapOp]) -> Result<(), Failed> {
        let result = self.maps.apply(ops);
        let done = result.as_ref().map_or_else(|failed| failed.done, |()| ops.len());
        let now = self.now();
        self.table.commit(ops, done, now);
        self.metrics.operations.inc_by(u64::try_from(done).unwrap_or(u64::MAX));
        result
    }

    /// The table's clock: milliseconds since this began.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Empties what no program can lead to any more; there may be room then for what did not fit.
    fn release(&mut self) {
        let ops = self.table.release(self.now());
        if !ops.is_empty() {
            self.carry_out_logged(&ops, "empty what is no longer used");
            self.retry_failed();
        }
    }

    /// When to look again: something is to be tried once more, or may be emptied.
    fn wake_at(&self) -> Option<Instant> {
        let release = self.table.release_at().map(|at| self.started + Duration::from_millis(at));
        let retry = self.retry_at.filter(|_| !self.failed.is_empty());
        [release, retry].into_iter().flatten().min()
    }

    /// What is due without a change.
    fn wake(&mut self) {
        self.release();
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_failed();
        }
    }

    fn retry_failed(&mut self) {
        self.retry_at = None;
        for name in self.failed.keys() {
            self.desired.mark_dirty(name.clone());
        }
    }

    /// For `/debug/state`.
    fn explain(&self) -> serde_json::Value {
        let used = self.table.used();
        let contested: Vec<String> = self
            .desired
            .claims()
            .contested()
            .map(|(frontend, owner, others)| {
                let others: Vec<String> = others.iter().map(ToString::to_string).collect();
                format!("{frontend}: served for {owner}, also claimed by {}", others.join(", "))
            })
            .collect();
        json!({
            "desired": { "services": self.desired.service_names().count(), "slices": self.desired.slice_names().count() },
            "observed": { "frontends": used.services, "slots": used.slots, "backends": used.backends },
            "pending": self.failed.iter().map(|(name, error)| format!("{name}: {error}")).collect::<Vec<_>>(),
            "contested": contested,
        })
    }
}

#[cfg(test)]
mod tests;
