//! What is known of the cluster's names, filled by the watches of the load balancer.
//!
//! Must not know: sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::rr::{Name, RecordType};
use pagurus_agent_core::dns::saved::Saving;
use pagurus_agent_core::dns::{Generations, Index, Lookup, Service, Slice, Used};
use parking_lot::RwLock;
use tokio::sync::watch;

/// Names that are saved before others get at the index.
const TOGETHER: usize = 512;
/// For so long after the start the API server's word is waited for before it is said, from what was known last, that there is
/// nothing of a name.
const SETTLE: Duration = Duration::from_secs(1);

/// What an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// All there is now; how often what the answer depends on had changed by then.
    Now(u64),
    /// All there was when an earlier agent last saved it.
    Last,
    /// What has been told so far.
    Partly,
}

/// The index and whether everything has been told. Cheap to clone.
#[derive(Clone)]
pub struct Table {
    index: Arc<RwLock<Index>>,
    /// What an earlier agent knew, until everything has been told.
    last: Arc<RwLock<Option<Index>>>,
    started: Instant,
    generations: Generations,
    is_complete: Arc<AtomicBool>,
    complete: watch::Sender<bool>,
}

impl Table {
    /// An empty one for this domain; until it is complete, what was known `last` is answered.
    pub(super) fn new(domain: &Name, last: Option<Index>) -> Self {
        let index = Index::new(domain);
        Self {
            generations: index.generations(),
            index: Arc::new(RwLock::new(index)),
            last: Arc::new(RwLock::new(last)),
            started: Instant::now(),
            is_complete: Arc::default(),
            complete: watch::Sender::new(false),
        }
    }

    /// A Service as it is now.
    pub fn set_service(&self, service: Service) {
        self.index.write().set_service(service);
    }

    /// A Service is gone.
    pub fn remove_service(&self, namespace: &str, name: &str) {
        self.index.write().remove_service(namespace, name);
    }

    /// An EndpointSlice as it is now.
    pub fn set_slice(&self, name: &str, slice: &Slice) {
        self.index.write().set_slice(name, slice);
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
        *self.last.write() = None;
        self.complete.send_replace(true);
    }

    /// How long a question that cannot be answered from all there is now is to wait for that. Who has the word of an earlier agent,
    /// which says that there is something, need not wait at all.
    pub(super) fn patience(&self, without: Duration) -> Duration {
        if self.is_complete() {
            Duration::ZERO
        } else if self.last.read().is_some() {
            SETTLE.saturating_sub(self.started.elapsed())
        } else {
            without
        }
    }

    /// The whole index as bytes, if they are not more than so many. Who changes it meanwhile waits for a small part of that.
    pub(super) fn save(&self, most: usize) -> Option<Vec<u8>> {
        let mut saving = Saving::default();
        loop {
            let has_more = saving.add(&self.index.read(), TOGETHER);
            if saving.length() > most {
                return None;
            }
            if !has_more {
                return Some(saving.finish());
            }
        }
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

    /// What is known about a question, and from when.
    pub(super) fn answer(&self, name: &Name, kind: RecordType) -> (Lookup, Known) {
        let is_complete = self.is_complete();
        if !is_complete && let Some(last) = &*self.last.read() {
            return (last.answer(name, kind), Known::Last);
        }
        let index = self.index.read();
        let lookup = index.answer(name, kind);
        let known = match &lookup {
            _ if !is_complete => Known::Partly,
            Lookup::Answer(answer) => Known::Now(self.generations.of(answer.topic)),
            Lookup::Forward | Lookup::Chase { .. } => Known::Now(0),
        };
        (lookup, known)
    }

    /// Whether the cluster's DNS is reached at this ClusterIP.
    pub(super) fn is_cluster_dns(&self, ip: IpAddr) -> bool {
        let has = |index: &Index| index.has_cluster_ip(super::SERVICE.0, super::SERVICE.1, ip);
        has(&self.index.read()) || self.last.read().as_ref().is_some_and(has)
    }

    pub(super) fn generations(&self) -> Generations {
        self.generations.clone()
    }

    pub(super) fn used(&self) -> Used {
        self.index.read().used()
    }
}
