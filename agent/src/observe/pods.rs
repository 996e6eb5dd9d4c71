//! The pods of this node as their workers last saw them, for those who serve or measure: logs, exec, statistics.
//! Must not be asked for decisions: it is a moment old.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use pagurus_agent_core::names::{PodName, PodUid};
use pagurus_agent_core::pods::observed::{ObservedContainer, ObservedPod};
use pagurus_agent_core::pods::{ContainerState, Pod};
use parking_lot::RwLock;
use serde_json::Value;

/// A pod as its worker last saw it.
#[derive(Clone, Debug)]
pub struct PodView {
    /// What is wanted.
    pub pod: Arc<Pod>,
    /// What is there.
    pub observed: ObservedPod,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its status as last computed.
    pub status: Value,
    /// What is under way or waited out, in words.
    pub pending: Value,
}

/// A container of a pod.
#[derive(Clone, Debug)]
pub struct ContainerView {
    /// The runtime's id.
    pub id: String,
    /// Path of its log.
    pub log_path: String,
    /// Its state.
    pub state: ContainerState,
    /// How often it was started before.
    pub attempt: u32,
}

/// All pods of this node. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct PodTable {
    pods: Arc<RwLock<BTreeMap<PodUid, Arc<PodView>>>>,
}

impl PodTable {
    /// The pod of this name; the youngest if there are two, as when one ends while its successor starts.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<PodView>> {
        let wanted = PodName::new(namespace, name);
        let pods = self.pods.read();
        pods.values().filter(|view| view.pod.name == wanted).max_by_key(|view| view.pod.created).cloned()
    }

    /// The pod of this identity.
    pub fn get(&self, uid: &PodUid) -> Option<Arc<PodView>> {
        self.pods.read().get(uid).cloned()
    }

    /// All pods.
    pub fn all(&self) -> Vec<Arc<PodView>> {
        self.pods.read().values().cloned().collect()
    }

    /// Says how a pod is now.
    pub fn put(&self, view: PodView) {
        self.pods.write().insert(view.pod.uid.clone(), Arc::new(view));
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &PodUid) {
        self.pods.write().remove(uid);
    }
}

impl PodView {
    /// The youngest container of this name.
    pub fn container(&self, name: &str) -> Option<ContainerView> {
        self.observed.latest(name).map(view)
    }

    /// The one before the youngest container of this name, for `logs --previous`.
    pub fn previous_container(&self, name: &str) -> Option<ContainerView> {
        self.observed.named(name).nth(1).map(view)
    }

    /// The sandbox, if it is ready.
    pub fn sandbox_id(&self) -> Option<&str> {
        self.observed.ready_sandbox().map(|sandbox| sandbox.id.as_str())
    }
}

fn view(found: &ObservedContainer) -> ContainerView {
    ContainerView {
        id: found.id.clone(),
        log_path: found.log_path.clone(),
        state: found.state.clone(),
        attempt: found.attempt,
    }
}
