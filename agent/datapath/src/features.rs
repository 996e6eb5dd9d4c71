//! What this machine must offer, checked before anything is loaded: each miss is one line saying what to do.
//!
//! Must not know: programs and maps.

use std::path::Path;

use nix::sys::statfs::{FsType, statfs};

use crate::Config;

/// Magic number of a cgroup2 file system.
const CGROUP2: FsType = FsType(0x6367_7270);
/// Magic number of a BPF file system.
const BPFFS: FsType = FsType(0xcafe_4a11);
/// `bpf_set_retval` in socket hooks came with this release.
const KERNEL: (u32, u32) = (5, 18);

/// Something the machine lacks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Not root.
    #[error("the dataplane needs root (CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN): run the agent as root")]
    Root,
    /// Kernel too old.
    #[error("kernel {found} is too old for the dataplane: it needs {}.{} or newer", KERNEL.0, KERNEL.1)]
    Kernel {
        /// The running release.
        found: String,
    },
    /// Not a cgroup2 directory.
    #[error("{path} is not a cgroup2 directory: mount cgroup2 or name another directory with --cgroup-root")]
    Cgroup2 {
        /// The configured directory.
        path: String,
    },
    /// Not a BPF file system.
    #[error("{path} is not a BPF file system: mount -t bpf bpf {path}")]
    Bpffs {
        /// The configured directory.
        path: String,
    },
}

/// Everything the machine lacks for this configuration.
pub fn missing(config: &Config) -> Vec<Missing> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push(Missing::Root);
    }
    let release = release();
    if parse_release(&release).is_none_or(|version| version < KERNEL) {
        missing.push(Missing::Kernel { found: release });
    }
    if !is_file_system(&config.cgroup_root, CGROUP2) {
        missing.push(Missing::Cgroup2 { path: config.cgroup_root.display().to_string() });
    }
    if !is_file_system(&config.bpffs, BPFFS) {
        missing.push(Missing::Bpffs { path: config.bpffs.display().to_string() });
    }
    missing
}

/// The running kernel's release.
pub(crate) fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Major and minor number of a release.
pub(crate) fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn is_file_system(path: &Path, kind: FsType) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(parse_release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_release("5.4"), Some((5, 4)));
        assert_eq!(parse_release("unknown"), None);
    }

    #[test]
    fn a_plain_folder_is_neither() {
        let config = Config {
            cgroup_root: "/proc".into(),
            bpffs: "/nowhere".into(),
            capacity: crate::MapCapacity::default(),
            node_ports: 30_000..=32_767,
        };
        let missing = missing(&config);
        assert!(missing.contains(&Missing::Cgroup2 { path: "/proc".into() }));
        assert!(missing.contains(&Missing::Bpffs { path: "/nowhere".into() }));
    }
}
