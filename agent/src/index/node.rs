//! Nodes: where each is reached and which ranges its pods have.
//!
//! Must not know: routes, maps. One watch serves everybody who asks; it publishes a new map when something changed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;
use kube::Api;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::index::feed::{Change, Feed};

/// Label of nodes that load balancers leave out.
const KEPT_OUT: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Label with the node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Taint of a node that an autoscaler is about to take away.
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// What the network needs to know of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNet {
    /// Its internal addresses, in the order the node gives them.
    pub ips: Vec<IpAddr>,
    /// The ranges of its pods, at most one of each family.
    pub pod_ranges: Vec<IpNet>,
    /// Load balancers may lead to it: it is ready, and no label keeps it from that.
    pub ready: bool,
    /// Its zone, if it says one.
    pub zone: Option<String>,
    /// It is about to be taken away: load balancers should send it nothing new.
    pub leaving: bool,
}

/// All nodes by name.
pub type Nodes = BTreeMap<String, NodeNet>;

/// What is published: nothing until the first complete list.
pub type Published = Option<Arc<Nodes>>;

/// Watches all Nodes and publishes what the network needs of them.
pub async fn run(
    client: kube::Client,
    publish: watch::Sender<Published>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut feed = Feed::all("Node", Api::<api::Node>::all(client));
    let mut nodes = Nodes::new();
    let mut complete = false;
    loop {
        let change = tokio::select! {
            change = feed.next() => change,
            () = cancel.cancelled() => return Ok(()),
        };
        match change {
            Change::Set(node) => {
                drop(nodes.insert(node.metadata.name.clone().unwrap_or_default(), read(&node)))
            }
            Change::Gone((_, name)) => drop(nodes.remove(&name)),
            Change::Complete => complete = true,
        }
        if complete {
            publish.send_if_modified(|published| {
                let is_news = published.as_deref() != Some(&nodes);
                if is_news {
                    *published = Some(Arc::new(nodes.clone()));
                }
                is_news
            });
        }
    }
}

/// What the network needs of a Node; what makes no sense is left out with a warning.
pub fn read(node: &api::Node) -> NodeNet {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref()).into_iter().flatten();
    let ips = addresses
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| parse(name, "address", &address.address))
        .map(|ip: IpAddr| ip.to_canonical())
        .collect();
    let spec = node.spec.as_ref();
    let listed: Vec<&String> = match spec.and_then(|spec| spec.pod_cidrs.as_ref()) {
        Some(ranges) if !ranges.is_empty() => ranges.iter().collect(),
        _ => spec.and_then(|spec| spec.pod_cidr.as_ref()).into_iter().collect(),
    };
    let mut pod_ranges: Vec<IpNet> = Vec::new();
    for range in listed.into_iter().filter(|range| !range.is_empty()) {
        let Some(range): Option<IpNet> = parse(name, "podCIDR", range) else { continue };
        if pod_ranges.iter().all(|other| other.addr().is_ipv4() != range.addr().is_ipv4()) {
            pod_ranges.push(range.trunc());
        }
    }
    let labels = node.metadata.labels.as_ref();
    let zone = labels.and_then(|labels| labels.get(ZONE)).filter(|zone| !zone.is_empty()).cloned();
    let taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    let leaving =
        node.metadata.deletion_timestamp.is_some() || taints.into_iter().any(|taint| taint.key == LEAVING);
    NodeNet { ips, pod_ranges, ready: is_ready(node), zone, leaving }
}

fn is_ready(node: &api::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is_ready = |condition: &api::NodeCondition| condition.type_ == "Ready" && condition.status == "True";
    let is_kept_out = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(KEPT_OUT));
    conditions.into_iter().flatten().any(is_ready) && !is_kept_out
}

fn parse<T: std::str::FromStr>(node: &str, what: &str, text: &str) -> Option<T> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        tracing::warn!(node, what, text, "makes no sense; left out");
    }
    parsed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes() {
        let node: api::Node = serde_json::from_value(json!({
            "metadata": { "name": "a", "labels": { ZONE: "z1" } },
            "spec": { "taints": [{ "key": LEAVING, "effect": "NoSchedule" }], "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64", "nonsense", "10.9.0.0/24"] },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }], "addresses": [
                { "type": "Hostname", "address": "a" }, { "type": "InternalIP", "address": "192.168.0.1" },
                { "type": "InternalIP", "address": "fd77::1" }, { "type": "ExternalIP", "address": "203.0.113.1" }
            ] }
        }))
        .expect("a Node");
        let read = read(&node);
        let text: Vec<String> = read.pod_ranges.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.244.1.0/24", "fd00:1::/64"]);
        assert_eq!(read.ips.len(), 2);
        assert!(read.ready);
        assert_eq!((read.zone.as_deref(), read.leaving), (Some("z1"), true));
        assert_eq!(super::read(&api::Node::default()), NodeNet::default());
    }
}
