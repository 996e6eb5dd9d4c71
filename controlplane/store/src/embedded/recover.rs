//! From the files of a directory to the index: the newest snapshot, then the logs after it.
//!
//! Only the end of the last log may be unfinished; it is cut. Anything else that is not as it was written is refused.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::directory::{self, DataFile, Directory};
use super::index::{FileId, Index, Place, Version};
use super::record::{self, FRAME_HEAD, FileKind, HEADER, Header, Record, Written};
use crate::{Error, Result, Revision};

/// A log file that is open.
#[derive(Debug)]
pub(super) struct OpenLog {
    pub(super) id: FileId,
    pub(super) first: Revision,
    pub(super) file: Arc<File>,
    pub(super) data: DataFile,
    /// Everything before this is written and synced.
    pub(super) length: u64,
    /// Up to here there are zeros to be replaced.
    pub(super) prepared: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    /// All logs, the one to append to last.
    pub(super) logs: Vec<OpenLog>,
    pub(super) snapshot: Option<(FileId, DataFile, u64)>,
    pub(super) next_file: FileId,
}

/// Reads everything.
pub(super) fn recover(directory: &Directory) -> Result<Recovered> {
    let files = directory.files()?;
    for path in &files.unfinished {
        directory::remove(path)?;
    }
    let mut out = Recovered { index: Index::new(), logs: Vec::new(), snapshot: None, next_file: 0 };
    if let Some((newest, older)) = files.snapshots.split_last() {
        load_snapshot(directory, newest, &mut out)?;
        for old in older {
            directory::remove(&old.path)?;
        }
    }
    let start = out.index.revision;
    // A log whose successor begins at or before the snapshot's next revision holds nothing new.
    let needed = files.logs.iter().rposition(|log| log.revision <= start + 1).unwrap_or(0);
    for old in &files.logs[..needed] {
        directory::remove(&old.path)?;
    }
    let logs = &files.logs[needed..];
    if let Some(first) = logs.first()
        && first.revision > start + 1
    {
        return Err(missing(directory, start + 1));
    }
    if logs.is_empty() && out.snapshot.is_some() {
        return Err(missing(directory, start + 1));
    }
    for (at, log) in logs.iter().enumerate() {
        load_log(directory, log, at + 1 == logs.len(), start, &mut out)?;
    }
    Ok(out)
}

fn missing(directory: &Directory, revision: Revision) -> Error {
    Error::damaged(
        directory.log(revision),
        "the log with this revision is missing; restore the data directory from a copy",
    )
}

fn damaged(path: &Path, at: u64, what: &str) -> Error {
    Error::damaged(path, format!("{what} at byte {at}; restore the data directory from a copy"))
}

fn open(directory: &Directory, kind: FileKind, data: &DataFile) -> Result<(File, u64)> {
    let file = directory::create(&data.path, false)?;
    let length = file.metadata().map_err(|e| Error::io("examine", &data.path, e))?.len();
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)
        .map_err(|e| Error::damaged(&data.path, format!("the header cannot be read: {e}")))?;
    let header = Header::decode(kind, &header).map_err(|what| Error::damaged(&data.path, what))?;
    if header.store != directory.store {
        return Err(Error::damaged(&data.path, "belongs to another store"));
    }
    if header.revision != data.revision {
        return Err(Error::damaged(&data.path, format!("was written as revision {}", header.revision)));
    }
    Ok((file, length))
}

/// Calls `each` with every whole frame and its place; returns where the whole frames end.
fn frames(
    file: &File,
    path: &Path,
    length: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let error = |e| Error::io("read", path, e);
    std::io::Seek::seek(&mut reader, std::io::SeekFrom::Start(HEADER as u64)).map_err(error)?;
    let (mut at, mut frame) = (HEADER as u64, Vec::new());
    while at + FRAME_HEAD as u64 <= length {
        frame.resize(FRAME_HEAD, 0);
        reader.read_exact(&mut frame).map_err(error)?;
        let Some(whole) = record::frame_length(&frame) else { break };
        if at + whole as u64 > length {
            break;
        }
        frame.resize(whole, 0);
        reader.read_exact(&mut frame[FRAME_HEAD..]).map_err(error)?;
        if !record::is_frame(&frame) {
            break;
        }
        each(at, &frame)?;
        at += whole as u64;
    }
    Ok(at)
}

