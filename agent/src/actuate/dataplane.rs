//! The dataplane as one task: the watch of Nodes, the Service maps, the pod network.
//!
//! Must not know: what each of them does; it starts them, and ends them all when one fails.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::actuate::devices::Attacher;
use crate::actuate::services::Sources;
use crate::actuate::{delivery, devices, network, services};
use crate::config::NodeContext;
use crate::dns;
use crate::index::node;
use crate::index::service_links::ServiceLinks;
use crate::lb;

/// Runs the dataplane until cancelled. When it ends, for whatever reason, programs, maps, routes and pods' devices stay
/// as they are; the next start goes on from there. `dns` is what this node's DNS is told, and its addresses, `links` what its pods are
/// told of Services.
pub async fn run(
    context: Arc<NodeContext>,
    dns: Option<(dns::Table, Vec<IpAddr>)>,
    links: Option<ServiceLinks>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let cancel = cancel.child_token();
    // Whatever way this ends, the parts end too.
    let _guard = cancel.clone().drop_guard();
    let (publish, nodes) = watch::channel(None);
    let mut parts = JoinSet::new();
    let watch = node::run(context.client.clone(), publish, cancel.clone());
    parts.spawn(watch.instrument(tracing::info_span!("nodes")));
    let attacher = Attacher::default();
    let (publish, seen) = watch::channel(Arc::default());
    let watch = devices::run(context.clone(), attacher.clone(), publish, cancel.clone());
    parts.spawn(watch.instrument(tracing::info_span!("devices")));
    let (tell_pods, pods) = watch::channel(None);
    let (hand_over, handles) = oneshot::channel();
    let (hand_announced, announced) = oneshot::channel();
    let sources = Sources { nodes: nodes.clone(), devices: seen, pods: pods.clone(), dns, links };
    let balancing = services::run(context.clone(), sources, attacher.clone(), hand_over, cancel.clone());
    parts.spawn(balancing.instrument(tracing::info_span!("services")));
    let delivery = delivery::run(handles, hand_announced, pods, cancel.clone());
    parts.spawn(delivery.instrument(tracing::info_span!("delivery")));
    let balancers = lb::run(context.clone(), nodes.clone(), announced, cancel.clone());
    parts.spawn(balancers.instrument(tracing::info_span!("load balancers")));
    if context.config.pod_network {
        let network = network::run(context, nodes, tell_pods, attacher, cancel.clone());
        parts.spawn(network.instrument(tracing::info_span!("network")));
    }
    let mut outcome = Ok(());
    while let Some(ended) = parts.join_next().await {
        let ended =
            ended.unwrap_or_else(|error| Err(anyhow::anyhow!("a part of the dataplane panicked: {error}")));
        cancel.cancel();
        outcome = outcome.and(ended);
    }
    outcome
}
