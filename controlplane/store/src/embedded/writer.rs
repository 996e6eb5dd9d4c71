//! The one thread that writes: takes what transactions have gathered while the last ones were being synced, decides each, writes
//! them as one frame, syncs, and only then lets anybody see them.
//!
//! A write that fails is cut off again and answered with the error; if even that fails the store closes itself, since
//! memory and disk may no longer agree.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::directory::{self, DataFile};
use super::index::{FileId, Place, Version};
use super::record::{FileKind, FrameBuilder, HEADER, Header, NewValue};
use super::recover::OpenLog;
use crate::{Error, Event, KeyValue, Op, Result, Revision, Txn, TxnResult};

/// At most this many transactions or bytes go into one frame.
const BATCH: usize = 4096;
const BATCH_BYTES: usize = 8 << 20;

/// What the thread is asked to do.
pub(super) enum Request {
    Txn { txn: Txn, reply: oneshot::Sender<Result<TxnResult>> },
    Compact { revision: Revision, reply: oneshot::Sender<Result<()>> },
}

/// See the module's description.
pub(super) struct Writer {
    shared: Arc<Shared>,
    log: OpenLog,
    closed: Option<Arc<str>>,
}

/// Ends the watches when the thread ends, and tells of a fault if it did not mean to.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.hub.lock().close();
        if std::thread::panicking() {
            self.0.fault.send_replace(Some("its writer panicked; start it again".into()));
        }
    }
}

/// A batch on its way to the disk.
#[derive(Default)]
struct Group {
    frame: FrameBuilder,
    writes: Vec<NewValue>,
    /// The newest versions of the keys written in this batch: (create, mod, version).
    newest: HashMap<Arc<str>, (Revision, Revision, u64), foldhash::fast::RandomState>,
    replies: Vec<Reply>,
    revision: Revision,
    compact: Option<Revision>,
}

