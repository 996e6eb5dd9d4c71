//! The pod network of this node: the CNI plugin's socket, the plugin's configuration file, routes to the pods of other
//! nodes.
//!
//! Level-triggered: every pass compares what should be with what is. Must not know: how a pod is wired (`pagurus-cni`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::ObjectReference;
use pagurus_cni::commands::{Connected, Settings};
use pagurus_cni::netlink::{ROUTE_PROTOCOL, Route, Socket};
use pagurus_cni::overlay::{self, Options};
use pagurus_cni::{Network, sysctl};
use prometheus_client::metrics::gauge::Gauge;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::actuate::devices::Attacher;
use crate::config::NodeContext;
use crate::index::node::{Nodes, Published};
use crate::process::readiness::Part;

mod conflist;
mod server;

/// The pods connected on this node; nothing until they are known.
pub type PodsHere = Option<Arc<Vec<Connected>>>;

pub use conflist::{FILE as CONFLIST, PLUGIN};

/// Where attachments are kept.
pub const STATE: &str = "/var/lib/pagurus/attachments";
/// How often everything is compared though nothing is known to have changed, and how soon after a failure.
const LOOK: Duration = Duration::from_secs(60);
const LOOK_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Keeps the pod network right until cancelled.
pub async fn run(
    context: Arc<NodeContext>,
    nodes: watch::Receiver<Published>,
    pods: watch::Sender<PodsHere>,
    attacher: Attacher,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let part = context.readiness.register("network");
    let network = tokio::task::spawn_blocking(|| open(attacher)).await.context("open the pod network")??;
    let attachments = Gauge::<i64>::default();
    context.metrics.register("network", |registry| {
        registry.register("attachments", "Containers connected to the pod network", attachments.clone());
    });
    let explained = network.clone();
    context.debug.register("network", move || explain(&explained));
    let listener = server::bind(&context.config.cni_socket)?;
    let changed = Arc::new(Notify::new());
    let server = server::run(listener, network.clone(), changed.clone(), cancel.clone());
    let passes = Passes { context, network, nodes, pods, changed, part, attachments, told: BTreeMap::new() };
    tokio::try_join!(server, passes.run(cancel)).map(|((), ())| ())
}

fn open(attacher: Attacher) -> anyhow::Result<Arc<Network>> {
    sysctl::route_packets().context("let this node route packets")?;
    let mut network = Network::open(STATE.as_ref()).context("open the attachments of pods")?;
    // Before a pod sends its first packet its device has its programs.
    network.on_connect(Box::new(move |ifindex, name| Ok(attacher.attach_pod(ifindex, name)?)));
    for file in network.damaged() {
        tracing::error!(file = %file.display(), "this attachment could not be read and was set aside");
    }
    Ok(Arc::new(network))
}

fn explain(network: &Network) -> serde_json::Value {
    let settings = network.settings();
    let attachments: BTreeMap<String, Vec<IpAddr>> =
        network.attachments().into_iter().map(|attachment| (attachment.pod, attachment.ips)).collect();
    json!({
        "desired": { "ranges": settings.ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), "mtu": settings.mtu },
        "observed": { "attachments": attachments },
    })
}

/// The repeated comparison.
struct Passes {
    context: Arc<NodeContext>,
    network: Arc<Network>,
    nodes: watch::Receiver<Published>,
    /// Where the pods connected here are told.
    pods: watch::Sender<PodsHere>,
    /// Signalled when a pod was connected or disconnected.
    changed: Arc<Notify>,
    part: Part,
    attachments: Gauge<i64>,
    /// Problems that have been told, so that each is told once.
    told: BTreeMap<String, ()>,
}

