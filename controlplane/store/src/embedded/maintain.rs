//! The thread that keeps the store small: forgets old history, and replaces old logs by a snapshot of what is still seen.
//!
//! A snapshot is the state at the compacted revision, so the logs up to it are no longer needed. It is written beside them and
//! takes their place only when it is durable; a crash in between costs nothing but the work.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::directory::{self, DataFile};
use super::index::{FileId, Place};
use super::record::{FileKind, FrameBuilder, HEADER, Header};
use super::writer::Request;
use super::{Shared, Snapshot};
use crate::{Error, Result, Revision};

/// How many keys are looked at under one lock.
const CHUNK: usize = 512;
/// How large a snapshot's frames are.
const FRAME: usize = 1 << 20;

/// Works until the store is closed.
pub(super) fn run(shared: &Arc<Shared>, requests: &mpsc::WeakSender<Request>) {
    let mut marks = VecDeque::new();
    while shared.pause() {
        let revision = shared.index.read().revision;
        let now = Instant::now();
        if marks.back().is_none_or(|(_, marked)| *marked < revision) {
            marks.push_back((now, revision));
        }
        if let Err(error) = forget(shared, requests, &mut marks, now) {
            tracing::error!(%error, "the store cannot forget old history");
        }
        if let Err(error) = shrink(shared) {
            tracing::error!(%error, "the store cannot write a snapshot, the logs stay");
        }
    }
}

/// Compacts what is older than the options say, or too much.
fn forget(
    shared: &Shared,
    requests: &mpsc::WeakSender<Request>,
    marks: &mut VecDeque<(Instant, Revision)>,
    now: Instant,
) -> Result<()> {
    let mut target = None;
    while let (Some((since, revision)), Some(history)) = (marks.front().copied(), shared.options.history)
        && now.duration_since(since) >= history
    {
        target = Some(revision);
        marks.pop_front();
    }
    let index = shared.index.read();
    marks.retain(|(_, revision)| *revision > index.compacted);
    let excess = (index.history() > shared.options.max_history)
        .then(|| index.revision_leaving(shared.options.max_history / 2))
        .flatten();
    let target = target.max(excess).filter(|t| *t > index.compacted);
    drop(index);
    let (Some(revision), Some(requests)) = (target, requests.upgrade()) else { return Ok(()) };
    let (reply, answer) = oneshot::channel();
    // Neither fails but when the store is being closed.
    if requests.blocking_send(Request::Compact { revision, reply }).is_err() {
        return Ok(());
    }
    drop(requests);
    answer.blocking_recv().unwrap_or(Ok(()))
}

/// Writes a snapshot and removes the logs before it, when the logs have grown beyond what is worth keeping.
pub(super) fn shrink(shared: &Shared) -> Result<()> {
    let _alone = shared.shrinking.lock();
    let compacted = shared.index.read().compacted;
    let (removable, old) = {
        let files = shared.files.lock();
        // A log may go when all it holds is before the revision its successor begins with, and that is compacted.
        let next = files.sealed.iter().skip(1).map(|l| l.first).chain([files.active]);
        let removable: Vec<(FileId, DataFile, u64)> = files
            .sealed
            .iter()
            .zip(next)
            .filter(|(_, next)| *next <= compacted + 1)
            .map(|(log, _)| (log.id, log.data.clone(), log.length))
            .collect();
        (removable, files.snapshot.clone())
    };
    let bytes: u64 = removable.iter().map(|(_, _, length)| length).sum();
    let worth = shared.options.snapshot_after.max(old.as_ref().map_or(0, |s| s.length));
    if removable.is_empty() || bytes < worth {
        return Ok(());
    }
    let new = write_snapshot(shared, compacted)?;
    {
        let mut files = shared.files.lock();
        files.snapshot = Some(new);
        files.sealed.retain(|log| removable.iter().all(|(id, ..)| *id != log.id));
    }
    let gone = removable.into_iter().map(|(id, data, _)| (id, data)).chain(old.map(|s| (s.id, s.data)));
    for (id, data) in gone {
        shared.index.write().remove_file(id);
        directory::remove(&data.path)?;
    }
    shared.directory.sync()
}

/// Writes the state at `revision`, which must not be before the compacted one, and moves the index's places into it.
fn write_snapshot(shared: &Shared, revision: Revision) -> Result<Snapshot> {
    let (path, unfinished) = (shared.directory.snapshot(revision), shared.directory.unfinished(revision));
    directory::remove(&unfinished)?;
    let file = Arc::new(directory::create(&unfinished, true)?);
    let written = write_keys(shared, revision, &file).map_err(|e| match e {
        Failed::Io(e) => Error::io("write", &unfinished, e),
        Failed::Store(e) => e,
    });
    let (places, length) = match written {
        Ok(done) => done,
        Err(error) => {
            directory::remove(&unfinished)?;
            return Err(error);
        }
    };
    std::fs::rename(&unfinished, &path).map_err(|e| Error::io("rename", &unfinished, e))?;
    shared.directory.sync()?;
    let id = shared.next_file();
    shared.index.write().add_file(id, file);
    for chunk in places.chunks(CHUNK) {
        let mut index = shared.index.write();
        for (key, mod_revision, place) in chunk {
            index.move_to(key, *mod_revision, Place { file: id, ..*place });
        }
    }
    Ok(Snapshot { id, data: DataFile { revision, path }, length })
}

enum Failed {
    Io(std::io::Error),
    Store(Error),
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

type Places = Vec<(Arc<str>, Revision, Place)>;

/// Writes header, keys and end, and syncs. Returns where each value lies (the file's number still open) and the length.
fn write_keys(shared: &Shared, revision: Revision, file: &File) -> Result<(Places, u64), Failed> {
    let mut out = BufWriter::with_capacity(FRAME, file);
    let header = Header { kind: FileKind::Snapshot, store: shared.directory.store, revision };
    out.write_all(&header.encode())?;
    let (mut offset, mut places, mut frame) = (HEADER as u64, Places::new(), FrameBuilder::default());
    let mut start = String::new();
    let mut framed = 0;
    loop {
        // If somebody compacts meanwhile this fails, and the next turn tries again.
        let found = shared.index.read().range("", &start, CHUNK, revision).map_err(Failed::Store)?;
        for (key, version, source) in &found.items {
            let mut value = vec![0; version.place.length as usize];
            source.read_exact_at(&mut value, version.place.offset)?;
            frame.key();
            let (created, changed) = (version.create_revision, version.mod_revision);
            let at = frame.write(key, created, changed, version.version, &value, b"");
            let place = Place { file: 0, length: version.place.length, offset: offset + at as u64 };
            places.push((key.clone(), changed, place));
            if frame.len() >= FRAME {
                let bytes = std::mem::take(&mut frame).finish();
                out.write_all(&bytes)?;
                offset += bytes.len() as u64;
                framed += 1;
            }
        }
        let Some((last, ..)) = found.items.last() else { break };
        start = format!("{last}\0");
    }
    frame.end(places.len() as u64);
    let bytes = frame.finish();
    out.write_all(&bytes)?;
    offset += bytes.len() as u64;
    out.flush()?;
    drop(out);
    file.sync_all()?;
    tracing::debug!(revision, keys = places.len(), frames = framed + 1, bytes = offset, "snapshot written");
    Ok((places, offset))
}
