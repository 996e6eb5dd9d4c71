//! A wall clock that a test moves, for one process: a small library that the process loads first (`tests/shim/clock.rs`), and the file that
//! tells it how far. A time namespace moves only the clocks that measure, and the machine's own clock is everybody's.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

const SOURCE: &str = include_str!("../shim/clock.rs");

/// The library, compiled, and its file.
#[derive(Debug)]
pub struct Clock {
    folder: tempfile::TempDir,
    offset: File,
}

impl Clock {
    /// Compiles the library; none (and says so) where there is no compiler for it.
    ///
    /// # Errors
    /// It does not compile.
    pub fn new() -> Result<Option<Self>> {
        let folder = tempfile::tempdir().context("make a directory for the clock")?;
        let source = folder.path().join("clock.rs");
        std::fs::write(&source, SOURCE).context("write the clock's source")?;
        let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        let mut command = Command::new(&compiler);
        command.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort", "-o"]);
        command.arg(folder.path().join("clock.so")).arg(&source);
        let made = match command.output() {
            Ok(made) => made,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("SKIPPED: there is no {compiler} to compile the clock with");
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("start {compiler}")),
        };
        ensure!(made.status.success(), "the clock: {}", String::from_utf8_lossy(&made.stderr));
        let path = folder.path().join("offset");
        let offset = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path)
            .context("make the clock's file")?;
        let clock = Self { folder, offset };
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// What a process needs in its environment to live by this clock.
    pub fn environment(&self) -> Vec<(String, PathBuf)> {
        let file = |name: &str| self.folder.path().join(name);
        vec![("LD_PRELOAD".to_owned(), file("clock.so")), ("PAGURUS_CLOCK".to_owned(), file("offset"))]
    }

    /// Sets it to so many seconds after the machine's, or before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).context("move the clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds since 1970 as a process of that clock tells them.
    fn told(clock: &Clock) -> i64 {
        let out = Command::new("date").arg("+%s").envs(clock.environment()).output().expect("date runs");
        String::from_utf8_lossy(&out.stdout).trim().parse().expect("seconds")
    }

    #[test]
    fn it_moves() {
        let Some(clock) = Clock::new().expect("a clock") else { return };
        let start = told(&clock);
        for (offset, least) in [(86_400, 86_400), (-86_400, -86_400), (0, 0)] {
            clock.set(offset).expect("moved");
            let moved = told(&clock) - start;
            assert!((least..least + 60).contains(&moved), "{offset}: {moved}");
        }
    }
}
