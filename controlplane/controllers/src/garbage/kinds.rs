//! The kinds that the collector watches: found by discovery, anew when what makes kinds come and go has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Meta;
use super::graph::Graph;
use crate::runtime::discovery::{Found, discover};
use crate::runtime::informer::Feed;
use crate::runtime::object::uid;
use crate::runtime::queue::Queue;
use crate::runtime::store::{Change, Store};

/// Discovery is asked so often whatever happens, and so long after a sign that kinds have come or gone.
const EVERY: Duration = Duration::from_secs(300);
const AFTER_CHANGE: Duration = Duration::from_secs(1);
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A kind under watch.
pub(super) struct Kind {
    pub(super) found: Found,
    pub(super) store: Arc<Store<Meta>>,
    stop: CancellationToken,
}

/// Group and plural name.
type Name = (String, String);

/// All kinds under watch.
pub(super) struct Kinds {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    queue: Arc<Queue<String>>,
    watched: Mutex<BTreeMap<Name, Arc<Kind>>>,
    synced: watch::Sender<bool>,
    /// Kinds may have come or gone.
    changed: Notify,
}

/// Whether objects of a kind make other kinds.
fn makes_kinds(found: &Found) -> bool {
    matches!(
        (found.resource.group.as_str(), found.resource.plural.as_str()),
        ("apiextensions.k8s.io", "customresourcedefinitions") | ("apiregistration.k8s.io", "apiservices")
    )
}

/// Keeps of an object's metadata what the collector reads.
pub(super) fn trimmed(mut object: Meta) -> Meta {
    object.types = None;
    object.metadata.labels = None;
    object.metadata.annotations = None;
    object.metadata.managed_fields = None;
    object
}

/// Events come and go by themselves, and nobody owns them.
fn watched(found: &Found) -> bool {
    let events =
        found.resource.plural == "events" && matches!(found.resource.group.as_str(), "" | "events.k8s.io");
    !events && ["list", "watch", "delete"].iter().all(|verb| found.offers(verb))
}

impl Kinds {
    pub(super) fn new(client: Client, graph: Arc<Mutex<Graph>>, queue: Arc<Queue<String>>) -> Self {
        let (watched, synced) = (Mutex::default(), watch::Sender::new(false));
        Self { client, graph, queue, watched, synced, changed: Notify::new() }
    }

    /// The kind of that group and name.
    pub(super) fn of(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        let watched = self.watched.lock();
        watched.values().find(|k| k.found.resource.group == group && k.found.resource.kind == kind).cloned()
    }

    /// Resolves when every kind of the first discovery is listed.
    pub(super) async fn wait_synced(&self) {
        // An error means that the sender is gone, which is `self`: it cannot be.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Watches whatever kinds there are until cancelled.
    pub(super) async fn follow(self: Arc<Self>, cancel: CancellationToken) {
        let mut feeds = JoinSet::new();
        loop {
            let wait = match discover(&self.client).await {
                Ok(found) => {
                    self.update(found.into_iter().filter(watched).collect(), &mut feeds, &cancel);
                    if !*self.synced.borrow() {
                        let kinds: Vec<_> = self.watched.lock().values().cloned().collect();
                        let all = futures::future::join_all(kinds.iter().map(|k| k.store.wait_synced()));
                        tokio::select! {
                            () = cancel.cancelled() => {}
                            _ = all => {
                                self.synced.send_replace(true);
                            }
                        }
                    }
                    EVERY
                }
                Err(error) => {
                    tracing::debug!("discovery for the garbage collector: {error}");
                    AFTER_FAILURE
                }
            };
            while feeds.try_join_next().is_some() {}
            tokio::select! {
                () = cancel.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                () = self.changed.notified() => tokio::time::sleep(AFTER_CHANGE).await,
            }
        }
        while feeds.join_next().await.is_some() {}
    }

    fn update(self: &Arc<Self>, found: Vec<Found>, feeds: &mut JoinSet<()>, cancel: &CancellationToken) {
        let mut watched = self.watched.lock();
        let mut left = std::mem::take(&mut *watched);
        for found in found {
            let name = (found.resource.group.clone(), found.resource.plural.clone());
            let same = left.remove(&name).filter(|kind| {
                kind.found.resource.version == found.resource.version
                    && kind.found.namespaced == found.namespaced
            });
            let kind = same.unwrap_or_else(|| self.watch(found, feeds, cancel));
            watched.insert(name, kind);
        }
        drop(watched);
        for kind in left.into_values() {
            kind.stop.cancel();
            kind.store.replace(Vec::new(), u64::MAX);
        }
    }

    fn watch(
        self: &Arc<Self>,
        found: Found,
        feeds: &mut JoinSet<()>,
        cancel: &CancellationToken,
    ) -> Arc<Kind> {
        let (store, stop) = (Arc::new(Store::default()), cancel.child_token());
        let kind = Arc::new(Kind { found, store: store.clone(), stop: stop.clone() });
        let (graph, queue) = (self.graph.clone(), self.queue.clone());
        let (weak, all) = (Arc::downgrade(&kind), Arc::downgrade(self));
        let makes_kinds = makes_kinds(&kind.found);
        store.on_change(move |change| {
            let Some(kind) = weak.upgrade() else { return };
            if let Some(all) = all.upgrade().filter(|_| makes_kinds) {
                all.changed.notify_one();
            }
            let look = match change {
                Change::Deleted(object) => graph.lock().remove(uid(&object.metadata)),
                change => graph.lock().put(kind, change.object().clone()),
            };
            look.into_iter().for_each(|uid| queue.add(uid));
        });
        let api = Api::<Meta>::all_with(self.client.clone(), &kind.found.resource);
        let feed =
            Feed { api, fields: String::new(), store, trim: |object| *object = trimmed(object.clone()) };
        feeds.spawn(feed.run(stop));
        kind
    }
}

#[cfg(test)]
impl Kind {
    /// A kind that nobody watches.
    pub(super) fn fake() -> Self {
        let gvk = kube::core::GroupVersionKind::gvk("", "v1", "X");
        Self {
            found: Found::fake(kube::core::ApiResource::from_gvk(&gvk)),
            store: Arc::default(),
            stop: CancellationToken::new(),
        }
    }
}
