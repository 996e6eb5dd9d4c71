//! Node lifecycle: notices nodes that are heard of no more, says so in their status, taints them, and marks their
//! pods as not ready.
//!
//! A node is heard of when its Lease is renewed or its status is posted; what counts is when we saw that, by our
//! own clock.

pub(crate) mod eviction;
mod health;
mod taints;
mod zones;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::runtime::object::{ObjectKey, deleting, key_of, name, node_name, now};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::recorder::{Note, Recorder};
use crate::runtime::store::{Change, Store};
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;
use health::Health;
use zones::Zones;

const IDENTITY: &str = "node-controller";
const WIDTH: usize = 8;
/// The index of pods by node.
pub(crate) const BY_NODE: &str = "node";

/// Adds the index of pods by node.
pub(crate) fn index_by_node(pods: &Store<Pod>) {
    pods.add_index(BY_NODE, |pod: &Pod| {
        Some(node_name(pod)).filter(|n| !n.is_empty()).map(str::to_owned).into_iter().collect()
    });
}

struct Controller {
    nodes: Arc<Store<Node>>,
    leases: Arc<Store<Lease>>,
    pods: Arc<Store<Pod>>,
    api: Api<Node>,
    pod_writer: Writer<Pod>,
    recorder: Recorder,
    /// By node name; renewals are noted as they arrive.
    health: Arc<Mutex<HashMap<String, Health>>>,
    zones: Mutex<Zones>,
}

/// The controller of nodes' health.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        nodes: context.informers.all(),
        leases: context.informers.filtered("metadata.namespace=kube-node-lease"),
        pods: context.informers.all(),
        api: Api::all(context.client(IDENTITY)),
        pod_writer: context.writer(IDENTITY),
        recorder: context.recorder(IDENTITY),
        health: Arc::default(),
        zones: Mutex::default(),
    };
    index_by_node(&controller.pods);
    let queue = Arc::new(Queue::default());
    let sink = queue.clone();
    let teller = controller.recorder.clone();
    controller.nodes.on_change(move |change| {
        let node = change.object();
        if matches!(change, Change::Deleted(_)) {
            teller.note(&**node, &node_event(node, "RemovingNode", "Removing", "from"));
        }
        sink.add(key_of(&node.metadata));
    });
    // A renewed lease needs no answer, unless it is the first sign of life of a node given up.
    let (sink, nodes, health) = (queue.clone(), controller.nodes.clone(), controller.health.clone());
    controller.leases.on_change(move |change| {
        let key = ObjectKey::cluster(name(&change.object().metadata));
        if let Some(health) = health.lock().get_mut(&key.name) {
            health.hear(Some(change.object()), Instant::now());
        }
        let unknown = nodes.get(&key).is_some_and(|n| health::ready_status(&n) == "Unknown");
        if unknown && !matches!(change, Change::Deleted(_)) {
            sink.add(key);
        }
    });
    let cancel = context.cancel.clone();
    async move {
        controller.nodes.wait_synced().await;
        controller.leases.wait_synced().await;
        controller.pods.wait_synced().await;
        drive("node-lifecycle", queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

/// `Node n event: Registered Node n in Controller`.
fn node_event(node: &Node, reason: &'static str, verb: &str, place: &str) -> Note {
    let name = name(&node.metadata);
    Note::normal(reason, format!("Node {name} event: {verb} Node {name} {place} Controller"))
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(node) = self.nodes.get(&key) else {
            self.health.lock().remove(&key.name);
            return Ok(None);
        };
        if deleting(&node.metadata) {
            return Ok(None);
        }
        let lease = self.leases.get(&ObjectKey::namespaced("kube-node-lease", &key.name));
        let (silent, left) = {
            let mut all = self.health.lock();
            let health = all.entry(key.name.clone()).or_insert_with(|| {
                self.recorder.note(&*node, &node_event(&node, "RegisteredNode", "Registered", "in"));
                Health::default()
            });
            health.see(&node, lease.as_deref(), Instant::now())
        };
        let mut node = (*node).clone();
        if silent && let Some(conditions) = health::unknown_conditions(&node, now()) {
            node = self.give_up(node, conditions).await?;
        }
        let wait = self.taint(&node).await?;
        self.mark_pods(&node).await?;
        Ok(Some(left.min(wait.unwrap_or(left))))
    }

    async fn give_up(&self, node: Node, conditions: serde_json::Value) -> Result<Node, kube::Error> {
        let text = format!("Node {} status is now: NodeNotReady", name(&node.metadata));
        self.recorder.note(&node, &Note::normal("NodeNotReady", text));
        tracing::info!(node = name(&node.metadata), "node is heard of no more");
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        let patch = Patch::Strategic(patch);
        let written = self.api.patch_status(name(&node.metadata), &PatchParams::default(), &patch).await?;
        self.nodes.written(written.clone());
        Ok(written)
    }

    /// Brings the taints in line with the conditions. Taints that evict come slowly, and not at all when so many
    /// nodes are silent that the fault is likely ours; then says when to look again.
    async fn taint(&self, node: &Node) -> Result<Option<Duration>, kube::Error> {
        let wanted = taints::wanted(node);
        let mut wait = None;
        let mut evict = wanted.evict;
        if let Some(effect) = &evict {
            let nodes = self.nodes.list();
            let held = taints::has(node, effect);
            let (may, again) = self.zones.lock().admit(node, &nodes, held, Instant::now());
            wait = again;
            evict = evict.filter(|_| may);
        }
        let Some(taints) = taints::merged(node, &wanted.keep_off, evict.as_ref(), now()) else {
            return Ok(wait);
        };
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        let patch = Patch::Merge(patch);
        let written = self.api.patch(name(&node.metadata), &PatchParams::default(), &patch).await?;
        self.nodes.written(written);
        Ok(wait)
    }

    /// Pods that were ready when their node was lost are so no more: nobody can say.
    async fn mark_pods(&self, node: &Node) -> Result<(), kube::Error> {
        let node_name = name(&node.metadata);
        for pod in self.pods.by_index(BY_NODE, node_name) {
            let Some(patch) = health::unready_patch(node, &pod, now()) else { continue };
            let result = self.pod_writer.patch_status(&pod, &Patch::Strategic(patch)).await;
            if outcome::gone_is_fine(result)?.is_some() {
                self.recorder.note(&*pod, &Note::warning("NodeNotReady", "Node is not ready"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
