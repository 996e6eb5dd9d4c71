//! The mark of a running agent: a file that each agent that looks after Services has locked for as long as it lives, together with
//! others that may run beside it. Whoever wants to be sure that none runs locks it alone.
//!
//! Must not know: why somebody wants to be sure.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The file.
pub const FILE: &str = "/run/pagurus/agent.lock";
/// Who has it alone has it for moments.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// The lock, until this goes or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Locks it as an agent that runs from here on.
pub fn running(path: &Path) -> anyhow::Result<Lock> {
    let begun = Instant::now();
    loop {
        if let Some(mut file) = lock(path, FlockArg::LockSharedNonblock)? {
            // For people: whose it is is known by the lock alone.
            let number = std::process::id().to_string();
            let noted =
                file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(number.as_bytes()));
            noted.with_context(|| format!("write {}", path.display()))?;
            return Ok(Lock { _file: file });
        }
        if begun.elapsed() > PATIENCE {
            bail!(
                "{} is locked for longer than {} s: does `pagurus-agent cleanup` run on this node?",
                path.display(),
                PATIENCE.as_secs()
            );
        }
        std::thread::sleep(PAUSE);
    }
}

/// Locks it alone: no agent runs, and none begins while this is held. None if one runs.
pub fn alone(path: &Path) -> anyhow::Result<Option<Lock>> {
    Ok(lock(path, FlockArg::LockExclusiveNonblock)?.map(|file| Lock { _file: file }))
}

/// The process that locked it last, as it knew itself.
pub fn holder(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// None if others have it.
fn lock(path: &Path, how: FlockArg) -> anyhow::Result<Option<Flock<File>>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let shown = || path.display().to_string();
    loop {
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.with_context(|| format!("open {}", shown()))?;
        let locked = match Flock::lock(file, how) {
            Ok(locked) => locked,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, error)) => return Err(error).with_context(|| format!("lock {}", shown())),
        };
        // Whoever had it may have removed the file: then this one is nobody's.
        let own = locked.metadata().with_context(|| format!("look at {}", shown()))?;
        if fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (own.dev(), own.ino())) {
            return Ok(Some(locked));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn agents_together_others_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.lock");
        let (first, second) = (running(&path).unwrap(), running(&path).unwrap());
        assert_eq!(holder(&path), Some(std::process::id()));
        assert!(alone(&path).unwrap().is_none());
        drop(first);
        assert!(alone(&path).unwrap().is_none(), "the second agent runs");
        drop(second);
        let only = alone(&path).unwrap().expect("nobody has it");
        assert!(alone(&path).unwrap().is_none());
        // An agent that begins meanwhile waits, and takes the new file if the one it waited for has gone.
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || running(&path).unwrap()
        });
        fs::remove_file(&path).unwrap();
        drop(only);
        let late = waiting.join().unwrap();
        assert!(alone(&path).unwrap().is_none());
        drop(late);
        assert!(alone(&path).unwrap().is_some());
    }
}
