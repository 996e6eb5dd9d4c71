//! `cargo xtask load`: image archives into every node's runtime, all nodes at once.

use super::{Cluster, Node, checks, enter};
use crate::process::line;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Flags of `load`.
#[derive(clap::Args)]
pub struct Options {
    /// The cluster
    #[arg(long, default_value = "default")]
    name: String,
    /// Docker or OCI image archives
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Loads archives into every node.
pub fn run(options: &Options) -> Result<()> {
    checks::root("loading images")?;
    let cluster = Cluster::load(&options.name)?;
    for file in &options.files {
        if !file.is_file() {
            bail!("{} is not a file", file.display());
        }
    }
    for node in cluster.nodes() {
        println!("loading {} archive(s) into {}", options.files.len(), node.name());
    }
    load(&cluster.nodes(), &options.files)
}

/// Loads archives into nodes, each node in a thread of its own.
pub fn load(nodes: &[Node], files: &[PathBuf]) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(move || files.iter().try_for_each(|file| import(node, file))))
            .collect();
        threads
            .into_iter()
            .try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a loading thread panicked"))?)
    })
}

fn import(node: &Node, file: &Path) -> Result<()> {
    // Through standard input: the node does not see the host's files.
    let archive = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut command = enter::command(node, &["ctr", "--namespace", "k8s.io", "images", "import", "-"])?;
    let out =
        command.stdin(archive).output().with_context(|| format!("cannot start `{}`", line(&command)))?;
    if !out.status.success() {
        bail!(
            "{} does not take {}: {}",
            node.name(),
            file.display(),
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}
