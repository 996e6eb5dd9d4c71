//! The embedded store: one process, one directory.
//!
//! Every transaction is appended to a log and synced before it is acknowledged; what gathers during one sync goes out
//! with the next (group commit). The keys, their versions and the places of their values are in memory, the values
//! only on disk, since the readers above keep their own. Old history is forgotten, and snapshots replace old logs.
//!
//! Why an own log and not an engine from crates.io: see `controlplane/store/README.md`, with the measurement.
//! It must not know what keys and values mean.

mod directory;
mod hub;
mod index;
mod maintain;
mod record;
mod recover;
mod watch;
mod writer;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch as latch};

use crate::{
    Current, Error, Event, History, KeyValue, Past, Range, RangeResult, Result, Revision, Txn, TxnResult,
    WatchStream,
};
use directory::{DataFile, Directory};
use hub::Hub;
use index::{FileId, FoundVersion, Index, Version};
use record::WRITE_HEAD;
use recover::OpenLog;
use writer::{Request, Writer};

/// How many transactions may wait for the writer before their senders have to.
const QUEUE: usize = 8192;
/// How many keys of a range are looked up under one lock.
const CHUNK: usize = 1024;

/// What can be set.
#[derive(Clone, Debug)]
pub struct Options {
    /// For how long overwritten values can still be read and watches can still start; none: until there are too many.
    pub history: Option<Duration>,
    /// How many changes are kept at most, however young.
    pub max_history: usize,
    /// How often old history is looked for.
    pub tick: Duration,
    /// The size at which a new log file is begun.
    pub log_size: u64,
    /// For how many bytes the log's file is made ready ahead, so that a sync has less to do.
    pub prepared: usize,
    /// How many bytes of logs are worth a snapshot (or as many as the last snapshot had).
    pub snapshot_after: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: Some(Duration::from_secs(300)),
            max_history: 250_000,
            tick: Duration::from_secs(30),
            log_size: 16 << 20,
            prepared: 1 << 20,
            snapshot_after: 48 << 20,
        }
    }
}

/// What the threads and the readers share. Locks are taken in the order of the fields.
#[derive(Debug)]
struct Shared {
    options: Options,
    directory: Directory,
    /// Held while a snapshot is written.
    shrinking: Mutex<()>,
    files: Mutex<Files>,
    hub: Mutex<Hub>,
    index: RwLock<Index>,
    next_file: AtomicU32,
    state: Mutex<State>,
    changed: Condvar,
    /// Why nothing is written any more, once that is so.
    fault: latch::Sender<Option<Arc<str>>>,
}

#[derive(Debug, Default)]
struct State {
    closing: bool,
    woken: bool,
}

/// The files that are not being written.
#[derive(Debug)]
struct Files {
    sealed: Vec<OpenLog>,
    /// The first revision of the log that is being written.
    active: Revision,
    snapshot: Option<Snapshot>,
}

/// A snapshot file.
#[derive(Clone, Debug)]
struct Snapshot {
    id: FileId,
    data: DataFile,
    length: u64,
}

