//! What can go wrong with a store, in words that name the file or the revision.

use std::{io, path::PathBuf, sync::Arc};

use crate::Revision;

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store operation failed. Cheap to clone, since one failed write may concern many callers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The revision asked for is no longer kept.
    #[error("revision {requested} has been compacted, the oldest kept is {oldest}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest that can be had.
        oldest: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future, the store is at {current}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// A watch was too slow and has been dropped; watch again from the last revision seen.
    #[error("the watch fell too far behind and was ended")]
    Lagged,
    /// An operation on a file failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The disk is full; nothing of the transaction was kept.
    #[error("no space left for {}: the write was not accepted", path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// A file is not what the store wrote.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        what: String,
    },
    /// Another process has the directory.
    #[error("{} is locked: another process uses this data directory", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The store had a fault that makes its memory and its disk differ, or was closed; it must be opened again.
    #[error("the store is closed: {0}")]
    Closed(Arc<str>),
    /// The transaction itself makes no sense.
    #[error("invalid transaction: {0}")]
    InvalidTxn(String),
}

impl Error {
    /// An I/O error with what was tried on which file.
    pub fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            return Self::DiskFull { path };
        }
        Self::Io { operation, path, source: Arc::new(source) }
    }

    /// A file that is not as it should be.
    pub fn damaged(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), what: what.into() }
    }
}
