//! `cargo xtask enter`: a shell or a command inside a node's namespaces.

use super::{Cluster, Node, Process, cgroups, checks};
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Flags of `enter`.
#[derive(clap::Args)]
pub struct Options {
    /// The cluster
    #[arg(long, default_value = "default")]
    name: String,
    /// The node, as `kubectl get nodes` names it
    node: String,
    /// The command; a shell without one
    #[arg(last = true)]
    command: Vec<String>,
}

/// A command line that runs inside a node.
pub fn command(node: &Node, words: &[&str]) -> Result<Command> {
    let process = Process::read(&node.pid_file()).filter(Process::alive).with_context(|| {
        format!("{} does not run; `cargo xtask up --name {}` starts it", node.name(), node.cluster.name)
    })?;
    let mut command = Command::new("nsenter");
    // In the node's cgroup too: its socket programs hold for what runs there.
    let cgroup = cgroups::make(&node.cluster.cgroup(), &node.name())?;
    let cgroup: Vec<_> =
        cgroup.into_iter().map(|d| if d.join("init").is_dir() { d.join("init") } else { d }).collect();
    // SAFETY: between fork and exec only writes to paths prepared above.
    unsafe {
        command.pre_exec(move || cgroups::join(&cgroup));
    }
    command.args([
        "--target",
        &process.pid.to_string(),
        "--mount",
        "--uts",
        "--ipc",
        "--net",
        "--pid",
        "--cgroup",
        "--",
    ]);
    command.args(words);
    Ok(command)
}

/// Replaces this process.
pub fn run(options: &Options) -> Result<()> {
    checks::root("entering a node")?;
    let node = Cluster::load(&options.name)?.node(&options.node)?;
    let words: Vec<&str> = if options.command.is_empty() {
        vec!["/bin/sh"]
    } else {
        options.command.iter().map(String::as_str).collect()
    };
    Err(command(&node, &words)?.exec()).context("cannot start nsenter")
}
