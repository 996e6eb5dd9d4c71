//! What is known of the cluster's names, filled by the watches of the load balancer.
//!
//! Must not know: sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use pagurus_agent_core::dns::{Generations, Index, Lookup, Used};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::index::dns;

/// The index and whether everything has been told. Cheap to clone.
#[derive(Clone)]
pub struct Table {
    index: Arc<RwLock<Index>>,
    generations: Generations,
    is_complete: Arc<AtomicBool>,
    complete: watch::Sender<bool>,
}

impl Table {
    /// An empty one for this domain.
    pub fn new(domain: &Name) -> Self {
        let index = Index::new(domain);
        let generations = index.generations();
        let (index, is_complete) = (Arc::new(RwLock::new(index)), Arc::default());
        Self { index, generations, is_complete, complete: watch::Sender::new(false) }
    }

    /// A Service as it is now.
    pub fn set_service(&self, object: &Service) {
        match dns::service(object) {
            Some(service) => self.index.write().set_service(service),
            None => self.remove_service(
                object.metadata.namespace.as_deref().unwrap_or_default(),
                object.metadata.name.as_deref().unwrap_or_default(),
            ),
        }
    }

    /// A Service is gone.
    pub fn remove_service(&self, namespace: &str, name: &str) {
        self.index.write().remove_service(namespace, name);
    }

    /// An EndpointSlice as it is now.
    pub fn set_slice(&self, object: &EndpointSlice) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        match dns::slice(object) {
            Some(slice) => self.index.write().set_slice(name, &slice),
            None => self.remove_slice(object.metadata.namespace.as_deref().unwrap_or_default(), name),
        }
    }

    /// An EndpointSlice is gone.
    pub fn remove_slice(&self, namespace: &str, name: &str) {
        self.index.write().remove_slice(namespace, name);
    }

    /// Everything there is has been told.
    pub fn set_complete(&self) {
        if self.is_complete.swap(true, Ordering::AcqRel) {
            return;
        }
        self.complete.send_replace(true);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Waits until everything is known.
    pub(super) async fn completed(&self) {
        let mut complete = self.complete.subscribe();
        // The sender lives as long as this table.
        let _ = complete.wait_for(|complete| *complete).await;
    }

    /// What is known about a question, and how often what the answer depends on had changed by then.
    pub(super) fn answer(&self, name: &Name, kind: RecordType) -> (Lookup, u64) {
        let index = self.index.read();
        let lookup = index.answer(name, kind);
        let generation = match &lookup {
            Lookup::Answer(answer) => self.generations.of(answer.topic),
            Lookup::Forward | Lookup::Chase { .. } => 0,
        };
        (lookup, generation)
    }

    /// Whether the cluster's DNS is reached at this ClusterIP.
    pub(super) fn is_cluster_dns(&self, ip: IpAddr) -> bool {
        self.index.read().has_cluster_ip(super::SERVICE.0, super::SERVICE.1, ip)
    }

    pub(super) fn generations(&self) -> Generations {
        self.generations.clone()
    }

    pub(super) fn used(&self) -> Used {
        self.index.read().used()
    }
}