impl Passes {
    async fn run(mut self, cancel: CancellationToken) -> anyhow::Result<()> {
        // Those of an earlier agent are known before anything else.
        let mut problems: Vec<String> = self.tell_pods().await.err().into_iter().collect();
        loop {
            problems.extend(self.pass().await);
            problems.extend(self.tell_pods().await.err());
            let wait = if problems.is_empty() { LOOK } else { LOOK_AFTER_FAILURE };
            self.tell(std::mem::take(&mut problems));
            let again = tokio::time::Instant::now() + wait;
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(again) => break,
                    Ok(()) = self.nodes.changed() => break,
                    () = self.changed.notified() => {
                        if let Err(problem) = self.tell_pods().await {
                            problems.push(problem);
                            break;
                        }
                    }
                    () = cancel.cancelled() => return Ok(()),
                }
            }
        }
    }

    /// Tells which pods are connected, if that has changed.
    async fn tell_pods(&self) -> Result<(), String> {
        let network = self.network.clone();
        let looked = tokio::task::spawn_blocking(move || network.connected()).await;
        let connected = looked.map_err(|error| error.to_string())?.map_err(|error| text(&error))?;
        self.attachments.set(i64::try_from(connected.len()).unwrap_or(i64::MAX));
        self.pods.send_if_modified(|told| {
            let is_news = told.as_deref() != Some(&connected);
            if is_news {
                *told = Some(Arc::new(connected));
            }
            is_news
        });
        Ok(())
    }

    /// One comparison; what could not be put right.
    async fn pass(&mut self) -> Vec<String> {
        let Some(nodes) = self.nodes.borrow_and_update().clone() else {
            self.part.not_ready("waiting for the list of Nodes");
            return Vec::new();
        };
        let network = self.network.clone();
        let (own, node_ips) = (self.context.node_name.clone(), self.context.node_ips.clone());
        let options = self.context.config.routing;
        let job = tokio::task::spawn_blocking(move || compare(&network, &nodes, &options, &own, &node_ips));
        let Compared { mut problems, clash } = job.await.unwrap_or_else(|error| Compared {
            problems: vec![format!("a pass over the pod network panicked: {error}")],
            clash: None,
        });
        if self.network.settings().ranges.is_empty() {
            self.part.not_ready("the node has no podCIDRs yet");
            return problems;
        }
        if let Some(clash) = clash {
            self.part.not_ready(clash.as_str());
            problems.push(clash);
            return problems;
        }
        // Only now: the runtime takes the file as the sign that pods can be connected.
        match conflist::write(&self.context.config.cni_conf_dir, &self.context.config.cni_socket) {
            Ok(()) => self.part.ready(),
            Err(error) => {
                self.part.not_ready(format!("{error:#}"));
                problems.push(format!("{error:#}"));
            }
        }
        problems
    }

    fn tell(&mut self, problems: Vec<String>) {
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(self.context.node_name.clone()),
            uid: Some(self.context.node_name.clone()),
            ..ObjectReference::default()
        };
        let now: BTreeMap<String, ()> = problems.into_iter().map(|problem| (problem, ())).collect();
        for problem in now.keys().filter(|problem| !self.told.contains_key(*problem)) {
            tracing::error!(problem, "the pod network is not as it should be");
            self.context.events.warning(&about, "PodNetwork", problem.as_str());
        }
        self.told = now;
    }
}

/// What a comparison found.
struct Compared {
    /// What could not be put right.
    problems: Vec<String>,
    /// Why no pod may be connected at all.
    clash: Option<String>,
}

/// Compares everything with what is there and puts it right as far as possible.
fn compare(network: &Network, nodes: &Nodes, options: &Options, own: &str, node_ips: &[IpAddr]) -> Compared {
    let mut netlink = match Socket::open() {
        Ok(netlink) => netlink,
        Err(error) => return Compared { problems: vec![text(&error)], clash: None },
    };
    let mut problems = Vec::new();
    let (mut this, others) = reachable(nodes, own, &mut problems);
    this.ips = node_ips.to_vec();
    let mut clash = None;
    let mut mtu = network.settings().mtu;
    let ways = overlay::reconcile(&mut netlink, options, &this, &others);
    match ways {
        Ok(outcome) => {
            problems.extend(outcome.problems);
            mtu = outcome.mtu;
            let device = outcome.observed.device.map(|link| link.index);
            let ranges = nodes.get(own).map(|node| node.pod_ranges.as_slice()).unwrap_or_default();
            clash = taken_range(ranges, &outcome.observed.routes, device);
        }
        Err(error) => problems.push(text(&error)),
    }
    let ranges = nodes.get(own).map(|node| node.pod_ranges.clone()).unwrap_or_default();
    network.set(Settings { ranges, node_ips: node_ips.to_vec(), mtu });
    problems.extend(network.reconcile().iter().map(text));
    Compared { problems, clash }
}

/// Why this node's own ranges are not free: a route of somebody else into them, such as the bridge of another pod network
/// that was here before. Routes to a larger network are no clash: those to pods are more specific.
/// The overlay's own addresses are out of these ranges.
fn taken_range(ranges: &[IpNet], present: &[Route], overlay: Option<u32>) -> Option<String> {
    let is_ours =
        |route: &&Route| route.protocol == ROUTE_PROTOCOL || (overlay.is_some() && route.device == overlay);
    let others = present.iter().filter(|route| !is_ours(route));
    let mut clashes = others.filter_map(|route| {
        let range = ranges.iter().find(|range| range.contains(&route.destination))?;
        Some(format!(
            "podCIDR {range} of this node clashes with a route of this machine to {}; remove what made it (another pod \
             network?) or choose another --cluster-cidr",
            route.destination
        ))
    });
    clashes.next()
}

