//! A small disk that only one thread and what it starts can see, and that a test fills up.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Where it is.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

/// Runs `body` on a thread of its own with a disk of so many bytes, in a mount namespace of that thread; says why not where that is not
/// allowed.
///
/// # Errors
/// Those of `body`, or the disk cannot be made.
pub fn with_disk(bytes: u64, body: impl FnOnce(&Disk) -> Result<()> + Send) -> Result<()> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            match unshare(CloneFlags::CLONE_NEWNS) {
                Ok(()) => {}
                Err(nix::errno::Errno::EPERM) => {
                    println!("SKIPPED: a mount namespace needs root");
                    return Ok(());
                }
                Err(error) => return Err(error).context("a mount namespace of our own"),
            }
            let (none, folder) = (None::<&str>, tempfile::tempdir().context("a directory for the disk")?);
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
                .context("make mounts private")?;
            let options = format!("size={bytes}");
            mount(Some("disk"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
                .context("mount the disk")?;
            let disk = Disk { path: folder.path().to_owned() };
            let done = body(&disk);
            // What still uses it goes with the thread.
            umount2(&disk.path, MntFlags::MNT_DETACH).context("unmount the disk")?;
            done
        });
        thread.join().unwrap_or_else(|_| bail!("the thread of the disk panicked"))
    })
}

impl Disk {
    /// Where files can be put.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Leaves no byte of room.
    ///
    /// # Errors
    /// Something else is wrong with it than that it is full.
    pub fn fill(&self) -> Result<()> {
        let mut ballast =
            File::options().create(true).append(true).open(self.ballast()).context("make the ballast")?;
        let mut piece = vec![0; 1 << 16];
        while !piece.is_empty() {
            match ballast.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => piece.truncate(piece.len() / 2),
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
        Ok(())
    }

    /// Makes room again.
    ///
    /// # Errors
    /// The ballast cannot be removed.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("remove the ballast")
    }
}
