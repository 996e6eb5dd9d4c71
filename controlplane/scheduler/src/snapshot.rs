//! All nodes with their pods, kept up to date event by event. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pagurus_controlplane_api::key::ObjectKey;

use crate::node::{NodeFacts, NodeInfo};
use crate::plugins::volumes::{ClaimInfo, Reach};
use crate::pod::PodInfo;

/// The cluster as decisions see it.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    nodes: Vec<NodeInfo>,
    by_name: HashMap<String, usize>,
    /// Where each pod (by uid) is.
    places: HashMap<String, String>,
    /// How many nodes are really there.
    known: usize,
    /// How many pods have something to say about other pods.
    with_terms: usize,
    namespaces: HashMap<String, BTreeMap<String, String>>,
    /// Claims, and where volumes can be reached from.
    pub(crate) claims: HashMap<ObjectKey, ClaimInfo>,
    pub(crate) volumes: HashMap<String, Reach>,
}

impl Snapshot {
    /// Every node that is there, in an order that changes only when nodes come or go.
    pub(crate) fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// How many nodes are really there.
    pub(crate) fn len(&self) -> usize {
        self.known
    }

    /// A node by name, if it is really there.
    pub(crate) fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|i| &self.nodes[*i]).filter(|n| n.facts.is_some())
    }

    fn entry(&mut self, name: &str) -> &mut NodeInfo {
        let index = *self.by_name.entry(name.to_owned()).or_insert_with(|| {
            self.nodes.push(NodeInfo::new(name));
            self.nodes.len() - 1
        });
        &mut self.nodes[index]
    }

    /// Learns of a node; false if nothing about it that counts has changed.
    pub(crate) fn set_node(&mut self, name: &str, facts: NodeFacts) -> bool {
        let node = self.entry(name);
        if node.facts.as_ref() == Some(&facts) {
            return false;
        }
        let new = node.facts.replace(facts).is_none();
        self.known += usize::from(new);
        true
    }

    /// A node is gone. Its pods stay in the books until they are gone too.
    pub(crate) fn remove_node(&mut self, name: &str) {
        let Some(&index) = self.by_name.get(name) else { return };
        if self.nodes[index].facts.take().is_some() {
            self.known -= 1;
        }
        self.drop_if_empty(name);
    }

    fn drop_if_empty(&mut self, name: &str) {
        let Some(&index) = self.by_name.get(name) else { return };
        let node = &self.nodes[index];
        if node.facts.is_some() || !node.pods.is_empty() {
            return;
        }
        self.by_name.remove(name);
        self.nodes.swap_remove(index);
        if let Some(moved) = self.nodes.get(index) {
            self.by_name.insert(moved.name.clone(), index);
        }
    }

    /// A pod is on the node that it names.
    pub(crate) fn add_pod(&mut self, pod: Arc<PodInfo>) {
        if self.places.get(&pod.uid).is_some_and(|place| *place != pod.node) {
            self.remove_pod(&pod.uid);
        }
        self.places.insert(pod.uid.clone(), pod.node.clone());
        let node = pod.node.clone();
        let entry = self.entry(&node);
        let before = entry.with_terms.len();
        entry.add(pod);
        let after = entry.with_terms.len();
        self.with_terms = self.with_terms + after - before;
    }

    /// A pod is gone; says from which node.
    pub(crate) fn remove_pod(&mut self, uid: &str) -> Option<String> {
        let place = self.places.remove(uid)?;
        if let Some(&index) = self.by_name.get(&place) {
            let had = self.nodes[index].with_terms.contains_key(uid);
            self.with_terms -= usize::from(had);
            self.nodes[index].remove(uid);
        }
        self.drop_if_empty(&place);
        Some(place)
    }

    /// How many pods have something to say about other pods.
    pub(crate) fn pods_with_terms(&self) -> usize {
        self.with_terms
    }

    /// A namespace is there, with these labels.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) {
        self.namespaces.insert(name.to_owned(), labels);
    }

    /// A namespace is gone.
    pub(crate) fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Keeps only these namespaces.
    pub(crate) fn retain_namespaces(&mut self, keep: impl Fn(&str) -> bool) {
        self.namespaces.retain(|name, _| keep(name));
    }

    /// The labels of a namespace.
    pub(crate) fn namespace_labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }

    /// The node a pod is on.
    pub(crate) fn place(&self, uid: &str) -> Option<&str> {
        self.places.get(uid).map(String::as_str)
    }

    /// The uids of all pods on nodes.
    pub(crate) fn placed(&self) -> impl Iterator<Item = &String> {
        self.places.keys()
    }

    /// The names of all nodes that are really there.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|n| n.facts.is_some()).map(|n| n.name.as_str())
    }
}
