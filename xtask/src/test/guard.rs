//! Ends what a run of the suites has started when the run itself is ended, however that comes: a process of its own reads from a pipe
//! whose other end only the run has, so it learns of the end also where the run could do nothing any more.
//!
//! Must not know: what is run.

use crate::cluster::{Cluster, down};
use anyhow::{Context as _, Result};
use std::io::{BufRead as _, ErrorKind, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Flags of the process that waits; it is told everything through its standard input.
#[derive(clap::Args)]
pub struct Options {}

/// What is to be ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    /// A group of processes.
    group: Option<i32>,
    /// A cluster of this checkout, and those whose names begin with its name and a `-`.
    cluster: Option<String>,
    /// Directories.
    directories: Vec<PathBuf>,
}

impl Left {
    /// Takes a line of the run.
    fn hear(&mut self, line: &str) -> Result<()> {
        let unknown = || format!("the run said {line:?}, which means nothing");
        match line.split_once(' ').with_context(unknown)? {
            ("group", "none") => self.group = None,
            ("group", number) => {
                let number = number.parse().ok().filter(|number| *number > 1);
                self.group = Some(number.with_context(unknown)?);
            }
            ("cluster", "none") => self.cluster = None,
            ("cluster", name) => self.cluster = Some(name.to_owned()),
            ("directory", path) if path.starts_with('/') => self.directories.push(path.into()),
            _ => anyhow::bail!(unknown()),
        }
        Ok(())
    }

    /// Which clusters are meant, of those that have a directory; the one that is named may not have come to that.
    fn clusters(&self, names: Vec<String>) -> Vec<String> {
        let Some(own) = &self.cluster else { return Vec::new() };
        let others = names
            .into_iter()
            .filter(|name| name.strip_prefix(own.as_str()).is_some_and(|rest| rest.starts_with('-')));
        others.chain([own.clone()]).collect()
    }

    /// Ends it.
    fn end(&self) -> Result<()> {
        if let Some(group) = self.group {
            // SAFETY: kill(2) takes numbers only. The group is the run's: as long as the run lives, or one of the group, it is nobody
            // else's.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let mut failed = None;
        for name in self.clusters(Cluster::names()) {
            // One that resists must not keep the others.
            failed = down::run(&down::Options { name }).err().or(failed);
        }
        for directory in &self.directories {
            match std::fs::remove_dir_all(directory) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    failed = Some(
                        anyhow::Error::new(error).context(format!("cannot remove {}", directory.display())),
                    );
                }
                _ => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Waits for the end of the run.
///
/// # Errors
/// Something could not be ended.
pub fn run(_: &Options) -> Result<()> {
    let mut left = Left::default();
    for line in std::io::stdin().lock().lines() {
        left.hear(&line.context("cannot hear the run")?)?;
    }
    left.end()
}

/// The run's side. What it names is ended if the run ends, and left alone once it is named no longer.
pub struct Guard {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts the process that waits.
    ///
    /// # Errors
    /// It does not start.
    pub fn start() -> Result<Self> {
        let mut command =
            Command::new(std::env::current_exe().context("cannot find the program of this process")?);
        // In a group of its own: what ends the run by the terminal does not end it. Its output would outlive the run's.
        command.arg("guard").process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().context("cannot start who ends the run's processes with it")?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    fn tell(&mut self, what: &str, value: &str) -> Result<()> {
        let pipe = self.pipe.as_mut().context("who ends the run's processes with it has been let go")?;
        writeln!(pipe, "{what} {value}").context("who ends the run's processes with it has ended")
    }

    /// Names the group of processes of a child that was started in a group of its own; `None`: it has ended.
    ///
    /// # Errors
    /// The process that waits is gone.
    pub fn group(&mut self, child: Option<&Child>) -> Result<()> {
        self.tell("group", &child.map_or("none".to_owned(), |child| child.id().to_string()))
    }

    /// Names a cluster, and all of this checkout whose names begin with its name and a `-`.
    ///
    /// # Errors
    /// The process that waits is gone.
    pub fn cluster(&mut self, name: Option<&str>) -> Result<()> {
        self.tell("cluster", name.unwrap_or("none"))
    }

    /// Names a directory for what is needed only while the run lasts, which it removes itself at a good end.
    ///
    /// # Errors
    /// The process that waits is gone.
    pub fn directory(&mut self, path: &Path) -> Result<()> {
        self.tell("directory", &path.display().to_string())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // It has said itself what it could not do.
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_end() {
        let left = |group, cluster: Option<&str>, directories: &[&str]| Left {
            group,
            cluster: cluster.map(str::to_owned),
            directories: directories.iter().map(PathBuf::from).collect(),
        };
        for (lines, want) in [
            (&[][..], left(None, None, &[])),
            (&["group 12"], left(Some(12), None, &[])),
            (&["cluster e2e", "group 12", "group none"], left(None, Some("e2e"), &[])),
            (&["cluster e2e", "group 12", "group 13", "cluster none"], left(Some(13), None, &[])),
            (&["directory /a b", "directory /c"], left(None, None, &["/a b", "/c"])),
        ] {
            let mut got = Left::default();
            lines.iter().try_for_each(|line| got.hear(line)).unwrap();
            assert_eq!(got, want, "{lines:?}");
        }
        // Neither everybody's processes nor those of our own group.
        for line in ["", "group", "group 0", "group 1", "group -5", "group x", "directory a", "else 1"] {
            assert!(Left::default().hear(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn clusters_of_a_run() {
        let names = || ["default", "e2e", "e2e-killed", "e2else", "my-e2e"].map(str::to_owned).to_vec();
        let left = Left { cluster: Some("e2e".to_owned()), ..Left::default() };
        assert_eq!(left.clusters(names()), ["e2e-killed", "e2e"]);
        assert_eq!(left.clusters(Vec::new()), ["e2e"]);
        assert!(Left::default().clusters(names()).is_empty());
    }
}
