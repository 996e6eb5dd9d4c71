//! A node as the scheduler sees it: what it is, and what its pods take of it. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod::{HostPort, PodInfo};
use crate::resources::{Resources, pod_limit};

/// What a node is, apart from its pods.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeFacts {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: Resources,
    pub(crate) pod_limit: i64,
}

impl NodeFacts {
    pub(crate) fn new(node: &Node) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        Self {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable == Some(true),
            allocatable: Resources::of(allocatable),
            pod_limit: pod_limit(allocatable),
        }
    }
}

/// A node and the sums over its pods.
#[derive(Debug, Clone)]
pub(crate) struct NodeInfo {
    pub(crate) name: String,
    /// None while pods are bound to a node that is not (yet, or any more) known.
    pub(crate) facts: Option<NodeFacts>,
    pub(crate) pods: HashMap<String, Arc<PodInfo>>,
    /// Those of them that have something to say about other pods.
    pub(crate) with_terms: HashMap<String, Arc<PodInfo>>,
    pub(crate) requested: Resources,
    pub(crate) scored: Resources,
    pub(crate) ports: HashMap<HostPort, usize>,
    /// Pods per controller.
    pub(crate) owners: HashMap<String, usize>,
}

impl NodeInfo {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            facts: None,
            pods: HashMap::new(),
            with_terms: HashMap::new(),
            requested: Resources::default(),
            scored: Resources::default(),
            ports: HashMap::new(),
            owners: HashMap::new(),
        }
    }

    /// Adds a pod, in place of an older state of it.
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        self.remove(&pod.uid);
        self.requested.add(&pod.requests);
        self.scored.add(&pod.scored);
        for port in &pod.ports {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
        if let Some(owner) = &pod.owner {
            *self.owners.entry(owner.clone()).or_default() += 1;
        }
        if !pod.affinity_terms.is_empty() {
            self.with_terms.insert(pod.uid.clone(), pod.clone());
        }
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// Removes a pod, if it is here.
    pub(crate) fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.with_terms.remove(uid);
        self.requested.subtract(&pod.requests);
        self.scored.subtract(&pod.scored);
        for port in &pod.ports {
            release(&mut self.ports, port);
        }
        if let Some(owner) = &pod.owner {
            release(&mut self.owners, owner);
        }
        Some(pod)
    }
}

fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