enum Reply {
    Txn { result: TxnResult, otherwise: Vec<String>, reply: oneshot::Sender<Result<TxnResult>> },
    Compact(oneshot::Sender<Result<()>>),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, log: OpenLog) -> Self {
        Self { shared, log, closed: None }
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let _ending = Ending(self.shared.clone());
        while let Some(first) = requests.blocking_recv() {
            if let Some(why) = &self.closed {
                first.fail(&Error::Closed(why.clone()));
                continue;
            }
            let mut group = Group { revision: self.shared.index.read().revision, ..Group::default() };
            self.admit(&mut group, first);
            while group.replies.len() < BATCH && group.frame.len() < BATCH_BYTES {
                let Ok(next) = requests.try_recv() else { break };
                self.admit(&mut group, next);
            }
            self.commit(group);
        }
        trim(&self.log);
    }

    /// Decides one request and adds what it writes to the batch.
    fn admit(&self, group: &mut Group, request: Request) {
        match request {
            Request::Txn { txn, reply } => match check(&txn) {
                Ok(()) => {
                    let result = self.decide(group, &txn);
                    group.replies.push(Reply::Txn { result, otherwise: txn.otherwise, reply });
                }
                // The asker may be gone; then nobody misses the answer.
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Compact { revision, reply } => {
                let compacted = self.shared.index.read().compacted;
                if revision > group.revision {
                    let error = Error::Future { requested: revision, current: group.revision };
                    return drop(reply.send(Err(error)));
                }
                if revision > compacted && group.compact.is_none_or(|c| c < revision) {
                    group.frame.compacted(revision);
                    group.compact = Some(revision);
                }
                group.replies.push(Reply::Compact(reply));
            }
        }
    }

    fn decide(&self, group: &mut Group, txn: &Txn) -> TxnResult {
        let index = self.shared.index.read();
        let newest = |group: &Group, key: &str| match group.newest.get(key) {
            Some(written) => Some(*written).filter(|(_, _, version)| *version > 0),
            None => index.newest(key).map(|v| (v.create_revision, v.mod_revision, v.version)),
        };
        let holds = txn
            .compares
            .iter()
            .all(|c| newest(group, &c.key).map_or(0, |(_, revision, _)| revision) == c.mod_revision);
        if !holds {
            return TxnResult { committed: false, revision: group.revision, found: Vec::new() };
        }
        let writes =
            |group: &Group, op: &Op| matches!(op, Op::Put { .. }) || newest(group, op.key()).is_some();
        // A key is written once in a transaction, so what one operation does is nothing to the others.
        let count = txn.ops.iter().filter(|op| writes(group, op)).count();
        if count == 0 {
            return TxnResult { committed: true, revision: group.revision, found: Vec::new() };
        }
        let revision = group.revision + 1;
        group.revision = revision;
        group.frame.txn(revision, count);
        for op in &txn.ops {
            if !writes(group, op) {
                continue;
            }
            let key = op.key();
            let (created, version, value) = match op {
                Op::Put { value, .. } => {
                    let (created, _, version) = newest(group, key).unwrap_or((revision, 0, 0));
                    (created, version + 1, value.clone())
                }
                Op::Delete { .. } => (0, 0, bytes::Bytes::new()),
            };
            let at = group.frame.write(key, created, revision, version, &value, &txn.note);
            let key: Arc<str> = Arc::from(key);
            group.newest.insert(key.clone(), (created, revision, version));
            let write =
                NewValue { key, create_revision: created, mod_revision: revision, version, value, at };
            group.writes.push(write);
        }
        TxnResult { committed: true, revision, found: Vec::new() }
    }

    /// Writes and syncs the batch, shows it to readers and watches, and answers.
    fn commit(&mut self, mut group: Group) {
        let frame = std::mem::take(&mut group.frame);
        if !frame.is_empty() {
            match self.write(&frame.finish()) {
                Ok(offset) => self.publish(&group, offset),
                Err(error) => {
                    tracing::error!(%error, "the store cannot write");
                    return group.replies.into_iter().for_each(|reply| reply.fail(&error));
                }
            }
        }
        for reply in group.replies {
            match reply {
                Reply::Compact(reply) => drop(reply.send(Ok(()))),
                Reply::Txn { mut result, otherwise, reply } => {
                    if !result.committed {
                        let found = otherwise.iter().map(|key| self.shared.read_newest(key));
                        match found.collect::<Result<Vec<_>>>() {
                            Ok(found) => result.found = found,
                            Err(error) => {
                                drop(reply.send(Err(error)));
                                continue;
                            }
                        }
                    }
                    drop(reply.send(Ok(result)));
                }
            }
        }
        if self.log.length > self.shared.options.log_size
            && let Err(error) = self.rotate()
        {
            // The old log goes on; the next batch tries again.
            tracing::error!(%error, "the store cannot begin a new log");
        }
    }

    /// Appends a frame, durably. Returns where it begins.
    fn write(&mut self, frame: &[u8]) -> Result<u64> {
        let (offset, end) = (self.log.length, self.log.length + frame.len() as u64);
        let written = self.log.file.write_all_at(frame, offset);
        let written = written.and_then(|()| self.prepare(end)).map_err(|e| self.error("write", e));
        let written = written.and_then(|()| self.log.file.sync_data().map_err(|e| self.error("sync", e)));
        let Err(error) = written else {
            self.log.length = end;
            return Ok(offset);
        };
        // Nothing of the frame may come back after a restart, since its writers hear that it failed.
        let undone = self.log.file.set_len(offset).and_then(|()| self.log.file.sync_all());
        self.log.prepared = offset;
        if !matches!(error, Error::DiskFull { .. }) || undone.is_err() {
            self.close(&error);
        }
        Err(error)
    }

    fn error(&self, what: &'static str, error: std::io::Error) -> Error {
        Error::io(what, &self.log.data.path, error)
    }

    /// Fills the log with zeros for some way beyond `end`, if it ends before that: a sync of what only replaces other bytes need not
    /// change the file's length and place on the disk, which costs a file system with a journal (ext4, XFS) a second write and flush.
    fn prepare(&mut self, end: u64) -> std::io::Result<()> {
        if end <= self.log.prepared {
            return Ok(());
        }
        let zeros = vec![0; self.shared.options.prepared];
        self.log.prepared = end + zeros.len() as u64;
        match self.log.file.write_all_at(&zeros, end) {
            Ok(()) => Ok(()),
            // No room for zeros; what matters may still fit.
            Err(_) => {
                self.log.prepared = end;
                self.log.file.set_len(end)
            }
        }
    }

    /// Writes nothing any more: what is on the disk and what is in memory may differ.
    fn close(&mut self, error: &Error) {
        let why: Arc<str> = format!("{error}; start it again").into();
        self.closed = Some(why.clone());
        self.shared.fault.send_replace(Some(why));
    }

    fn publish(&self, group: &Group, offset: u64) {
        let events: Vec<Event> = group.writes.iter().map(event).collect();
        let mut hub = self.shared.hub.lock();
        let mut index = self.shared.index.write();
        for write in &group.writes {
            let length = write.value.len() as u32;
            let place = Place { file: self.log.id, length, offset: offset + write.at as u64 };
            let version = Version {
                create_revision: write.create_revision,
                mod_revision: write.mod_revision,
                version: write.version,
                place,
            };
            index.apply(write.key.clone(), version);
        }
        if let Some(revision) = group.compact {
            index.compact(revision);
        }
        drop(index);
        hub.publish(&events);
    }

    /// Begins a new log file.
    fn rotate(&mut self) -> Result<()> {
        let (first, id) = (self.shared.index.read().revision + 1, self.shared.next_file());
        if first == self.log.first {
            return Ok(());
        }
        let old = std::mem::replace(&mut self.log, begin_log(&self.shared.directory, first, id)?);
        trim(&old);
        self.shared.index.write().add_file(id, self.log.file.clone());
        let mut files = self.shared.files.lock();
        files.sealed.push(old);
        files.active = first;
        drop(files);
        self.shared.wake_maintenance();
        Ok(())
    }
}

