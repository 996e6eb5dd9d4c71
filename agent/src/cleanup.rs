//! `pagurus-agent cleanup`: takes away what agents have left on a node, when none is to come again: programs and maps, DNS, the pod
//! network's devices, routes and files. Can be repeated; no agent may run.
//!
//! Must not know: what is there to be found ([`found`]).

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use pagurus_cni::client::DEFAULT_SOCKET;
use serde_json::{Value, json};

use crate::process::lock;

mod found;

/// What is taken away, and where it is looked for.
#[derive(Args, Debug)]
pub struct Options {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
    /// Also if an agent runs on this node: it will make some of it again
    #[arg(long)]
    force: bool,
    /// Also take the network of pods away that are still connected
    #[arg(long)]
    pods: bool,
    /// When done, stay until told to end, as the container of a DaemonSet should
    #[arg(long)]
    wait: bool,
    /// BPF file system in which programs and maps are pinned
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// Where cgroup2 is mounted
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/cgroup")]
    cgroup_root: PathBuf,
    /// Socket on which the CNI plugin reached the agent
    #[arg(long, value_name = "SOCKET", default_value = DEFAULT_SOCKET)]
    cni_socket: PathBuf,
    /// Directory in which the CNI configuration was written
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    /// Directory in which the CNI plugin was put
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    cni_bin_dir: PathBuf,
}

/// Something that an agent has left.
struct Found {
    /// What it is, in a word.
    kind: &'static str,
    /// Which one.
    name: String,
    /// How it goes; why it stays, if it does.
    fate: Result<Box<dyn FnOnce() -> anyhow::Result<()>>, String>,
}

impl Found {
    fn new(
        kind: &'static str,
        name: impl Into<String>,
        remove: impl FnOnce() -> anyhow::Result<()> + 'static,
    ) -> Self {
        Self { kind, name: name.into(), fate: Ok(Box::new(remove)) }
    }
}

/// What has become of what was found.
#[derive(Debug, Default)]
struct Report {
    lines: Vec<String>,
    removed: Vec<Value>,
    kept: Vec<Value>,
    failed: Vec<Value>,
}

impl Report {
    fn take(&mut self, found: Found, dry_run: bool) {
        let Found { kind, name, fate } = found;
        let remove = match fate {
            Ok(remove) => remove,
            Err(why) => {
                self.lines.push(format!("kept {kind} {name}: {why}"));
                return self.kept.push(json!({"kind": kind, "name": name, "why": why}));
            }
        };
        if dry_run {
            self.lines.push(format!("would remove {kind} {name}"));
            return self.removed.push(json!({"kind": kind, "name": name}));
        }
        match remove() {
            Ok(()) => {
                self.lines.push(format!("removed {kind} {name}"));
                self.removed.push(json!({"kind": kind, "name": name}));
            }
            Err(error) => {
                self.lines.push(format!("failed to remove {kind} {name}: {error:#}"));
                self.failed.push(json!({"kind": kind, "name": name, "error": format!("{error:#}")}));
            }
        }
    }

    fn show(&self, options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
        if options.json {
            let report = json!({
                "dryRun": options.dry_run, "removed": self.removed, "kept": self.kept, "failed": self.failed,
            });
            return Ok(writeln!(out, "{report:#}")?);
        }
        for line in &self.lines {
            writeln!(out, "{line}")?;
        }
        if self.lines.is_empty() {
            writeln!(out, "nothing of an agent is on this node")?;
        }
        Ok(())
    }
}

/// Takes it away and says what.
///
/// # Errors
/// An agent runs; or something could not be removed, which is said beside what was.
pub fn run(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("cleanup must run as root (it removes programs, devices and files of the node)");
    }
    let ended = options.wait.then(crate::inspect::signalled).transpose().context("listen for the end")?;
    let path = PathBuf::from(lock::FILE);
    let lock = lock::alone(&path)?;
    if lock.is_none() && !options.force {
        let process = lock::holder(&path).map(|id| format!(" (process {id})")).unwrap_or_default();
        bail!(
            "an agent runs on this node{process}: stop it first, such as by deleting its DaemonSet; with --force what it has made is \
             removed all the same, and it will make some of it again"
        );
    }
    let mut report = Report::default();
    // What is behind something else is found only when that has gone: each part is looked at in its turn.
    for look in found::PARTS {
        for found in look(options)? {
            report.take(found, options.dry_run);
        }
    }
    if lock.is_some() {
        found::remove_lock(&path)?;
    }
    drop(lock);
    report.show(options, out)?;
    out.flush()?;
    if !report.failed.is_empty() {
        bail!("{} of these could not be removed", report.failed.len());
    }
    while ended.as_ref().is_some_and(|ended| !ended.load(std::sync::atomic::Ordering::Relaxed)) {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        let all = || {
            let kept = Found { kind: "device", name: "c".into(), fate: Err("in use".into()) };
            [Found::new("map", "a", || Ok(())), Found::new("file", "b", || bail!("no")), kept]
        };
        let check = |dry_run, lines: &[&str], counts: (usize, usize, usize)| {
            let mut report = Report::default();
            for found in all() {
                report.take(found, dry_run);
            }
            assert_eq!(report.lines, lines);
            assert_eq!((report.removed.len(), report.kept.len(), report.failed.len()), counts);
        };
        check(true, &["would remove map a", "would remove file b", "kept device c: in use"], (2, 1, 0));
        check(false, &["removed map a", "failed to remove file b: no", "kept device c: in use"], (1, 1, 1));
    }
}
