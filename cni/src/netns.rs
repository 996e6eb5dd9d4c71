//! Working in another network namespace: on a thread of its own, so that no other thread is ever in the wrong one.
//!
//! Must not know: what is done there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, fstatfs};

/// Magic number of the file system of namespaces.
const NSFS: FsType = FsType(0x6e73_6673);

/// Why a namespace cannot be worked in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened.
    #[error("open network namespace {path}")]
    Open {
        /// Where it should be.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is something else, for instance what a mount that has gone left behind.
    #[error("{path} is not a network namespace")]
    Other {
        /// The file.
        path: String,
    },
    /// It cannot be entered.
    #[error("enter the network namespace")]
    Enter(#[source] io::Error),
}

/// An open network namespace.
#[derive(Debug)]
pub struct NetNs(File);

impl NetNs {
    /// Opens a namespace by its path; none if there is none.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        let display = || path.display().to_string();
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Open { path: display(), source }),
        };
        let system = fstatfs(&file).map_err(|errno| Error::Open { path: display(), source: errno.into() })?;
        if system.filesystem_type() != NSFS {
            return Err(Error::Other { path: display() });
        }
        Ok(Some(Self(file)))
    }

    /// Runs something in the namespace and returns what it returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Enter(errno.into()))?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
