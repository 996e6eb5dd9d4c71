//! The directory of a store: who may use it, which files are in it, and making files durable. It must not know what is in a log.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::record::FORMAT;
use crate::{Error, Result, Revision};

const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
const FORMAT_WORD: &str = "pagurus-store";

/// A directory that this process has locked and that holds a store of our version.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Tells the files of this store from those of another.
    pub(super) store: u64,
    /// The lock ends with the file.
    _lock: File,
}

/// A log or snapshot file in the directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DataFile {
    pub(super) revision: Revision,
    pub(super) path: PathBuf,
}

/// The files of a store, each sort in the order of revisions.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) logs: Vec<DataFile>,
    pub(super) snapshots: Vec<DataFile>,
    /// Snapshots that were not finished.
    pub(super) unfinished: Vec<PathBuf>,
}

impl Directory {
    /// Locks the directory; an empty or absent one becomes a store, one of somebody else's is left alone.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| Error::io("create directory", path, e))?;
        refuse_foreign(path)?;
        let lock_path = path.join(LOCK_FILE);
        let lock = create(&lock_path, false)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: lock_path }),
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", lock_path, e)),
        }
        let format_path = path.join(FORMAT_FILE);
        let store = match fs::read_to_string(&format_path) {
            Ok(text) => read_format(&format_path, &text)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                refuse_foreign(path)?;
                write_format(path, &format_path)?
            }
            Err(e) => return Err(Error::io("read", format_path, e)),
        };
        Ok(Self { path: path.to_owned(), store, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in the directory.
    pub(super) fn files(&self) -> Result<Files> {
        let mut files = Files::default();
        for path in entries(&self.path)? {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let numbered = |prefix: &str, suffix: &str| {
                let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
                let revision = (digits.len() == 20).then(|| digits.parse::<Revision>().ok())??;
                Some(DataFile { revision, path: path.clone() })
            };
            if let Some(log) = numbered("log-", "") {
                files.logs.push(log);
            } else if let Some(snapshot) = numbered("snapshot-", "") {
                files.snapshots.push(snapshot);
            } else if numbered("snapshot-", ".tmp").is_some() {
                files.unfinished.push(path);
            } else if !matches!(name, FORMAT_FILE | LOCK_FILE | "format.tmp") {
                tracing::warn!(path = %path.display(), "a file in the data directory is not the store's, it is left alone");
            }
        }
        files.logs.sort();
        files.snapshots.sort();
        Ok(files)
    }

    /// The path of the log that begins with a revision.
    pub(super) fn log(&self, first: Revision) -> PathBuf {
        self.path.join(format!("log-{first:020}"))
    }

    /// The path of the snapshot of a revision.
    pub(super) fn snapshot(&self, revision: Revision) -> PathBuf {
        self.path.join(format!("snapshot-{revision:020}"))
    }

    /// The path of that snapshot while it is being written.
    pub(super) fn unfinished(&self, revision: Revision) -> PathBuf {
        self.path.join(format!("snapshot-{revision:020}.tmp"))
    }

    /// Makes the names in the directory durable.
    pub(super) fn sync(&self) -> Result<()> {
        sync_directory(&self.path)
    }
}

/// Creates or opens a file that only we may read; `new` demands that it is not there.
pub(super) fn create(path: &Path, new: bool) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .create_new(new)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| Error::io("open", path, e))
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|d| d.sync_all()).map_err(|e| Error::io("sync directory", path, e))
}

fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let error = |e| Error::io("list directory", path, e);
    fs::read_dir(path).map_err(error)?.map(|entry| entry.map(|e| e.path()).map_err(error)).collect()
}

/// A directory without a format file may hold at most what a crash right at its making leaves.
fn refuse_foreign(path: &Path) -> Result<()> {
    let entries = entries(path)?;
    let name = |p: &PathBuf| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if entries.iter().any(|p| name(p) == FORMAT_FILE) {
        return Ok(());
    }
    match entries.into_iter().find(|p| !matches!(name(p).as_str(), LOCK_FILE | "format.tmp")) {
        None => Ok(()),
        Some(foreign) => Err(Error::damaged(
            &foreign,
            "is in the way: the directory holds no store and is not empty; choose an empty directory",
        )),
    }
}

fn read_format(path: &Path, text: &str) -> Result<u64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [FORMAT_WORD, version, store] = words[..] else {
        return Err(Error::damaged(
            path,
            "does not describe a pagurus store; the directory is foreign or damaged",
        ));
    };
    if version != FORMAT.to_string() {
        let what =
            format!("the data is of another version (format {version}, this program reads format {FORMAT})");
        return Err(Error::damaged(path, what));
    }
    u64::from_str_radix(store, 16).map_err(|_| Error::damaged(path, "the store's number is damaged"))
}

fn write_format(directory: &Path, path: &Path) -> Result<u64> {
    // Any number that two stores hardly share: the hasher's keys are random.
    let store = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), directory);
    let unfinished = directory.join("format.tmp");
    let write = || {
        let mut file = File::create(&unfinished)?;
        writeln!(file, "{FORMAT_WORD} {FORMAT} {store:016x}")?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|e| Error::io("write", path, e))?;
    sync_directory(directory)?;
    Ok(store)
}
