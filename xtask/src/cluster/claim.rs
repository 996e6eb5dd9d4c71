//! Whose a cluster's name is: namespaces and cgroups belong to the machine, not to a checkout, so a note outside every checkout says
//! which one made them. The note is also the lock under which `up` and `down` of one name work one after the other.
//!
//! The notes lie in /run, which a reboot empties like everything else that a cluster has outside its directory.

use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where the notes are.
const DIRECTORY: &str = "/run/pagurus-clusters";

/// The name of a cluster, held by this process until it ends or lets go.
pub struct Claim {
    name: String,
    path: PathBuf,
    file: File,
    /// The directory of the cluster, as noted by the command that made it.
    owner: Option<PathBuf>,
}

/// What a note means for a checkout.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody's.
    Free,
    /// This checkout's.
    Ours,
    /// Another checkout's, which is still there.
    Others(PathBuf),
    /// Another checkout's, which is gone: nobody else can remove what it left.
    Orphaned(PathBuf),
}

fn standing(owner: Option<&Path>, own: &Path, exists: impl Fn(&Path) -> bool) -> Standing {
    match owner {
        None => Standing::Free,
        Some(owner) if owner == own => Standing::Ours,
        Some(owner) if exists(owner) => Standing::Others(owner.to_owned()),
        Some(owner) => Standing::Orphaned(owner.to_owned()),
    }
}

impl Claim {
    /// Waits for other commands that work on the cluster, saying so.
    pub fn take(name: &str) -> Result<Self> {
        std::fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot create {DIRECTORY}"))?;
        let path = Path::new(DIRECTORY).join(name);
        loop {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    println!("another command works on cluster {name}; waiting for it");
                    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            // `down` removes the file under its lock: what we waited for may not be there any more.
            let here = path.metadata().map(|m| (m.dev(), m.ino())).ok();
            if here != file.metadata().map(|m| (m.dev(), m.ino())).ok() {
                continue;
            }
            let mut text = Vec::new();
            file.read_to_end(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
            let owner = (!text.is_empty()).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(&text)));
            return Ok(Self { name: name.to_owned(), path, file, owner });
        }
    }

    /// What the note means for the cluster directory `own`.
    pub fn standing(&self, own: &Path) -> Standing {
        standing(self.owner.as_deref(), own, Path::exists)
    }

    /// Refuses a name that another checkout has.
    pub fn check(&self, own: &Path) -> Result<()> {
        if let Standing::Others(owner) = self.standing(own) {
            bail!(
                "this machine has a cluster {0} of another checkout ({1}); choose another --name, or remove it there with `cargo xtask down --name {0}`",
                self.name,
                owner.display()
            );
        }
        Ok(())
    }

    /// Notes the directory that the name now belongs to.
    pub fn keep(&mut self, own: &Path) -> Result<()> {
        self.file
            .rewind()
            .and_then(|()| self.file.set_len(0))
            .and_then(|()| self.file.write_all(own.as_os_str().as_bytes()))
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.owner = Some(own.to_owned());
        Ok(())
    }

    /// Gives the name back.
    pub fn release(mut self) {
        self.owner = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.owner.is_none() {
            // Removed under the lock, so that nobody holds a file that is not the note. The directory goes with the last one.
            let _ = std::fs::remove_file(&self.path);
            let _ = std::fs::remove_dir(DIRECTORY);
        }
    }
}

/// Whether clusters of any checkout are noted.
pub fn any() -> bool {
    Path::new(DIRECTORY).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standings() {
        let check = |owner: Option<&str>, exists: bool, expected: Standing| {
            let got = standing(owner.map(Path::new), Path::new("/a/.pagurus/x"), |_| exists);
            assert_eq!(got, expected);
        };
        check(None, false, Standing::Free);
        check(Some("/a/.pagurus/x"), true, Standing::Ours);
        check(Some("/a/.pagurus/x"), false, Standing::Ours);
        check(Some("/b/.pagurus/x"), true, Standing::Others("/b/.pagurus/x".into()));
        check(Some("/b/.pagurus/x"), false, Standing::Orphaned("/b/.pagurus/x".into()));
    }
}
