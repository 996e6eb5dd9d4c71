//! The cgroups of pods: a pod's share and limits as a whole, below a tier for its quality of service. Containers get theirs
//! from the runtime, below the pod's. Works on cgroup v1 and v2 alike by writing those files that are there.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pagurus_agent_core::names::PodUid;
use pagurus_agent_core::pods::Pod;
use pagurus_agent_core::pods::resources::{self, PodLimits, Qos};

/// Why a cgroup could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} cgroup {}: {source}", path.display())]
pub struct CgroupError {
    operation: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// The tiers below the root of all pods.
const TIERS: [&str; 3] = ["kubepods", "kubepods/burstable", "kubepods/besteffort"];

/// The cgroup of a pod, as the kubelet names it (cgroupfs driver).
pub fn path(pod: &Pod) -> String {
    let tier = match resources::qos(pod) {
        Qos::Guaranteed => TIERS[0],
        Qos::Burstable => TIERS[1],
        Qos::BestEffort => TIERS[2],
    };
    format!("/{tier}/pod{}", pod.uid)
}

/// Makes the pod's cgroup with its limits. `promised` is the CPU (thousandths) promised to all burstable pods of the node.
/// Blocks.
pub fn prepare(pod: &Pod, promised: i64) -> Result<(), CgroupError> {
    let mounts = Mounts::read()?;
    let cpus = i64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap_or(1);
    let tiers =
        [(TIERS[0], resources::shares(cpus * 1000)), (TIERS[1], resources::shares(promised)), (TIERS[2], 2)];
    for (tier, shares) in tiers {
        mounts.apply(tier, &PodLimits { cpu_shares: shares, cpu_period: 100_000, ..PodLimits::default() })?;
    }
    mounts.apply(path(pod).trim_start_matches('/'), &resources::pod_limits(pod))
}

/// How long a process may take to be gone after its container is, and how long one that is then killed.
const PATIENCE: Duration = Duration::from_millis(500);
const END: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// Removes the pod's cgroups, in whatever tier. To be called when the runtime has nothing of the pod any more: processes
/// that are there even so, such as those of a sandbox that the runtime forgot when it was killed, are killed. Blocks.
pub fn remove(uid: &PodUid) -> Result<(), CgroupError> {
    let mounts = Mounts::read()?;
    for root in &mounts.all {
        for tier in TIERS {
            remove_tree(&root.join(tier).join(format!("pod{uid}")))?;
        }
    }
    Ok(())
}

/// The pods that have cgroups here. Blocks.
pub fn pods() -> Result<BTreeSet<PodUid>, CgroupError> {
    let mounts = Mounts::read()?;
    let tiers = mounts.all.iter().flat_map(|root| TIERS.map(|tier| root.join(tier)));
    let entries = tiers.filter_map(|tier| std::fs::read_dir(tier).ok()).flatten().flatten();
    let uid = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix("pod").map(|uid| PodUid(uid.to_owned()))
    };
    Ok(entries.filter_map(uid).collect())
}

/// Where cgroups are mounted.
struct Mounts {
    all: Vec<PathBuf>,
    cpu: Option<PathBuf>,
    memory: Option<PathBuf>,
}

