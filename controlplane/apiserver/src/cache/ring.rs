//! The recent changes of a resource, and the cursors of those who follow them.
//!
//! The ring holds each change once; a watcher is a position in it. A watcher that is overtaken by the ring's start must begin
//! anew. An encoded change is kept with it, so that it is encoded once for all watchers of a format.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pagurus_controlplane_store::Revision;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Cache, Cached};

/// The most changes a ring holds, and the most bytes of objects.
const MOST: usize = 8192;
const MOST_BYTES: usize = 32 << 20;
/// What a ring holds of changes that are not young any more.
const OLD: usize = 1024;
const OLD_BYTES: usize = 512 << 10;
/// How many of the newest changes are kept encoded. Whoever is further behind encodes them again.
const ENCODED: usize = 512;
/// For how long a watcher that lost its connection may take to come back.
const YOUNG: Duration = Duration::from_secs(75);
/// How many changes a cursor takes at a time.
const BATCH: usize = 64;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words")]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

impl ChangeKind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// Names one form in which a change can be encoded: chosen by the encoder, equal for equal bytes.
pub type Encoding = (ChangeKind, u64);

/// One change of one object.
#[derive(Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The object after it; for a deletion its last state, with the deletion's revision.
    pub object: Arc<Cached>,
    /// The object before it.
    pub previous: Option<Arc<Cached>>,
    at: Instant,
    encoded: Mutex<Vec<(Encoding, Bytes)>>,
}

impl Change {
    /// A change that nobody has encoded yet.
    pub fn new(kind: ChangeKind, object: Arc<Cached>, previous: Option<Arc<Cached>>) -> Self {
        Self { kind, object, previous, at: Instant::now(), encoded: Mutex::default() }
    }

    /// The bytes of the change in a form, made by `encode` the first time. Where that fails nothing is kept.
    ///
    /// # Errors
    /// Those of `encode`.
    pub fn encoded<E>(&self, form: Encoding, encode: impl FnOnce() -> Result<Bytes, E>) -> Result<Bytes, E> {
        if let Some((_, bytes)) = self.encoded.lock().iter().find(|(f, _)| *f == form) {
            return Ok(bytes.clone());
        }
        let bytes = encode()?;
        let mut encoded = self.encoded.lock();
        Ok(match encoded.iter().find(|(f, _)| *f == form) {
            Some((_, first)) => first.clone(),
            None => {
                encoded.push((form, bytes.clone()));
                bytes
            }
        })
    }
}

/// The changes since some revision.
#[derive(Debug, Default)]
pub(super) struct Ring {
    changes: VecDeque<Arc<Change>>,
    /// The number of the first change in `changes`, counted since the start of the process.
    first: u64,
    bytes: usize,
    /// All changes after this revision are here.
    since: Revision,
    /// How often all cursors were ended, and the number of the first change that those ended last are not told.
    era: u64,
    era_began: u64,
}

impl Ring {
    /// Forgets everything; the ring begins after `revision`.
    pub(super) fn restart(&mut self, revision: Revision) {
        // One number is skipped, so that no cursor can stand at the new start by accident.
        self.first = self.end() + 1;
        self.changes.clear();
        self.bytes = 0;
        self.since = revision;
    }

    /// Ends the cursors there are: what has happened until now is the last they tell.
    pub(super) fn end_cursors(&mut self) {
        (self.era, self.era_began) = (self.era + 1, self.end());
    }

    /// What tells the cursors of now from those that were ended.
    pub(super) fn era(&self) -> u64 {
        self.era
    }

    pub(super) fn push(&mut self, change: Arc<Change>) {
        self.bytes += change.object.bytes.len();
        self.changes.push_back(change);
        let old = self.changes.len().checked_sub(ENCODED + 1).and_then(|at| self.changes.get(at));
        if let Some(old) = old {
            old.encoded.lock().clear();
        }
        self.trim(Instant::now());
    }

    /// Forgets what is more than the ring holds at that time.
    pub(super) fn trim(&mut self, now: Instant) {
        while self.is_too_long(now) {
            let Some(old) = self.changes.pop_front() else { break };
            self.bytes -= old.object.bytes.len();
            self.since = old.object.revision;
            self.first += 1;
        }
    }

    fn is_too_long(&self, now: Instant) -> bool {
        let (count, bytes) = (self.changes.len(), self.bytes);
        if count > MOST || bytes > MOST_BYTES {
            return count > 1;
        }
        let old = || self.changes.front().is_some_and(|c| now.duration_since(c.at) > YOUNG);
        (count > OLD || bytes > OLD_BYTES) && old()
    }

    /// The number the next change will have.
    pub(super) fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// The number of the first change after a revision, if none after it is gone.
    pub(super) fn position_after(&self, revision: Revision) -> Option<u64> {
        if revision < self.since {
            return None;
        }
        Some(self.first + self.changes.partition_point(|c| c.object.revision <= revision) as u64)
    }

    /// Some changes from a number on, for a cursor of that era.
    fn take(&self, next: u64, era: u64) -> Result<Vec<Arc<Change>>, CursorError> {
        let most = if era == self.era { BATCH } else { self.era_began.saturating_sub(next) as usize };
        if most == 0 {
            return Err(CursorError::Ended);
        }
        let skip = next.checked_sub(self.first).and_then(|skip| usize::try_from(skip).ok());
        match skip.filter(|skip| *skip <= self.changes.len()) {
            Some(skip) => Ok(self.changes.iter().skip(skip).take(most.min(BATCH)).cloned().collect()),
            None => Err(CursorError::Overtaken),
        }
    }
}

/// Why a cursor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// The ring has overtaken it.
    #[error("too old resource version")]
    Overtaken,
    /// The cache has ended, or shows objects otherwise than before.
    #[error("the watch is over")]
    Ended,
}

/// A place in a ring.
#[derive(Debug)]
pub struct Cursor {
    cache: Arc<Cache>,
    next: u64,
    era: u64,
    told: watch::Receiver<()>,
    /// There may be more without being told.
    more: bool,
}

impl Cursor {
    pub(super) fn new(cache: Arc<Cache>, next: u64, era: u64, told: watch::Receiver<()>) -> Self {
        Self { cache, next, era, told, more: true }
    }

    /// The next changes that are told, as many as are there, at least one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Vec<Arc<Change>>, CursorError> {
        loop {
            if !self.more {
                self.told.changed().await.map_err(|_| CursorError::Ended)?;
                self.more = true;
            }
            let changes = self.ready()?;
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    /// The next changes that are there already, maybe none.
    pub fn ready(&mut self) -> Result<Vec<Arc<Change>>, CursorError> {
        self.told.mark_unchanged();
        let ring = self.cache.ring.read();
        let changes = ring.take(self.next, self.era)?;
        // That the cursor is over was told with the last changes and will not be told again.
        self.more = changes.len() == BATCH || ring.era() != self.era;
        drop(ring);
        self.next += changes.len() as u64;
        Ok(changes)
    }

    /// The cache it reads from.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }
}
