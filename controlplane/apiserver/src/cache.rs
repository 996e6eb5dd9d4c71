//! What is stored, in memory, one cache per resource: the encoded objects with a small index, as an ordered map at one
//! revision, and the recent changes as a ring that watches read with cursors.
//!
//! A cache is fed by one watch of the store. Objects are kept in the form they were stored in, as the bytes that
//! readers get. It must not know requests, versions of an API or output formats.

mod cached;
mod feed;
mod forms;
mod ring;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use imbl::OrdMap;
use pagurus_controlplane_api::key::ObjectKey;
use pagurus_controlplane_store::{Revision, Store};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::registry::Rules;

pub use cached::{Cached, stored_bytes};
use ring::Ring;
pub use ring::{Change, ChangeKind, Cursor, CursorError, Encoding};

/// How long a reader waits for the cache to come up with the store.
const WAIT: Duration = Duration::from_secs(10);
/// How many snapshots are kept for clients that page through a list, and for how long.
const PAGES: usize = 64;
const PAGES_FOR: Duration = Duration::from_secs(300);
/// For how long forms of objects are kept after the last list that wanted them.
const FORMS_FOR: Duration = Duration::from_secs(300);

/// All objects of a resource at one revision. Cloning it costs nothing, and it never changes.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// The revision: no change up to it is missing, none after it is in.
    pub revision: Revision,
    /// The objects by `namespace/name`, or `name`.
    pub objects: OrdMap<Arc<str>, Arc<Cached>>,
}

/// Why a cache cannot answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// The revision asked for has not come within the time a reader waits.
    #[error("revision {asked} is not there yet, the cache is at {current}")]
    NotYet {
        /// What was asked for.
        asked: Revision,
        /// What is there.
        current: Revision,
    },
    /// The revision asked for is no longer kept.
    #[error("revision {asked} is no longer kept")]
    Gone {
        /// What was asked for.
        asked: Revision,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] pagurus_controlplane_store::Error),
}

/// The cache of one resource.
pub struct Cache {
    /// What objects are indexed by.
    rules: ArcSwap<Rules>,
    prefix: String,
    store: Arc<dyn Store>,
    snapshot: ArcSwap<Snapshot>,
    /// Locked for writing while the snapshot and the ring move on together.
    ring: RwLock<Ring>,
    revision: watch::Sender<Revision>,
    /// Wakes cursors; not for every change by itself when there are many of both.
    told: watch::Sender<()>,
    pages: Mutex<Vec<(Instant, Snapshot)>>,
    /// When a list last wanted forms of the objects, while there may be some.
    formed: Mutex<Option<Instant>>,
    /// Objects on their way through the store, by the place of their bytes: so that they need not be parsed again.
    expected: Mutex<HashMap<usize, Arc<Cached>>>,
}

impl Cache {
    /// A cache of the objects below `prefix`, loaded, and the task that keeps it up to date, for the caller to run.
    pub async fn start(
        rules: Rules,
        prefix: String,
        store: Arc<dyn Store>,
        cancel: CancellationToken,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + use<>), CacheError> {
        let cache = Arc::new(Self {
            rules: ArcSwap::from_pointee(rules),
            prefix,
            store,
            snapshot: ArcSwap::default(),
            ring: RwLock::default(),
            revision: watch::Sender::new(0),
            told: watch::Sender::new(()),
            pages: Mutex::default(),
            formed: Mutex::default(),
            expected: Mutex::default(),
        });
        let events = cache.load_with_history().await?;
        let feed = cache.clone().feed(events, cancel);
        Ok((cache, feed))
    }

    /// Indexes objects by other rules from now on, those that are there too: the definition of a custom resource was changed. Watches
    /// end, since they show objects by the old rules.
    pub fn follow(&self, rules: Rules) {
        // The lock keeps changes from coming between.
        let ring = self.ring.write();
        let same = self.rules.load().selectable_fields() == rules.selectable_fields();
        if !same || rules.custom().is_some() {
            let old = self.snapshot.load();
            let again = |object: &Arc<Cached>| Arc::new(object.indexed_by(&*rules));
            let objects = old.objects.iter().map(|(key, object)| (key.clone(), again(object))).collect();
            self.snapshot.store(Arc::new(Snapshot { revision: old.revision, objects }));
        }
        self.rules.store(Arc::new(rules));
        drop(ring);
        self.end_watches();
    }

    /// Ends all cursors when they have told what happened until now.
    fn end_watches(&self) {
        self.ring.write().end_cursors();
        self.tell();
    }

    /// The store key of an object.
    pub fn store_key(&self, key: &ObjectKey) -> String {
        format!("{}{}", self.prefix, map_key(key.namespace.as_deref(), &key.name))
    }

    /// The store behind it.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What begins all store keys of the resource.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The object as far as the cache knows; for decisions that may be a moment late (authorization, admission).
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<Cached>> {
        self.snapshot.load().objects.get(map_key(namespace, name).as_str()).cloned()
    }

