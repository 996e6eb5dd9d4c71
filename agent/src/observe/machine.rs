//! The machine as `/proc`, `/sys` and the file systems tell it. Reads only; it must not judge the figures.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{SysconfVar, sysconf};
use pagurus_agent_core::node::{Identity, Resources, Signal, Usage};

use crate::config::Config;

/// What does not change while the agent runs.
pub fn identity(config: &Config, addresses: &[IpAddr]) -> Identity {
    let os_release = read("/etc/os-release").or_else(|| read("/usr/lib/os-release")).unwrap_or_default();
    let machine_id = read("/etc/machine-id").unwrap_or_default();
    Identity {
        name: config.node_name.clone(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        system_uuid: read("/sys/class/dmi/id/product_uuid")
            .or_else(|| read("/proc/device-tree/vm,uuid"))
            .unwrap_or_else(|| machine_id.clone()),
        machine_id,
        boot_id: read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
        os_image: pretty_name(&os_release).unwrap_or_else(|| "Linux".to_owned()),
        architecture: architecture(std::env::consts::ARCH).to_owned(),
        port: config.port,
    }
}

/// What there is to share out.
pub fn resources(config: &Config) -> Resources {
    let meminfo = MemInfo::read();
    Resources {
        cpus: sysconf(SysconfVar::_NPROCESSORS_ONLN)
            .ok()
            .flatten()
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or(1),
        memory: meminfo.total,
        storage: filesystem(&config.root_dir).map_or(0, |fs| fs.bytes),
        huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
        pods: config.max_pods,
        swap: meminfo.swap,
    }
}

/// What is available of what. `image_dir` is where the runtime keeps images.
pub fn usage(config: &Config, image_dir: Option<&Path>) -> Usage {
    let mut usage = BTreeMap::new();
    let meminfo = MemInfo::read();
    if meminfo.total > 0 {
        usage.insert(Signal::MemoryAvailable, (meminfo.available, meminfo.total));
    }
    if let Some(fs) = filesystem(&config.root_dir) {
        usage.insert(Signal::NodeFsAvailable, (fs.available, fs.bytes));
        // File systems without a fixed number of inodes say there are none.
        if fs.inodes > 0 {
            usage.insert(Signal::NodeFsInodesFree, (fs.inodes_free, fs.inodes));
        }
    }
    if let Some(fs) = image_dir.and_then(filesystem) {
        usage.insert(Signal::ImageFsAvailable, (fs.available, fs.bytes));
    }
    if let Some(pids) = pids(&read("/proc/loadavg").unwrap_or_default(), read("/proc/sys/kernel/pid_max")) {
        usage.insert(Signal::PidAvailable, pids);
    }
    Usage(usage)
}

/// A file system's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes that can be written.
    pub available: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Inodes free.
    pub inodes_free: u64,
}

/// The file system that holds `path`.
pub fn filesystem(path: &Path) -> Option<FileSystem> {
    let figures = statvfs(path).ok()?;
    let block = figures.fragment_size();
    Some(FileSystem {
        bytes: figures.blocks() * block,
        available: figures.blocks_available() * block,
        inodes: figures.files(),
        inodes_free: figures.files_free(),
    })
}

/// `/proc/meminfo`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemInfo {
    /// All.
    pub total: u64,
    /// What could be had without swapping.
    pub available: u64,
    /// Swap space.
    pub swap: u64,
}

impl MemInfo {
    /// The figures of now; zeros where the file cannot be read.
    pub fn read() -> Self {
        Self::parse(&read("/proc/meminfo").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
            kilobytes.unwrap_or(0) * 1024
        };
        Self { total: field("MemTotal"), available: field("MemAvailable"), swap: field("SwapTotal") }
    }
}

fn read(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim_matches(['\n', ' ', '\0']);
    (!text.is_empty()).then(|| text.to_owned())
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// Go's word for a CPU architecture.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// Bytes set aside per size of page.
fn huge_pages(directory: &Path) -> BTreeMap<u64, u64> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let page = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()? * 1024;
            let count = std::fs::read_to_string(entry.path().join("nr_hugepages"))
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()?;
            Some((page, count * page))
        })
        .collect()
}

/// Process ids free and in all; the fourth field of loadavg is `runnable/existing`.
fn pids(loadavg: &str, pid_max: Option<String>) -> Option<(u64, u64)> {
    let existing: u64 = loadavg.split(' ').nth(3)?.split_once('/')?.1.parse().ok()?;
    let most: u64 = pid_max?.parse().ok()?;
    Some((most.saturating_sub(existing), most))
}

/// Where the runtime keeps images, for [`usage`].
pub fn image_directory(answer: &pagurus_cri_api::v1::ImageFsInfoResponse) -> Option<PathBuf> {
    let filesystem = answer.image_filesystems.first()?;
    Some(PathBuf::from(&filesystem.fs_id.as_ref()?.mountpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo() {
        let text =
            "MemTotal:       24639476 kB\nMemFree: 1 kB\nMemAvailable:   20000000 kB\nSwapTotal:  0 kB\n";
        let expected = MemInfo { total: 24_639_476 * 1024, available: 20_000_000 * 1024, swap: 0 };
        assert_eq!(MemInfo::parse(text), expected);
        assert_eq!(MemInfo::parse(""), MemInfo::default());
    }

    #[test]
    fn names() {
        assert_eq!(
            pretty_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n").as_deref(),
            Some("Debian GNU/Linux 12")
        );
        assert_eq!(pretty_name("ID=x"), None);
        assert_eq!(architecture("x86_64"), "amd64");
        assert_eq!(architecture("riscv64"), "riscv64");
    }

    #[test]
    fn process_ids() {
        assert_eq!(pids("0.1 0.2 0.3 2/345 999", Some("32768".to_owned())), Some((32_423, 32_768)));
        assert_eq!(pids("", Some("1".to_owned())), None);
    }

    #[test]
    fn huge_pages_by_size() {
        let directory = tempfile::tempdir().expect("temporary directory");
        for (name, count) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "0\n"), ("other", "1")] {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).expect("directory");
            std::fs::write(path.join("nr_hugepages"), count).expect("file");
        }
        assert_eq!(huge_pages(directory.path()), BTreeMap::from([(2 << 20, 6 << 20), (1 << 30, 0)]));
    }

    #[test]
    fn this_machine() {
        assert!(MemInfo::read().total > 0);
        assert!(filesystem(Path::new("/")).is_some_and(|fs| fs.bytes > 0));
    }
}
