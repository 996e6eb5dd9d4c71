//! How a cache is loaded from the store and follows it. It must not know who reads the cache.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use imbl::OrdMap;
use pagurus_controlplane_store::{Batch, Error, Event, KeyValue, Range, Revision, WatchStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Cache, CacheError, Cached, Change, ChangeKind, Snapshot};

/// How many revisions back a cache begins at most.
const REPLAYED: Revision = 8192;
/// How long those who watch are left alone after they were told of changes, if they are many: changes that come meanwhile are told
/// together, which costs each watch one message and not several. A change that comes alone is told at once.
const PACE: Duration = Duration::from_millis(2);
/// How many watches are many.
const CROWD: usize = 8;
/// How long to wait before the store is asked again after a failure.
const RETRY: Duration = Duration::from_millis(500);

impl Cache {
    /// Reads everything, replaces what is there, and begins to watch.
    pub(super) async fn load(&self) -> Result<WatchStream, CacheError> {
        let result = self.store.range(Range::below(self.prefix.as_str())).await?;
        let events = self.store.watch(&self.prefix, result.revision + 1).await?;
        self.replace(Snapshot { revision: result.revision, objects: self.objects(result.kvs) });
        Ok(events)
    }

    /// Puts a state in place of everything.
    fn replace(&self, state: Snapshot) {
        let revision = state.revision;
        let mut ring = self.ring.write();
        ring.restart(revision);
        self.snapshot.store(Arc::new(state));
        drop(ring);
        self.revision.send_replace(revision);
        self.tell();
    }

    /// The first load: begins at the oldest revision that is worth it and replays what happened since, so that watches that
    /// were interrupted by a restart can go on where they were.
    pub(super) async fn load_with_history(&self) -> Result<WatchStream, CacheError> {
        let now = self.store.revision().await?;
        let kept = match self.store.watch(&self.prefix, 2).await {
            Ok(_) => 1,
            Err(Error::Compacted { oldest, .. }) => oldest.saturating_sub(1),
            Err(e) => return Err(e.into()),
        };
        let begin = kept.max(now.saturating_sub(REPLAYED));
        let state = match self.read_at(begin).await {
            Ok(state) => state,
            // Compacted meanwhile.
            Err(CacheError::Gone { .. }) => return self.load().await,
            Err(e) => return Err(e),
        };
        let mut events = match self.store.watch(&self.prefix, begin + 1).await {
            Ok(events) => events,
            Err(Error::Compacted { .. }) => return self.load().await,
            Err(e) => return Err(e.into()),
        };
        self.replace(state);
        let goal = self.store.current(&self.prefix).await?.prefix;
        while self.revision() < goal {
            match events.next().await {
                Some(batch) => self.apply(batch?),
                None => return self.load().await,
            }
        }
        Ok(events)
    }

    /// All objects at an old revision, from the store.
    pub(super) async fn read_at(&self, revision: Revision) -> Result<Snapshot, CacheError> {
        let range = Range { at: Some(revision), ..Range::below(self.prefix.as_str()) };
        match self.store.range(range).await {
            Ok(result) => Ok(Snapshot { revision, objects: self.objects(result.kvs) }),
            Err(Error::Compacted { requested, .. }) => Err(CacheError::Gone { asked: requested }),
            Err(Error::Future { requested, current }) => {
                Err(CacheError::NotYet { asked: requested, current })
            }
            Err(e) => Err(e.into()),
        }
    }

    fn objects(&self, kvs: Vec<KeyValue>) -> OrdMap<Arc<str>, Arc<Cached>> {
        kvs.into_iter().filter_map(|kv| self.read(&kv).map(|object| (self.key_of(&kv.key), object))).collect()
    }

    /// Follows the store until `cancel`, with which watches end too; what it missed after a failure it reads anew.
    pub(super) async fn feed(self: Arc<Self>, mut events: WatchStream, cancel: CancellationToken) {
        let again = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(again);
        let mut waits = false;
        loop {
            let batch = tokio::select! {
                () = cancel.cancelled() => return self.end_watches(),
                batch = events.next() => batch,
                () = &mut again, if waits => {
                    self.tell();
                    again.as_mut().reset(Instant::now() + PACE);
                    waits = false;
                    continue;
                }
            };
            let failure = match batch {
                Some(Ok(batch)) => {
                    self.apply(batch);
                    waits = again.deadline() > Instant::now() && self.told.receiver_count() >= CROWD;
                    if !waits {
                        self.tell();
                        again.as_mut().reset(Instant::now() + PACE);
                    }
                    continue;
                }
                Some(Err(error)) => error.to_string(),
                None => "the watch ended".to_owned(),
            };
            warn!(prefix = self.prefix, failure, "the cache lost its watch of the store, reading anew");
            events = loop {
                match self.load().await {
                    Ok(events) => break events,
                    Err(error) => warn!(prefix = self.prefix, %error, "the cache cannot read the store"),
                }
                tokio::select! {
                    () = cancel.cancelled() => return self.end_watches(),
                    () = tokio::time::sleep(RETRY) => {}
                }
            };
        }
    }

    /// Wakes those who watch.
    pub(super) fn tell(&self) {
        self.told.send_modify(|()| {});
    }

    /// Moves snapshot and ring on by some changes.
    fn apply(&self, batch: Batch) {
        let mut objects = self.snapshot.load().objects.clone();
        let mut changes = Vec::with_capacity(batch.events.len());
        for event in batch.events {
            match event {
                Event::Put(kv) => {
                    let Some(object) = self.read(&kv) else { continue };
                    let previous = objects.insert(self.key_of(&kv.key), object.clone());
                    let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
                    changes.push(Arc::new(Change::new(kind, object, previous)));
                }
                Event::Delete { key, mod_revision } => {
                    let Some(previous) = objects.remove(&*self.key_of(&key)) else { continue };
                    let last = Arc::new(previous.at_revision(mod_revision));
                    changes.push(Arc::new(Change::new(ChangeKind::Deleted, last, Some(previous))));
                }
            }
        }
        let mut ring = self.ring.write();
        for change in changes {
            ring.push(change);
        }
        self.snapshot.store(Arc::new(Snapshot { revision: batch.revision, objects }));
        drop(ring);
        self.revision.send_replace(batch.revision);
    }

    /// An object that cannot be read is left out and reported: one bad object must not take the others along.
    fn read(&self, kv: &KeyValue) -> Option<Arc<Cached>> {
        let expected = self.expected.lock().get(&(kv.value.as_ptr() as usize)).cloned();
        if let Some(object) = expected.filter(|object| object.bytes == kv.value) {
            return Some(Arc::new(object.at_revision(kv.mod_revision)));
        }
        match Cached::read(&kv.value, kv.mod_revision, &**self.rules.load_full()) {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                error!(key = kv.key, %error, "a stored object is not JSON and is left out");
                None
            }
        }
    }

    fn key_of(&self, store_key: &str) -> Arc<str> {
        store_key.strip_prefix(&self.prefix).unwrap_or(store_key).into()
    }
}
