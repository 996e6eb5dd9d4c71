//! The cgroups of clusters and nodes, on machines with cgroup v2 alone and with v1 hierarchies beside it.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where.
    pub mount: PathBuf,
    /// `None` for cgroup2; for v1 the mount option that names it: `memory`, `cpu,cpuacct`, `none,name=systemd`.
    pub v1: Option<String>,
}

/// Reads mountinfo(5): the cgroup file systems of this mount namespace.
fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(mount), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else { continue };
        let v1 = match kind {
            "cgroup2" => None,
            "cgroup" => {
                let options = right.split(' ').nth(2).unwrap_or_default();
                let named = options.split(',').find(|o| o.starts_with("name="));
                Some(match named {
                    Some(name) => format!("none,{name}"),
                    None => options
                        .split(',')
                        .filter(|o| !["rw", "ro", "xattr", "noprefix", "clone_children"].contains(o))
                        .collect::<Vec<_>>()
                        .join(","),
                })
            }
            _ => continue,
        };
        if !found.iter().any(|h| h.v1 == v1) {
            found.push(Hierarchy { mount: PathBuf::from(mount), v1 });
        }
    }
    found
}

/// Every hierarchy.
pub fn hierarchies() -> Vec<Hierarchy> {
    parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// The mount of cgroup2.
pub fn unified() -> Option<PathBuf> {
    hierarchies().into_iter().find(|h| h.v1.is_none()).map(|h| h.mount)
}

/// Gives the children of a cgroup2 directory every controller it has.
pub fn delegate(directory: &Path) {
    let controllers = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // One by one: a controller that cannot be handed on (threads, real-time tasks) must not keep the others back.
        let _ = std::fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Makes `CLUSTER/NODE` in every hierarchy and returns the directories.
pub fn make(cluster: &str, leaf: &str) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for hierarchy in hierarchies() {
        let parent = hierarchy.mount.join(cluster);
        let directory = parent.join(leaf);
        for (above, path) in [(&hierarchy.mount, &parent), (&parent, &directory)] {
            if hierarchy.v1.is_none() {
                delegate(above);
            }
            match std::fs::create_dir(path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error)
                        .with_context(|| format!("cannot create the cgroup {}", path.display()));
                }
                _ => {}
            }
            // A v1 cpuset takes no process before it has processors and memory nodes (cpuset(7)).
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if hierarchy.v1.is_some() && path.join(file).exists() {
                    let inherited = std::fs::read_to_string(above.join(file)).unwrap_or_default();
                    std::fs::write(path.join(file), inherited.trim())
                        .with_context(|| format!("cannot write {}", path.join(file).display()))?;
                }
            }
        }
        made.push(directory);
    }
    Ok(made)
}

/// The processes of `CLUSTER/LEAF`, without those of the cgroups below it.
pub fn processes(cluster: &str, leaf: &str) -> Vec<i32> {
    let file = unified().map(|mount| mount.join(cluster).join(leaf).join("cgroup.procs"));
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    text.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// Moves this process into the directories; for use between fork and exec, so it allocates as little as it can.
pub fn join(directories: &[PathBuf]) -> std::io::Result<()> {
    directories.iter().try_for_each(|d| std::fs::write(d.join("cgroup.procs"), "0"))
}

/// Kills everything in a cluster's cgroup2 tree and waits until it is empty.
pub fn kill(cluster: &str) -> Result<()> {
    let Some(directory) = unified().map(|m| m.join(cluster)) else { return Ok(()) };
    if !directory.exists() {
        return Ok(());
    }
    std::fs::write(directory.join("cgroup.kill"), "1")
        .with_context(|| format!("cannot end the processes of {}", directory.display()))?;
    super::progress::until("the cluster's processes end", std::time::Duration::from_secs(30), || {
        let events = std::fs::read_to_string(directory.join("cgroup.events"))?;
        Ok(events.contains("populated 0").then_some(()))
    })
}

/// Whether a cluster has cgroups.
pub fn exists(cluster: &str) -> bool {
    hierarchies().iter().any(|hierarchy| hierarchy.mount.join(cluster).exists())
}

/// Removes a cluster's cgroups in every hierarchy; what is already gone is fine.
pub fn remove(cluster: &str) -> Vec<anyhow::Error> {
    hierarchies().iter().filter_map(|h| remove_tree(&h.mount.join(cluster)).err()).collect()
}

fn remove_tree(directory: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    // The kernel lets go of a dead process's cgroup a moment after the process is gone.
    super::progress::until(
        &format!("remove {}", directory.display()),
        std::time::Duration::from_secs(5),
        || match std::fs::remove_dir(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(Some(())),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo() {
        let text = "24 20 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            25 24 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            26 24 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            27 24 0:24 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let got: Vec<(String, Option<String>)> =
            parse(text).into_iter().map(|h| (h.mount.display().to_string(), h.v1)).collect();
        let want = [
            ("/sys/fs/cgroup/cpu", Some("cpu,cpuacct")),
            ("/sys/fs/cgroup/systemd", Some("none,name=systemd")),
            ("/sys/fs/cgroup/unified", None),
        ];
        assert_eq!(got, want.map(|(m, o)| (m.to_owned(), o.map(str::to_owned))));
    }
}