fn version(written: &Written, file: FileId, frame: u64) -> Version {
    let place = Place { file, length: written.value.1 as u32, offset: frame + written.value.0 as u64 };
    Version {
        create_revision: written.create_revision,
        mod_revision: written.mod_revision,
        version: written.version,
        place,
    }
}

fn load_snapshot(directory: &Directory, data: &DataFile, out: &mut Recovered) -> Result<()> {
    let (file, length) = open(directory, FileKind::Snapshot, data)?;
    let id = out.next_file;
    let (mut keys, mut ended) = (0, None);
    let end = frames(&file, &data.path, length, |at, frame| {
        for record in record::records(frame).ok_or_else(|| damaged(&data.path, at, "unreadable records"))? {
            match record {
                Record::Key(written) => {
                    keys += 1;
                    let version = version(&written, id, at);
                    out.index.load(written.key.into(), version);
                }
                Record::End(count) => ended = Some(count),
                Record::Txn(..) | Record::Compacted(_) => {
                    return Err(damaged(&data.path, at, "a record that does not belong here"));
                }
            }
        }
        Ok(())
    })?;
    if ended != Some(keys) || end != length {
        return Err(damaged(&data.path, end, "the snapshot is damaged"));
    }
    out.index.revision = data.revision;
    out.index.compacted = data.revision;
    out.index.add_file(id, Arc::new(file));
    out.snapshot = Some((id, data.clone(), length));
    out.next_file += 1;
    Ok(())
}

fn load_log(
    directory: &Directory,
    data: &DataFile,
    last: bool,
    start: Revision,
    out: &mut Recovered,
) -> Result<()> {
    let length = std::fs::metadata(&data.path).map_err(|e| Error::io("examine", &data.path, e))?.len();
    let unmade =
        length < HEADER as u64 || (length == HEADER as u64 && open(directory, FileKind::Log, data).is_err());
    if last && unmade && data.revision == out.index.revision + 1 {
        // The crash came while the file was being made; nothing in it was ever acknowledged.
        tracing::warn!(path = %data.path.display(), "a log without its header is removed");
        return directory::remove(&data.path);
    }
    let (file, length) = open(directory, FileKind::Log, data)?;
    if data.revision > out.index.revision + 1 {
        return Err(missing(directory, out.index.revision + 1));
    }
    let id = out.next_file;
    let index = &mut out.index;
    let end = frames(&file, &data.path, length, |at, frame| {
        let records = record::records(frame).ok_or_else(|| damaged(&data.path, at, "unreadable records"))?;
        for record in records {
            match record {
                Record::Txn(revision, _) if revision <= start => {}
                Record::Txn(revision, writes) if revision == index.revision + 1 => {
                    index.revision = revision;
                    for written in writes {
                        let version = version(&written, id, at);
                        index.apply(written.key.into(), version);
                    }
                }
                Record::Compacted(revision) => {
                    if revision > index.compacted {
                        index.compact(revision.min(index.revision));
                    }
                }
                Record::Txn(revision, _) => {
                    let what = format!("revision {revision} follows {}", index.revision);
                    return Err(damaged(&data.path, at, &what));
                }
                Record::Key(_) | Record::End(_) => {
                    return Err(damaged(&data.path, at, "a record that does not belong here"));
                }
            }
        }
        Ok(())
    })?;
    let prepared = if end < length { cut(&file, &data.path, end, length, last)? } else { end };
    let file = Arc::new(file);
    out.index.add_file(id, file.clone());
    out.logs.push(OpenLog { id, first: data.revision, file, data: data.clone(), length: end, prepared });
    out.next_file += 1;
    Ok(())
}

/// Cuts off what a crash left at the end of the last log; zeros that were prepared stay. A whole frame behind the bad place means
/// that this is no unfinished end: what lies between was acknowledged once. Returns where the file ends then.
fn cut(file: &File, path: &Path, end: u64, length: u64, last: bool) -> Result<u64> {
    let mut rest = vec![0; usize::try_from(length - end).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut rest, end).map_err(|e| Error::io("read", path, e))?;
    if rest.iter().all(|byte| *byte == 0) {
        return Ok(length);
    }
    if !last || record::find_frame(&rest[1..]).is_some() {
        return Err(damaged(path, end, "the log is damaged"));
    }
    tracing::warn!(path = %path.display(), at = end, bytes = length - end, "the unfinished end of the log is cut off");
    file.set_len(end).and_then(|()| file.sync_all()).map_err(|e| Error::io("cut", path, e))?;
    Ok(end)
}