    /// All objects as far as the cache knows.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::clone(&self.snapshot.load())
    }

    /// The objects of a namespace as far as the cache knows, or all.
    pub fn list(&self, namespace: Option<&str>) -> Vec<Arc<Cached>> {
        let snapshot = self.snapshot.load();
        snapshot.below(namespace, None).map(|(_, object)| object.clone()).collect()
    }

    /// The revision of the last change the cache has seen.
    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Resolves when something changed after `seen`, with the new revision; for readers that derive something from all
    /// objects (a role graph) and need not see every change.
    pub async fn changed(&self, seen: Revision) -> Revision {
        let mut revisions = self.revision.subscribe();
        // The guard must not live across the wait that follows.
        let changed = revisions.wait_for(|r| *r > seen).await.map(|revision| *revision);
        match changed {
            Ok(revision) => revision,
            Err(_) => std::future::pending().await,
        }
    }

    /// All objects with every change that was acknowledged before this call.
    pub async fn current(&self) -> Result<Snapshot, CacheError> {
        let current = self.store.current(&self.prefix).await?;
        self.wait(current.prefix).await?;
        let mut snapshot = self.snapshot();
        // Nothing below the prefix happened between the two, so the snapshot is that of the later revision too.
        snapshot.revision = snapshot.revision.max(current.store);
        Ok(snapshot)
    }

    /// All objects at any revision that is not before `revision`.
    pub async fn not_before(&self, revision: Revision) -> Result<Snapshot, CacheError> {
        if self.revision() >= revision {
            return Ok(self.snapshot());
        }
        let current = self.store.current(&self.prefix).await?;
        if current.store < revision {
            return Err(CacheError::NotYet { asked: revision, current: current.store });
        }
        self.current().await
    }

    /// All objects exactly at a revision: from a snapshot that is kept for paging, else from the store.
    pub async fn at(&self, revision: Revision) -> Result<Snapshot, CacheError> {
        let kept = self.pages.lock().iter().find(|(_, s)| s.revision == revision).map(|(_, s)| s.clone());
        if let Some(snapshot) = kept {
            return Ok(snapshot);
        }
        let current = self.current().await?;
        if current.revision == revision {
            return Ok(current);
        }
        self.read_at(revision).await
    }

    /// Keeps a snapshot for some minutes, so that [`Self::at`] finds it.
    pub fn keep(&self, snapshot: &Snapshot) {
        let now = Instant::now();
        let mut pages = self.pages.lock();
        pages.retain(|(since, s)| now.duration_since(*since) < PAGES_FOR && s.revision != snapshot.revision);
        if pages.len() >= PAGES {
            pages.remove(0);
        }
        pages.push((now, snapshot.clone()));
    }

    /// Tells that forms of the objects are wanted now.
    pub(crate) fn forms_wanted(&self) {
        *self.formed.lock() = Some(Instant::now());
    }

    /// Lets go of what nobody is likely to ask for any more: old changes, and snapshots kept for paging.
    pub(crate) fn tidy(&self, now: Instant) {
        let unused = self.formed.lock().take_if(|at| now.duration_since(*at) > FORMS_FOR).is_some();
        if unused {
            self.snapshot.load().objects.values().for_each(|object| object.forget_forms());
        }
        self.pages.lock().retain(|(since, _)| now.duration_since(*since) < PAGES_FOR);
        self.ring.write().trim(now);
    }

    /// A cursor on the changes after `revision`; `None` means from now on. Also the objects at the cursor's place.
    pub fn watch(self: &Arc<Self>, revision: Option<Revision>) -> Result<(Snapshot, Cursor), CacheError> {
        let ring = self.ring.read();
        let next = match revision {
            None => ring.end(),
            Some(asked) => ring.position_after(asked).ok_or(CacheError::Gone { asked })?,
        };
        let (snapshot, era) = (self.snapshot(), ring.era());
        drop(ring);
        Ok((snapshot, Cursor::new(self.clone(), next, era, self.told.subscribe())))
    }

    /// Tells the cache of an object that is about to be written with these very bytes, until the guard is dropped.
    pub(crate) fn expect(&self, object: Arc<Cached>) -> Expected<'_> {
        let place = object.bytes.as_ptr() as usize;
        self.expected.lock().insert(place, object);
        Expected { cache: self, place }
    }

    /// Waits until the cache has come to `revision`.
    async fn wait(&self, revision: Revision) -> Result<(), CacheError> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut revisions = self.revision.subscribe();
        let arrived = tokio::time::timeout(WAIT, revisions.wait_for(|r| *r >= revision)).await;
        match arrived {
            Ok(Ok(_)) => Ok(()),
            _ => Err(CacheError::NotYet { asked: revision, current: self.revision() }),
        }
    }
}

/// See [`Cache::expect`].
pub(crate) struct Expected<'a> {
    cache: &'a Cache,
    place: usize,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.cache.expected.lock().remove(&self.place);
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("prefix", &self.prefix)
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// The object of that name.
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<&Arc<Cached>> {
        self.objects.get(map_key(namespace, name).as_str())
    }

    /// The same revision with that one object only, if it is there.
    pub fn only(&self, namespace: Option<&str>, name: &str) -> Self {
        let key = map_key(namespace, name);
        let found = self.objects.get_key_value(key.as_str());
        let objects = found.map(|(key, object)| OrdMap::unit(key.clone(), object.clone()));
        Self { revision: self.revision, objects: objects.unwrap_or_default() }
    }

    /// The objects of a namespace (or all) in order, those after the key `after` only.
    pub fn below(
        &self,
        namespace: Option<&str>,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<Cached>)> + use<'_> {
        use std::ops::Bound;
        let prefix = namespace.map(|n| format!("{n}/")).unwrap_or_default();
        let from = match after {
            Some(key) if key >= prefix.as_str() => Bound::Excluded(key.to_owned()),
            _ => Bound::Included(prefix.clone()),
        };
        let range: (Bound<String>, Bound<String>) = (from, Bound::Unbounded);
        let borrowed = (range.0.as_ref().map(String::as_str), range.1.as_ref().map(String::as_str));
        self.objects.range::<_, str>(borrowed).take_while(move |(key, _)| key.starts_with(&prefix))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({} objects at {})", self.objects.len(), self.revision)
    }
}

/// The key of an object in a snapshot, which is the end of its store key.
pub fn map_key(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
