//! `cargo xtask down`: removes every trace of a cluster. Works on whole, half-made and crashed clusters alike: it goes by the names
//! that a cluster's parts have, and what is already gone is fine.

use super::{Cluster, cgroups, check_name, network};
use anyhow::{Result, bail};

/// Flags of `down`.
#[derive(clap::Args)]
pub struct Options {
    /// The cluster
    #[arg(long, default_value = "default")]
    pub name: String,
}

/// Removes a cluster.
pub fn run(options: &Options) -> Result<()> {
    check_name(&options.name)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("removing a cluster needs root, like making one; run this command as root");
    }
    let directory = Cluster::directory_of(&options.name);
    let cgroup = format!("pagurus-{}", options.name);
    let was = directory.exists() || !network::namespaces(&options.name).is_empty();
    cgroups::kill(&cgroup)?;
    // Collected, not stopped at: one part that resists must not keep the others.
    let mut errors = network::remove(&options.name);
    errors.extend(cgroups::remove(&cgroup));
    if let Err(error) = std::fs::remove_dir_all(&directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        errors.push(anyhow::Error::new(error).context(format!("cannot remove {}", directory.display())));
    }
    if let Some(parent) = directory.parent() {
        // Only when it was the last cluster.
        let _ = std::fs::remove_dir(parent);
    }
    if let Some(error) = errors.into_iter().reduce(|all, next| all.context(format!("{next:#}"))) {
        return Err(error.context(format!("cluster {} is not removed completely", options.name)));
    }
    println!(
        "{}",
        if was {
            format!("cluster {} is gone", options.name)
        } else {
            format!("there was no cluster {}", options.name)
        }
    );
    Ok(())
}
