//! `cargo xtask down`: removes every trace of a cluster. Works on whole, half-made and crashed clusters alike: it goes by the names
//! that a cluster's parts have, and what is already gone is fine.

use super::claim::{self, Claim};
use super::{Cluster, cgroups, check_name, checks, network};
use anyhow::{Context as _, Result};
use std::path::Path;

/// Flags of `down`.
#[derive(clap::Args)]
pub struct Options {
    /// The cluster
    #[arg(long, default_value = "default")]
    pub name: String,
}

/// Removes a cluster.
pub fn run(options: &Options) -> Result<()> {
    let name = &options.name;
    check_name(name)?;
    checks::root("removing a cluster")?;
    let directory = Cluster::directory_of(name);
    let claim = Claim::take(name)?;
    claim.check(&directory)?;
    let was = directory.exists() || outside(name);
    remove(name)?;
    remove_directory(&directory)?;
    claim.release();
    after_the_last();
    println!(
        "{}",
        if was { format!("cluster {name} is gone") } else { format!("there was no cluster {name}") }
    );
    Ok(())
}

/// Whether a cluster has parts outside its directory.
pub fn outside(name: &str) -> bool {
    !network::namespaces(name).is_empty() || cgroups::exists(&cgroup(name))
}

fn cgroup(name: &str) -> String {
    format!("pagurus-{name}")
}

/// Removes what a cluster has outside its directory: processes, namespaces with their links and mounts, cgroups.
pub fn remove(name: &str) -> Result<()> {
    let cgroup = cgroup(name);
    cgroups::kill(&cgroup)?;
    // Collected, not stopped at: one part that resists must not keep the others.
    let mut errors = network::remove(name);
    errors.extend(cgroups::remove(&cgroup));
    match errors.into_iter().reduce(|all, next| all.context(format!("{next:#}"))) {
        Some(error) => Err(error.context(format!("cluster {name} is not removed completely"))),
        None => Ok(()),
    }
}

/// Removes a cluster's directory; what is already gone is fine.
pub fn remove_directory(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", directory.display()));
        }
        _ => {}
    }
    if let Some(parent) = directory.parent() {
        // Only when it was the last cluster.
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}

/// What the clusters of a machine share goes with the last of them.
pub fn after_the_last() {
    if !claim::any() {
        network::remove_directory();
    }
}
