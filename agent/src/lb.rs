//! Services of type LoadBalancer on networks without a load balancer: one agent at a time gives them addresses out of pools
//! ([`ipam`]), and every agent announces those that fall to its node ([`announcement`]).
//!
//! Level-triggered: every pass compares what should be with what is. Must not know: how packets to an address are balanced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use pagurus_agent_core::lb::Pool;
use pagurus_agent_datapath::handles::Announced;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::NodeContext;
use crate::index::feed::{Change, Feed};
use crate::index::node::Published;

mod announcement;
mod election;
mod frames;
mod ipam;
mod pools;
mod services;

/// Namespace and name of the ConfigMap with the pools, and of the Lease.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "pagurus-load-balancer";
/// How often everything is looked at though nothing is known to have changed.
const LOOK: Duration = Duration::from_secs(10);
/// Changes that come together are handled together.
const TOGETHER: Duration = Duration::from_millis(20);

/// What is known of the API's objects.
#[derive(Default)]
struct Known {
    services: BTreeMap<(String, String), Arc<Service>>,
    /// Services that are of this type no longer.
    gone: BTreeSet<(String, String)>,
    pools: Vec<Pool>,
    /// What of the pools makes no sense.
    damaged: Vec<String>,
    /// Ready endpoints' nodes of Services with `externalTrafficPolicy: Local`, by Service, by slice.
    slices: BTreeMap<(String, String), services::LocalNodes>,
    services_complete: bool,
    pools_complete: bool,
    slices_complete: bool,
}

impl Known {
    fn take_service(&mut self, change: Change<Service>) {
        match change {
            Change::Set(mut service) => {
                let name = services::name(&service.metadata);
                // Often larger than all the rest, and nobody here looks at it.
                service.metadata.managed_fields = None;
                self.gone.remove(&name);
                self.services.insert(name, Arc::new(service));
            }
            Change::Gone(name) => {
                if self.services.remove(&name).is_some() {
                    self.gone.insert(name);
                }
            }
            Change::Complete => self.services_complete = true,
        }
    }

    fn take_pools(&mut self, change: Change<ConfigMap>, of_flag: &[String]) {
        let map = match change {
            Change::Set(map) => Some(map),
            Change::Gone(_) => None,
            Change::Complete => {
                // Without the object the pools of the flag are all there are.
                if !self.pools_complete && self.pools.is_empty() {
                    (self.pools, self.damaged) = pools::read(None, of_flag);
                }
                self.pools_complete = true;
                return;
            }
        };
        (self.pools, self.damaged) = pools::read(map.as_ref(), of_flag);
        for problem in &self.damaged {
            tracing::error!(problem, "pools of load balancer addresses");
        }
    }

    fn take_slice(&mut self, change: Change<EndpointSlice>) {
        match change {
            Change::Set(slice) => {
                self.slices.insert(services::name(&slice.metadata), services::LocalNodes::read(&slice));
            }
            Change::Gone(name) => drop(self.slices.remove(&name)),
            Change::Complete => self.slices_complete = true,
        }
    }

    /// Names of Services for which it matters where their endpoints are.
    fn local(&self) -> BTreeSet<String> {
        let local = self.services.iter().filter(|(_, service)| services::is_local(service));
        local.map(|((_, name), _)| name.clone()).collect()
    }
}

/// Gives and announces addresses until cancelled.
pub async fn run(
    context: Arc<NodeContext>,
    nodes: watch::Receiver<Published>,
    announced: oneshot::Receiver<Announced>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    // Until the maps are there, there is nothing to announce with.
    let announced = tokio::select! {
        announced = announced => match announced {
            Ok(announced) => announced,
            // The balancer has ended, and with it everything else.
            Err(_) => return Ok(()),
        },
        () = cancel.cancelled() => return Ok(()),
    };
    let announcer = announcement::Announcer::new(announced)?;
    let ipam = ipam::Ipam::new(&context);
    let result = Loop::new(context, nodes, announcer, ipam).run(&cancel).await;
    tracing::debug!("load balancer addresses stay as they are");
    result
}

struct Loop {
    context: Arc<NodeContext>,
    nodes: watch::Receiver<Published>,
    services: Feed<Service>,
    pools: Feed<ConfigMap>,
    slices: Option<(BTreeSet<String>, Feed<EndpointSlice>)>,
    known: Known,
    announcer: announcement::Announcer,
    ipam: ipam::Ipam,
}

impl Loop {
    fn new(
        context: Arc<NodeContext>,
        nodes: watch::Receiver<Published>,
        announcer: announcement::Announcer,
        ipam: ipam::Ipam,
    ) -> Self {
        let client = &context.client;
        let services =
            Feed::with_fields("Service", Api::all(client.clone()), "spec.type=LoadBalancer".to_owned());
        let pools = Feed::with_fields(
            "ConfigMap",
            Api::namespaced(client.clone(), NAMESPACE),
            format!("metadata.name={NAME}"),
        );
        Self { context, nodes, services, pools, slices: None, known: Known::default(), announcer, ipam }
    }

    async fn run(mut self, cancel: &CancellationToken) -> anyhow::Result<()> {
        let mut look = tokio::time::Instant::now();
        loop {
            tokio::select! {
                change = self.services.next() => self.known.take_service(change),
                change = self.pools.next() => {
                    self.known.take_pools(change, &self.context.config.load_balancer.pools);
                }
                change = next_slice(&mut self.slices) => self.known.take_slice(change),
                Ok(()) = self.nodes.changed() => drop(self.nodes.borrow_and_update()),
                () = tokio::time::sleep_until(look) => {
                    self.pass(&mut look).await;
                    continue;
                }
                () = cancel.cancelled() => {
                    self.ipam.resign().await;
                    return Ok(());
                }
            }
            // Something has changed.
            look = look.min(tokio::time::Instant::now() + TOGETHER);
        }
    }

    async fn pass(&mut self, look: &mut tokio::time::Instant) {
        self.follow_local_services();
        let mut wait = LOOK;
        if self.known.services_complete && self.known.pools_complete {
            wait = wait.min(self.ipam.pass(&self.context, &mut self.known).await);
            if let Some(nodes) = self.nodes.borrow().clone() {
                wait = wait.min(self.announcer.pass(&self.context, &self.known, &nodes));
            }
        }
        *look = tokio::time::Instant::now() + wait;
    }

    /// Watches the endpoints of exactly the Services for which it matters where they are.
    fn follow_local_services(&mut self) {
        let wanted = self.known.local();
        if self.slices.as_ref().is_some_and(|(followed, _)| *followed == wanted)
            || (wanted.is_empty() && self.slices.is_none())
        {
            return;
        }
        self.known.slices_complete = false;
        self.known.slices.clear();
        self.slices = (!wanted.is_empty()).then(|| {
            let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
            let labels = format!("kubernetes.io/service-name in ({})", names.join(","));
            let api = Api::all(self.context.client.clone());
            (wanted, Feed::with_labels("EndpointSlice", api, labels))
        });
    }
}

async fn next_slice(slices: &mut Option<(BTreeSet<String>, Feed<EndpointSlice>)>) -> Change<EndpointSlice> {
    match slices {
        Some((_, feed)) => feed.next().await,
        None => std::future::pending().await,
    }
}
