//! What a machine must have before a cluster can run on it, checked before anything is made. `Facts` are read, the verdict is pure.

use anyhow::{Context, Result, bail};
use std::path::Path;

/// The oldest kernel with everything the nodes use: tcx links came with 6.6, `cgroup.kill` with 5.14.
const KERNEL: (u32, u32) = (6, 6);

/// What of a machine decides.
#[derive(Clone, Debug)]
struct Facts {
    /// The effective user is root.
    root: bool,
    /// `/proc/sys/kernel/osrelease`.
    release: String,
    /// `/sys/kernel/btf/vmlinux` is there.
    btf: bool,
    /// A cgroup2 file system is mounted.
    cgroup2: bool,
    /// The namespaces of `/proc/self/ns`.
    namespaces: Vec<String>,
}

impl Facts {
    fn of_this_machine() -> Result<Self> {
        let release = "/proc/sys/kernel/osrelease";
        let namespaces = std::fs::read_dir("/proc/self/ns").context("cannot read /proc/self/ns")?;
        Ok(Self {
            root: nix::unistd::geteuid().is_root(),
            release: std::fs::read_to_string(release).with_context(|| format!("cannot read {release}"))?,
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            cgroup2: super::cgroups::unified().is_some(),
            namespaces: namespaces.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect(),
        })
    }
}

/// `6.1.0-13-amd64` is 6.1.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The first reason why no cluster can run on such a machine, with what to do about it.
fn verdict(facts: &Facts) -> Result<()> {
    if !facts.root {
        bail!(
            "a cluster makes namespaces, cgroups and BPF programs and needs root; run this command as root"
        );
    }
    let release = facts.release.trim();
    match version(release) {
        Some(version) if version >= KERNEL => {}
        Some(_) => bail!(
            "kernel {release} is too old: {}.{} or newer is needed; on Debian 12, install linux-image-amd64 from bookworm-backports and reboot",
            KERNEL.0,
            KERNEL.1
        ),
        None => bail!("the kernel's release {release:?} has no version number; Linux is needed"),
    }
    if !facts.btf {
        bail!(
            "this kernel has no BTF (/sys/kernel/btf/vmlinux), which the BPF programs need; boot one built with CONFIG_DEBUG_INFO_BTF, such as Debian's"
        );
    }
    if !facts.cgroup2 {
        bail!(
            "no cgroup2 file system is mounted; mount one (`mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`), or boot with systemd.unified_cgroup_hierarchy=1"
        );
    }
    for kind in ["net", "mnt", "uts", "ipc", "pid", "cgroup"] {
        if !facts.namespaces.iter().any(|name| name == kind) {
            bail!(
                "this kernel has no {kind} namespaces, in which the nodes run; boot one with them, such as Debian's"
            );
        }
    }
    Ok(())
}

/// Refuses to go on without root; `what` says what needs it.
pub fn root(what: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("{what} needs root; run this command as root");
    }
    Ok(())
}

/// The first reason why no cluster can run here.
pub fn machine() -> Result<()> {
    verdict(&Facts::of_this_machine()?)
}

/// What a node takes no pods without (its eviction threshold, see `node`), with room to work above it.
const ROOM_MIB: u64 = 640;
/// Images and containers of one node.
const NODE_MIB: u64 = 64;

/// Refuses a disk on which the nodes would be under pressure from the start.
pub fn room(directory: &Path, nodes: u8) -> Result<()> {
    // The first directory above that is there: this one is yet to be made.
    let there = directory.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let disk = nix::sys::statvfs::statvfs(there)
        .with_context(|| format!("cannot ask for the room on the disk of {}", there.display()))?;
    enough(there, disk.blocks_available() * disk.fragment_size() / (1024 * 1024), nodes)
}

fn enough(directory: &Path, free_mib: u64, nodes: u8) -> Result<()> {
    let needed = ROOM_MIB + NODE_MIB * u64::from(nodes);
    if free_mib < needed {
        bail!(
            "the disk of {} has {free_mib} MiB left and {nodes} node(s) need {needed}; make room, or use a checkout on another disk",
            directory.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> Facts {
        let namespaces = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
        Facts {
            root: true,
            release: "6.6.1\n".into(),
            btf: true,
            cgroup2: true,
            namespaces: namespaces.map(str::to_owned).to_vec(),
        }
    }

    #[test]
    fn each_lack_is_one_line_that_says_what_to_do() {
        let check = |facts: Facts, expected: Option<&str>| {
            let said = verdict(&facts).err().map(|error| format!("{error:#}"));
            match (said, expected) {
                (None, None) => {}
                (Some(said), Some(part)) => assert!(said.contains(part) && !said.contains('\n'), "{said}"),
                (said, expected) => panic!("{said:?} instead of {expected:?}"),
            }
        };
        check(fit(), None);
        check(Facts { release: "10.0-rc1".into(), ..fit() }, None);
        check(Facts { root: false, ..fit() }, Some("run this command as root"));
        check(Facts { release: "6.1.0-13-amd64".into(), ..fit() }, Some("kernel 6.1.0-13-amd64 is too old"));
        check(Facts { release: "5.10.0".into(), ..fit() }, Some("6.6 or newer is needed"));
        check(Facts { release: "Darwin".into(), ..fit() }, Some("has no version number"));
        check(Facts { btf: false, ..fit() }, Some("no BTF"));
        check(Facts { cgroup2: false, ..fit() }, Some("mount -t cgroup2"));
        check(Facts { namespaces: vec!["net".into()], ..fit() }, Some("no mnt namespaces"));
        assert!(enough(Path::new("/d"), 704, 1).is_ok());
        let said = enough(Path::new("/d"), 703, 1).expect_err("too little").to_string();
        assert!(said.contains("/d has 703 MiB left and 1 node(s) need 704"), "{said}");
        // The first thing to mend comes first.
        check(Facts { root: false, btf: false, ..fit() }, Some("root"));
    }
}
