//! Node IPAM: gives every node its ranges of pod addresses out of the cluster's.
//!
//! What is taken is read from the nodes themselves, so nothing is lost in a restart. Only one task assigns, and a
//! range whose assignment has an unknown outcome stays reserved until the node shows what became of it.

mod pool;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use futures::future::BoxFuture;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::Mutex;

use crate::context::Context;
use crate::runtime::object::{deleting, name, uid};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::recorder::{Note, Recorder};
use crate::runtime::store::{Change, Store};
use crate::runtime::worker::{Outcome, drive};
use pool::Pool;

const IDENTITY: &str = "node-controller";

struct Controller {
    nodes: Arc<Store<Node>>,
    api: Api<Node>,
    recorder: Recorder,
    state: Mutex<State>,
}

struct State {
    pools: Vec<Pool>,
    /// Ranges sent to a node (by uid) without a clear answer.
    unsettled: BTreeMap<String, Vec<IpNet>>,
}

/// The controller of nodes' address ranges. Fails if the cluster's ranges make no sense.
pub(crate) fn start(context: &Context) -> anyhow::Result<BoxFuture<'static, ()>> {
    let config = &context.config;
    let pools = (config.cluster_cidrs.iter())
        .map(|range| {
            let mask =
                if range.addr().is_ipv4() { config.node_cidr_mask_v4 } else { config.node_cidr_mask_v6 };
            Pool::new(*range, mask).with_context(|| format!("cluster CIDR {range}"))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let controller = Controller {
        nodes: context.informers.all(),
        api: Api::all(context.client(IDENTITY)),
        recorder: context.recorder(IDENTITY),
        state: Mutex::new(State { pools, unsettled: BTreeMap::new() }),
    };
    let queue = Arc::new(Queue::default());
    let sink = queue.clone();
    controller.nodes.on_change(move |change| {
        let wants = |node: &Node| ranges(node).is_empty() && !deleting(&node.metadata);
        if matches!(change, Change::Deleted(_)) || wants(change.object()) {
            sink.add("nodes");
        }
    });
    let cancel = context.cancel.clone();
    Ok(async move {
        controller.nodes.wait_synced().await;
        drive("node-ipam", queue, 1, cancel, |_| controller.reconcile()).await;
    }
    .boxed())
}

/// The ranges a node has.
fn ranges(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.iter());
    let mut ranges: Vec<IpNet> = all.filter_map(|text| text.parse().ok()).collect();
    ranges.sort();
    ranges.dedup();
    ranges
}

/// A node and the ranges it gets.
type Given = (Arc<Node>, Vec<IpNet>);

/// Which nodes get which ranges, and which nodes find none left. Pure, but for the pools' place of search.
fn plan(
    nodes: &[Arc<Node>],
    unsettled: &BTreeMap<String, Vec<IpNet>>,
    pools: &mut [Pool],
) -> (Vec<Given>, Vec<Arc<Node>>) {
    let mut given = Vec::new();
    let mut without = Vec::new();
    let mut wanting = Vec::new();
    for pool in pools.iter_mut() {
        pool.clear();
    }
    for node in nodes {
        let held = ranges(node);
        let reserved = unsettled.get(uid(&node.metadata)).into_iter().flatten();
        for range in held.iter().chain(reserved) {
            pools.iter_mut().for_each(|pool| pool.take(range));
        }
        if held.is_empty() && !deleting(&node.metadata) {
            wanting.push(node.clone());
        }
    }
    for node in wanting {
        if let Some(again) = unsettled.get(uid(&node.metadata)) {
            given.push((node, again.clone()));
            continue;
        }
        match pools.iter_mut().map(Pool::next).collect::<Option<Vec<_>>>() {
            Some(ranges) => given.push((node, ranges)),
            None => without.push(node),
        }
    }
    (given, without)
}

impl Controller {
    async fn reconcile(&self) -> Outcome {
        let mut state = self.state.lock().await;
        if state.pools.is_empty() {
            return Ok(None);
        }
        let nodes = self.nodes.list();
        let State { pools, unsettled } = &mut *state;
        // A node that is gone needs no reservation: its uid never comes back.
        unsettled.retain(|id, _| nodes.iter().any(|n| uid(&n.metadata) == id && ranges(n).is_empty()));
        let (given, without) = plan(&nodes, unsettled, pools);
        for node in &without {
            let text = format!("Node {} status is now: CIDRNotAvailable", name(&node.metadata));
            self.recorder.note(&**node, &Note::normal("CIDRNotAvailable", text));
        }
        let mut failed = None;
        for (node, ranges) in given {
            let id = uid(&node.metadata).to_owned();
            unsettled.insert(id.clone(), ranges.clone());
            match self.assign(&node, &ranges).await {
                Ok(()) => {
                    unsettled.remove(&id);
                }
                Err(error) => {
                    // A refusal is an answer; silence is not.
                    if (400..500).contains(&outcome::code(&error)) {
                        unsettled.remove(&id);
                    }
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None if without.is_empty() => Ok(None),
            None => Ok(Some(Duration::from_secs(30))),
        }
    }

    async fn assign(&self, node: &Node, ranges: &[IpNet]) -> Result<(), kube::Error> {
        let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        let patch = json!({
            "metadata": {"uid": uid(&node.metadata)},
            "spec": {"podCIDR": texts.first(), "podCIDRs": texts},
        });
        let node_name = name(&node.metadata);
        match self.api.patch(node_name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(written) => {
                tracing::info!(node = node_name, ranges = ?texts, "pod addresses assigned");
                self.nodes.written(written);
                Ok(())
            }
            Err(error) if outcome::not_found(&error) || outcome::conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