/// Cuts off what was prepared and not used. A log that keeps it is whole too.
fn trim(log: &OpenLog) {
    if log.prepared > log.length
        && let Err(error) = log.file.set_len(log.length)
    {
        tracing::warn!(path = %log.data.path.display(), %error, "the unused end of a log cannot be cut off");
    }
}

/// Makes a log file whose first revision will be `first`.
pub(super) fn begin_log(directory: &directory::Directory, first: Revision, id: FileId) -> Result<OpenLog> {
    let path: PathBuf = directory.log(first);
    let file = directory::create(&path, false)?;
    let header = Header { kind: FileKind::Log, store: directory.store, revision: first };
    let write = |file: &File| {
        file.set_len(0)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()
    };
    if let Err(e) = write(&file) {
        // Half a log must not be taken for the store's newest one.
        directory::remove(&path)?;
        return Err(Error::io("write", path, e));
    }
    directory.sync()?;
    let data = DataFile { revision: first, path };
    let length = HEADER as u64;
    Ok(OpenLog { id, first, file: Arc::new(file), data, length, prepared: length })
}

fn event(write: &NewValue) -> Event {
    if write.version == 0 {
        return Event::Delete { key: write.key.to_string(), mod_revision: write.mod_revision };
    }
    Event::Put(KeyValue {
        key: write.key.to_string(),
        value: write.value.clone(),
        create_revision: write.create_revision,
        mod_revision: write.mod_revision,
        version: write.version,
    })
}

fn check(txn: &Txn) -> Result<()> {
    let invalid = |what: String| Err(Error::InvalidTxn(what));
    if txn.note.len() > 1 << 16 {
        return invalid(format!("a note of {} bytes", txn.note.len()));
    }
    for (at, op) in txn.ops.iter().enumerate() {
        let key = op.key();
        if key.is_empty() || key.len() > 1 << 16 {
            return invalid(format!("a key of {} bytes", key.len()));
        }
        if let Op::Put { value, .. } = op
            && value.len() > 64 << 20
        {
            return invalid(format!("the value of {key} has {} bytes", value.len()));
        }
        if txn.ops[..at].iter().any(|other| other.key() == key) {
            return invalid(format!("{key} is written twice"));
        }
    }
    Ok(())
}

impl Reply {
    fn fail(self, error: &Error) {
        match self {
            Self::Txn { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Compact(reply) => drop(reply.send(Err(error.clone()))),
        }
    }
}

impl Request {
    fn fail(self, error: &Error) {
        match self {
            Self::Txn { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Compact { reply, .. } => drop(reply.send(Err(error.clone()))),
        }
    }
}