/// This node and the others, each with the ranges its pods can be reached in. Ranges that clash are left out and told.
fn reachable(nodes: &Nodes, own: &str, problems: &mut Vec<String>) -> (overlay::Node, Vec<overlay::Node>) {
    let mut taken: Vec<(IpNet, &str)> = Vec::new();
    let mut this = overlay::Node { name: own.to_owned(), ..overlay::Node::default() };
    let mut others = Vec::with_capacity(nodes.len());
    // This node's ranges first: nothing may take its own pods away.
    let ordered = nodes.get_key_value(own).into_iter().chain(nodes.iter().filter(|(name, _)| *name != own));
    for (name, node) in ordered {
        let mut ranges = Vec::with_capacity(node.pod_ranges.len());
        for range in &node.pod_ranges {
            let overlaps = |other: &IpNet| other.contains(range) || range.contains(other);
            if let Some((other, owner)) = taken.iter().find(|(other, _)| overlaps(other)) {
                problems.push(format!(
                    "podCIDR {range} of node {name} clashes with {other} of node {owner}; its pods cannot be reached"
                ));
                continue;
            }
            if let Some((clashing, ip)) = nodes
                .iter()
                .find_map(|(name, node)| Some((name, node.ips.iter().find(|ip| range.contains(*ip))?)))
            {
                problems.push(format!(
                    "podCIDR {range} of node {name} holds the address {ip} of node {clashing}; choose another --cluster-cidr"
                ));
                continue;
            }
            taken.push((*range, name));
            ranges.push(*range);
        }
        let node = overlay::Node { name: name.clone(), ips: node.ips.clone(), ranges };
        if name == own { this = node } else { others.push(node) }
    }
    (this, others)
}

fn text(error: &(impl std::error::Error + ?Sized)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// For the CNI configuration and the plugins.
fn write_whole(path: &std::path::Path, content: &[u8]) -> anyhow::Result<()> {
    // The name must not end in what runtimes look for.
    let new = PathBuf::from(format!("{}.new", path.display()));
    std::fs::write(&new, content).with_context(|| format!("write {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("rename {} to {}", new.display(), path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::node::NodeNet;

    fn node(ips: &[&str], ranges: &[&str]) -> NodeNet {
        NodeNet {
            ips: ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
            pod_ranges: ranges.iter().map(|range| range.parse().expect("a range")).collect(),
            ready: true,
            ..NodeNet::default()
        }
    }

    fn check(nodes: &[(&str, NodeNet)], reached: &[&str], problem: Option<&str>) {
        let nodes: Nodes = nodes.iter().map(|(name, node)| ((*name).to_owned(), node.clone())).collect();
        let mut problems = Vec::new();
        let (this, others) = reachable(&nodes, "a", &mut problems);
        assert_eq!(this.name, "a");
        let ranges =
            others.iter().flat_map(|node| node.ranges.iter().map(|range| format!("{range} {}", node.name)));
        assert_eq!(ranges.collect::<Vec<_>>(), reached);
        assert_eq!(problems.first().map(String::as_str), problem);
    }

    #[test]
    fn routes_of_others_into_the_own_range() {
        let check = |destination: &str, protocol: u8, clashes: bool| {
            let ranges = ["10.244.1.0/24", "fd00:1::/64"].map(|range| range.parse().expect("a range"));
            let route = Route {
                destination: destination.parse().expect("a range"),
                gateway: None,
                device: None,
                source: None,
                protocol,
                onlink: false,
            };
            assert_eq!(taken_range(&ranges, &[route], None).is_some(), clashes, "{destination}");
        };
        let kernel = 2;
        check("10.244.1.0/24", kernel, true);
        check("10.244.1.128/25", kernel, true);
        check("fd00:1::/64", kernel, true);
        check("10.244.1.7/32", ROUTE_PROTOCOL, false);
        check("10.244.0.0/16", kernel, false);
        check("10.244.2.0/24", kernel, false);
        check("0.0.0.0/0", kernel, false);
        check("fe80::/64", kernel, false);
        let overlay = Route {
            destination: "fd00:1::/128".parse().expect("a range"),
            gateway: None,
            device: Some(9),
            source: None,
            protocol: kernel,
            onlink: false,
        };
        let range = ["fd00:1::/64".parse().expect("a range")];
        assert_eq!(taken_range(&range, std::slice::from_ref(&overlay), Some(9)), None);
        assert!(taken_range(&range, &[overlay], Some(8)).is_some());
    }

    #[test]
    fn ranges_of_the_other_nodes() {
        let a = || ("a", node(&["192.168.0.1", "fd77::1"], &["10.244.0.0/24", "fd00:0::/64"]));
        check(&[a()], &[], None);
        check(
            &[
                a(),
                ("b", node(&["192.168.0.2", "fd77::2"], &["10.244.1.0/24", "fd00:1::/64"])),
                ("c", node(&[], &[])),
            ],
            &["10.244.1.0/24 b", "fd00:1::/64 b"],
            None,
        );
        check(
            &[a(), ("b", node(&["192.168.0.2"], &["10.244.0.0/16"]))],
            &[],
            Some(
                "podCIDR 10.244.0.0/16 of node b clashes with 10.244.0.0/24 of node a; its pods cannot be reached",
            ),
        );
        check(
            &[a(), ("b", node(&["192.168.0.2"], &["192.168.0.0/24"]))],
            &[],
            Some(
                "podCIDR 192.168.0.0/24 of node b holds the address 192.168.0.1 of node a; choose another --cluster-cidr",
            ),
        );
    }
}
