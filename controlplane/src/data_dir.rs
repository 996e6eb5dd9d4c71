//! The data directory: made, recognized, locked. What is in it besides the version file is its users' business.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The form of the directory that this program reads and writes.
const FORMAT: &str = "pagurus-controlplane 1";
const VERSION_FILE: &str = "version";
const LOCK_FILE: &str = "lock";

/// A data directory that this process alone uses.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
    /// The directories that were not there before.
    made: Vec<PathBuf>,
    /// It held nothing before.
    fresh: bool,
}

impl DataDir {
    /// Makes the directory if need be, checks that it is ours, and locks it until drop.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let made = path.ancestors().take_while(|above| !above.exists()).map(Path::to_owned).collect();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make data directory {shown}"))?;
        check_format(path)?;
        let lock_path = path.join(LOCK_FILE);
        let lock =
            OpenOptions::new().create(true).append(true).mode(0o600).open(&lock_path).with_context(|| {
                format!("cannot write in data directory {shown}: open {}", lock_path.display())
            })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                bail!(
                    "data directory {shown} is in use by another control plane; stop it or choose another --data-dir"
                )
            }
            Err(fs::TryLockError::Error(e)) => {
                return Err(e).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        }
        let fresh = !path.join(VERSION_FILE).exists();
        let this = Self { path: path.to_owned(), _lock: lock, made, fresh };
        if fresh {
            let written = write_file(&path.join(VERSION_FILE), format!("{FORMAT}\n").as_bytes(), 0o644);
            return this.or_undo(written).map(|(this, ())| this);
        }
        Ok(this)
    }

    /// Itself and the outcome if that is good; else a directory that was new is taken away again, for half of one would be neither.
    pub fn or_undo<T>(self, outcome: Result<T>) -> Result<(Self, T)> {
        let error = match outcome {
            Ok(value) => return Ok((self, value)),
            Err(error) => error,
        };
        if self.fresh {
            // What was written here is a handful of files and the directory of keys; what cannot be removed was not made by us.
            for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
                let path = entry.path();
                let _ = if path.is_dir() && path.ends_with("pki") {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
            }
            for directory in &self.made {
                let _ = fs::remove_dir(directory);
            }
        }
        Err(error)
    }

    /// Checks that the directory is ours, without locking or changing it.
    pub fn check(path: &Path) -> Result<()> {
        if !path.join(VERSION_FILE).exists() {
            bail!(
                "{} is no data directory of pagurus-controlplane: it has no file \"{VERSION_FILE}\"",
                path.display()
            );
        }
        check_format(path)
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// An empty directory is ours to take; any other must say that it is ours and of our form.
fn check_format(path: &Path) -> Result<()> {
    let shown = path.display();
    match fs::read_to_string(path.join(VERSION_FILE)) {
        Ok(found) if found.trim_end() == FORMAT => Ok(()),
        Ok(found) => bail!(
            "data directory {shown} has the form \"{}\" and this program reads only \"{FORMAT}\": {} says so; use the program that wrote it or choose another --data-dir",
            found.lines().next().unwrap_or_default().chars().take(60).collect::<String>(),
            path.join(VERSION_FILE).display()
        ),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let mut entries =
                fs::read_dir(path).with_context(|| format!("cannot read data directory {shown}"))?;
            let foreign = entries.find_map(|entry| {
                let name = entry.ok()?.file_name();
                let ours =
                    name == LOCK_FILE || name == "lost+found" || name.to_string_lossy().starts_with(".tmp-");
                (!ours).then_some(name)
            });
            match foreign {
                None => Ok(()),
                Some(name) => bail!(
                    "data directory {shown} belongs to something else: it holds \"{}\" and no file \"{VERSION_FILE}\"; choose another --data-dir",
                    name.to_string_lossy()
                ),
            }
        }
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.join(VERSION_FILE).display())),
    }
}

/// Writes a file whole or not at all, and makes it last.
pub fn write_file(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let dir = path.parent().with_context(|| format!("{} has no directory", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".tmp-{name}"));
    let write = || -> std::io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    };
    match write() {
        Err(e) if e.kind() == ErrorKind::StorageFull => {
            // The little that was written is not kept either.
            let _ = fs::remove_file(&temporary);
            bail!("cannot write {}: the disk is full; make room or choose another --data-dir", path.display())
        }
        written => written.with_context(|| format!("cannot write {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_directory_is_taken_and_locked() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("a/b");
        let first = DataDir::open(&path).expect("new");
        let error = DataDir::open(&path).expect_err("locked").to_string();
        assert!(error.contains("in use by another"), "{error}");
        drop(first);
        DataDir::open(&path).expect("again");
    }

    #[test]
    fn foreign_directories_are_refused() {
        let rows = [
            ("etcd.db", "x", "belongs to something else: it holds \"etcd.db\""),
            ("version", "pagurus-controlplane 9\n", "has the form \"pagurus-controlplane 9\""),
        ];
        for (name, contents, want) in rows {
            let dir = tempfile::tempdir().expect("tempdir");
            fs::write(dir.path().join(name), contents).expect("write");
            let error = DataDir::open(dir.path()).expect_err("foreign").to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn what_was_begun_is_taken_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let begin = |path: &Path| {
            let opened = DataDir::open(path).expect("opened");
            fs::create_dir_all(path.join("pki")).expect("directory");
            fs::write(path.join("pki/ca.key"), "").expect("write");
            let error =
                opened.or_undo::<()>(Err(anyhow::anyhow!("no room"))).expect_err("failed").to_string();
            assert_eq!(error, "no room");
        };
        begin(&dir.path().join("a/b"));
        assert!(!dir.path().join("a").exists(), "new directories go");
        let given = dir.path().join("given");
        fs::create_dir(&given).expect("directory");
        begin(&given);
        assert_eq!(fs::read_dir(&given).expect("stays").count(), 0);
        drop(DataDir::open(&given).expect("made"));
        begin(&given);
        assert!(given.join("version").exists(), "one that was there before is not touched");
    }

    #[test]
    fn file_in_the_way() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("f");
        fs::write(&path, "").expect("write");
        let error = format!("{:#}", DataDir::open(&path).expect_err("a file"));
        assert!(error.contains("cannot make data directory"), "{error}");
    }
}