impl Mounts {
    fn read() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = std::fs::read_to_string(path).map_err(failed("find the mounts of", path))?;
        Ok(Self::parse(&text))
    }

    /// The last mount on a place is the one that shows.
    fn parse(mountinfo: &str) -> Self {
        let mut found = Self { all: Vec::new(), cpu: None, memory: None };
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let (Some(place), mut kind) = (before.split(' ').nth(4), after.split(' ')) else { continue };
            let place = PathBuf::from(place);
            let options = after.rsplit(' ').next().unwrap_or_default();
            let has = |name: &str| options.split(',').any(|option| option == name);
            match kind.next() {
                Some("cgroup") => {
                    if has("cpu") {
                        found.cpu = Some(place.clone());
                    }
                    if has("memory") {
                        found.memory = Some(place.clone());
                    }
                }
                Some("cgroup2") => unified = Some(place.clone()),
                _ => continue,
            }
            found.all.retain(|known| *known != place);
            found.all.push(place);
        }
        if let Some(unified) = unified.filter(|_| found.cpu.is_none() && found.memory.is_none()) {
            found.cpu = Some(unified.clone());
            found.memory = Some(unified);
        }
        found
    }

    /// Makes a cgroup and writes what is told about it.
    fn apply(&self, name: &str, limits: &PodLimits) -> Result<(), CgroupError> {
        if let Some(root) = &self.cpu {
            let directory = make(root, name)?;
            let quota = limits.cpu_quota;
            write(&directory, "cpu.shares", &limits.cpu_shares.to_string())?;
            write(&directory, "cpu.cfs_period_us", &limits.cpu_period.to_string())?;
            write(&directory, "cpu.cfs_quota_us", &quota.unwrap_or(-1).to_string())?;
            write(&directory, "cpu.weight", &weight(limits.cpu_shares).to_string())?;
            let most = quota.map_or("max".to_owned(), |quota| quota.to_string());
            write(&directory, "cpu.max", &format!("{most} {}", limits.cpu_period))?;
        }
        if let Some(root) = &self.memory {
            let directory = make(root, name)?;
            let limit = limits.memory_limit;
            write(&directory, "memory.limit_in_bytes", &limit.unwrap_or(-1).to_string())?;
            write(&directory, "memory.max", &limit.map_or("max".to_owned(), |limit| limit.to_string()))?;
        }
        Ok(())
    }
}

/// The weight of v2 that stands for these shares of v1.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Makes a cgroup, and on v2 hands the controllers down to it.
fn make(root: &Path, name: &str) -> Result<PathBuf, CgroupError> {
    let mut directory = root.to_owned();
    for part in name.split('/') {
        let control = directory.join("cgroup.subtree_control");
        if control.exists() {
            for controller in ["+cpu", "+memory", "+pids", "+cpuset", "+io"] {
                // A controller that is not there cannot be handed down.
                if let Err(error) = std::fs::write(&control, controller) {
                    tracing::trace!(path = %control.display(), controller, %error, "controller not handed down");
                }
            }
        }
        directory.push(part);
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("make", &directory)(error));
            }
            _ => {}
        }
    }
    Ok(directory)
}

/// Writes a file of a cgroup if this kind of cgroup has it.
fn write(directory: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = directory.join(file);
    if !path.exists() {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(failed("write", &path))
}

/// Removes a cgroup and those below it.
fn remove_tree(directory: &Path) -> Result<(), CgroupError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("list", directory)(error)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let begin = Instant::now();
    loop {
        match std::fs::remove_dir(directory) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && begin.elapsed() < END => {
                if begin.elapsed() > PATIENCE {
                    kill_all(directory)?;
                }
                std::thread::sleep(LOOK);
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed("remove", directory)(error));
            }
            _ => return Ok(()),
        }
    }
}

/// Kills the processes of a cgroup.
fn kill_all(directory: &Path) -> Result<(), CgroupError> {
    let file = directory.join("cgroup.procs");
    let processes = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.map_err(failed("read", &file))?,
    };
    // Those of other process namespaces are shown as 0.
    for process in
        processes.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|process| *process > 0)
    {
        tracing::warn!(process, cgroup = %directory.display(), "killing a process that a pod left behind");
        match kill(Pid::from_raw(process), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(failed("kill a process in", directory)(error.into())),
        }
    }
    Ok(())
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_pure() {
        let hybrid = "1 2 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            3 1 0:2 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            4 1 0:3 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            5 1 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Mounts::parse(hybrid);
        assert_eq!(found.cpu.as_deref(), Some(Path::new("/sys/fs/cgroup/cpu")));
        assert_eq!(found.memory.as_deref(), Some(Path::new("/sys/fs/cgroup/memory")));
        assert_eq!(found.all.len(), 3);
        let pure = Mounts::parse("1 2 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(pure.cpu, pure.memory);
        assert_eq!(pure.cpu.as_deref(), Some(Path::new("/sys/fs/cgroup")));
    }

    #[test]
    fn weights() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }
}
