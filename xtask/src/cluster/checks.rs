//! What a machine must have before a cluster can run on it, checked before anything is made.

use anyhow::{Result, bail};
use std::path::Path;

/// The oldest kernel with everything the nodes use: tcx links came with 6.6, `cgroup.kill` with 5.14.
const KERNEL: (u32, u32) = (6, 6);

fn kernel() -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = text.split(['.', '-']).map_while(|part| part.trim().parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// The first reason why no cluster can run here.
pub fn machine() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "a cluster makes namespaces, cgroups and BPF programs and needs root; run this command as root"
        );
    }
    match kernel() {
        Some(version) if version >= KERNEL => {}
        version => {
            let (major, minor) = version.unwrap_or_default();
            bail!("kernel {major}.{minor} is too old: {}.{} or newer is needed", KERNEL.0, KERNEL.1);
        }
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!("this kernel has no BTF (/sys/kernel/btf/vmlinux); it needs CONFIG_DEBUG_INFO_BTF");
    }
    if super::cgroups::unified().is_none() {
        bail!(
            "no cgroup2 file system is mounted; mount one at /sys/fs/cgroup (or boot with systemd.unified_cgroup_hierarchy=1)"
        );
    }
    Ok(())
}