/// See the module's description. Dropping it closes it, after all that was asked has been done.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in a directory, which is made if it is not there. Reads everything once; blocks meanwhile.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let directory = Directory::open(path.as_ref())?;
        let mut found = recover::recover(&directory)?;
        let log = match found.logs.pop() {
            Some(log) => log,
            None => {
                let log = writer::begin_log(&directory, found.index.revision + 1, found.next_file)?;
                found.index.add_file(log.id, log.file.clone());
                found.next_file += 1;
                log
            }
        };
        let snapshot = found.snapshot.map(|(id, data, length)| Snapshot { id, data, length });
        let shared = Arc::new(Shared {
            options,
            directory,
            shrinking: Mutex::default(),
            files: Mutex::new(Files { sealed: found.logs, active: log.first, snapshot }),
            hub: Mutex::default(),
            index: RwLock::new(found.index),
            next_file: AtomicU32::new(found.next_file),
            state: Mutex::default(),
            changed: Condvar::new(),
            fault: latch::Sender::new(None),
        });
        let (requests, receiver) = mpsc::channel(QUEUE);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
            thread.map_err(|e| Error::io("start a thread for", path.as_ref(), e))
        };
        let writer = Writer::new(shared.clone(), log);
        let mut store = Self { shared: shared.clone(), requests: None, threads: Vec::new() };
        store.threads.push(spawn("store-writer", Box::new(move || writer.run(receiver)))?);
        let weak = requests.downgrade();
        store.requests = Some(requests);
        store.threads.push(spawn("store-maintain", Box::new(move || maintain::run(&shared, &weak)))?);
        Ok(store)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.shared.directory.path()
    }

    /// Resolves with the reason when the store had a fault after which it writes nothing any more: its process should end and
    /// begin anew.
    pub async fn failed(&self) -> Error {
        let mut fault = self.shared.fault.subscribe();
        let found = fault.wait_for(Option::is_some).await.ok().and_then(|fault| fault.clone());
        match found {
            Some(why) => Error::Closed(why),
            None => std::future::pending().await,
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let closed = || Error::Closed("it is shutting down".into());
        let requests = self.requests.as_ref().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        requests.send(request(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.changed.notify_all();
        self.requests = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

#[async_trait]
impl crate::Store for Store {
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>> {
        let found = {
            let index = self.shared.index.read();
            index.get(key, at.unwrap_or(index.revision))?
        };
        match found {
            None => Ok(None),
            Some((version, file)) => {
                let (shared, key) = (self.shared.clone(), key.to_owned());
                blocking(move || shared.read(&key, version, &file)).await.map(Some)
            }
        }
    }

    async fn range(&self, range: Range) -> Result<RangeResult> {
        let shared = self.shared.clone();
        blocking(move || shared.range(&range)).await
    }

    async fn history(&self, key: &str, before: Option<Revision>, limit: usize) -> Result<History> {
        let (versions, more, compacted) = {
            let index = self.shared.index.read();
            let (versions, more) = index.history_of(key, before.unwrap_or(Revision::MAX), limit);
            (versions, more, index.compacted)
        };
        let (shared, key) = (self.shared.clone(), key.to_owned());
        let read = move |found| shared.read_past(&key, found);
        let writes = blocking(move || versions.into_iter().map(read).collect::<Result<Vec<_>>>()).await?;
        Ok(History { writes, more, compacted })
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult> {
        self.ask(|reply| Request::Txn { txn, reply }).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<WatchStream> {
        watch::stream(self.shared.clone(), prefix, from)
    }

    async fn current(&self, prefix: &str) -> Result<Current> {
        let hub = self.shared.hub.lock();
        let store = self.shared.index.read().revision;
        Ok(Current { store, prefix: hub.touched(prefix).unwrap_or(store) })
    }

    async fn revision(&self) -> Result<Revision> {
        if let Some(why) = &*self.shared.fault.borrow() {
            return Err(Error::Closed(why.clone()));
        }
        Ok(self.shared.index.read().revision)
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.ask(|reply| Request::Compact { revision, reply }).await
    }
}

/// Runs file reads where they may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Closed("the runtime is shutting down".into())),
    }
}

impl Shared {
    fn next_file(&self) -> FileId {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads a value from its file.
    fn read(&self, key: &str, version: Version, file: &File) -> Result<KeyValue> {
        let mut value = vec![0; version.place.length as usize];
        file.read_exact_at(&mut value, version.place.offset)
            .map_err(|e| Error::io("read a value below", self.directory.path(), e))?;
        Ok(KeyValue {
            key: key.to_owned(),
            value: Bytes::from(value),
            create_revision: version.create_revision,
            mod_revision: version.mod_revision,
            version: version.version,
        })
    }

    /// Reads a write with its note, which its head tells of: memory does not know of notes.
    fn read_past(&self, key: &str, (version, file): FoundVersion) -> Result<Past> {
        let event = match version.version {
            0 => Event::Delete { key: key.to_owned(), mod_revision: version.mod_revision },
            _ => Event::Put(self.read(key, version, &file)?),
        };
        let read = |bytes: &mut [u8], at| {
            let error = |e| Error::io("read a note below", self.directory.path(), e);
            file.read_exact_at(bytes, at).map_err(error)
        };
        let mut head = [0; WRITE_HEAD];
        read(&mut head, version.place.offset - (key.len() + WRITE_HEAD) as u64)?;
        let mut note = Vec::new();
        if record::is_noted(&head) {
            let (mut length, at) = ([0; 4], version.place.offset + u64::from(version.place.length));
            read(&mut length, at)?;
            note.resize(u32::from_le_bytes(length) as usize, 0);
            read(&mut note, at + 4)?;
        }
        Ok(Past { event, note: note.into() })
    }

    fn read_newest(&self, key: &str) -> Result<Option<KeyValue>> {
        let found = {
            let index = self.index.read();
            index.get(key, index.revision)?
        };
        found.map(|(version, file)| self.read(key, version, &file)).transpose()
    }

    fn range(&self, range: &Range) -> Result<RangeResult> {
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut start = range.start.clone().unwrap_or_default().max(range.prefix.clone());
        let revision = range.at.unwrap_or(self.index.read().revision);
        let mut out = RangeResult { revision, ..RangeResult::default() };
        loop {
            let want = CHUNK.min(limit - out.kvs.len());
            let found = self.index.read().range(&range.prefix, &start, want, revision)?;
            for (key, version, file) in &found.items {
                out.kvs.push(self.read(key, *version, file)?);
            }
            if !found.more {
                break;
            }
            if let Some((last, ..)) = found.items.last() {
                start = format!("{last}\0");
            }
            if out.kvs.len() == limit {
                out.more = true;
                out.count = self.index.read().count(&range.prefix, &start, revision);
                break;
            }
        }
        out.count += out.kvs.len();
        Ok(out)
    }

    /// Waits for the next turn of maintenance; false when the store is being closed.
    fn pause(&self) -> bool {
        let mut state = self.state.lock();
        if !state.closing && !state.woken {
            self.changed.wait_for(&mut state, self.options.tick);
        }
        state.woken = false;
        !state.closing
    }

    fn wake_maintenance(&self) {
        self.state.lock().woken = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
