//! Whether this machine can run the agent. Each refusal is one line that says what is wrong and what to do. Nothing is
//! changed but a file that is written and removed to see whether the disk takes it.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::statfs::{FsType, statfs};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// The oldest kernel with every hook the dataplane uses, and long-term support.
const OLDEST_KERNEL: (u32, u32) = (5, 10);
const CGROUP2_MAGIC: FsType = FsType(libc::CGROUP2_SUPER_MAGIC);
const BPF_MAGIC: FsType = FsType(libc::BPF_FS_MAGIC);
/// How long the runtime may take to come up.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(60);

/// Checks what can be checked at once.
pub fn check(config: &Config) -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the agent must run as root (it mounts volumes and loads BPF programs)"
    );
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
    kernel(release.trim())?;
    let cgroup_root = &config.cgroup_root;
    let filesystem =
        statfs(cgroup_root).with_context(|| format!("look at --cgroup-root {}", cgroup_root.display()))?;
    ensure!(
        filesystem.filesystem_type() == CGROUP2_MAGIC,
        "--cgroup-root {} is not in a cgroup2 file system; mount one (mount -t cgroup2 none DIR) and name it",
        cgroup_root.display()
    );
    if config.dataplane {
        ensure!(
            Path::new("/sys/kernel/btf/vmlinux").exists(),
            "this kernel has no BTF (/sys/kernel/btf/vmlinux); use one built with CONFIG_DEBUG_INFO_BTF, or --dataplane=off"
        );
        let bpffs = &config.bpffs;
        let filesystem = statfs(bpffs).with_context(|| format!("look at --bpffs {}", bpffs.display()))?;
        ensure!(
            filesystem.filesystem_type() == BPF_MAGIC,
            "--bpffs {0} is not a BPF file system; mount one (mount -t bpf bpf {0})",
            bpffs.display()
        );
    }
    if config.kubelet {
        writable("--root-dir", &config.root_dir)?;
        writable("--pod-logs-dir", &config.pod_logs_dir)?;
    }
    Ok(())
}

fn kernel(release: &str) -> anyhow::Result<()> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        bail!("the kernel's release {release:?} has no version number");
    };
    let (oldest_major, oldest_minor) = OLDEST_KERNEL;
    ensure!(
        (major, minor) >= OLDEST_KERNEL,
        "kernel {release} is too old: the agent needs {oldest_major}.{oldest_minor} or newer"
    );
    Ok(())
}

/// Makes the directory and writes a file in it, down to the disk.
fn writable(flag: &str, directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    std::fs::create_dir_all(directory).with_context(|| format!("create {flag} {shown}"))?;
    let path = directory.join(".pagurus-agent-check");
    let written = std::fs::File::create(&path).and_then(|mut file| {
        file.write_all(&[b'.'; 64 * 1024])?;
        file.sync_data()
    });
    let removed = std::fs::remove_file(&path);
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            bail!("{flag} {shown}: the disk is full; make room or name another directory")
        }
        written => written.with_context(|| format!("write in {flag} {shown}"))?,
    }
    removed.with_context(|| format!("remove {}", path.display()))
}

/// Waits until the runtime's socket takes connections, saying so; not for ever.
pub async fn runtime_socket(config: &Config, cancel: &CancellationToken) -> anyhow::Result<()> {
    let socket = &config.runtime_socket;
    let start = Instant::now();
    let mut said = None;
    loop {
        let error = match tokio::net::UnixStream::connect(socket).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let waited = start.elapsed();
        if waited > RUNTIME_PATIENCE {
            return Err(error).with_context(|| {
                let (socket, seconds) = (socket.display(), RUNTIME_PATIENCE.as_secs());
                format!("no container runtime answered at {socket} for {seconds} s; start it or give --container-runtime-endpoint")
            });
        }
        if said.is_none_or(|at| waited - at > Duration::from_secs(5)) {
            said = Some(waited);
            let left = (RUNTIME_PATIENCE - waited).as_secs();
            tracing::info!(socket = %socket.display(), %error, "waiting for the container runtime, {left} s more");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            () = cancel.cancelled() => bail!("stopped while waiting for the container runtime at {}", socket.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        let check = |release: &str, good: bool| assert_eq!(kernel(release).is_ok(), good, "{release}");
        check("6.18.44", true);
        check("5.10.0-8-amd64", true);
        check("10.0", true);
        check("5.9.16", false);
        check("4.19.0", false);
        check("weird", false);
    }

    #[test]
    fn writable_directories() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let below = directory.path().join("a/b");
        writable("--root-dir", &below).expect("writable");
        assert_eq!(std::fs::read_dir(&below).expect("made").count(), 0, "nothing is left behind");
        let error = writable("--root-dir", Path::new("/proc/nowhere")).expect_err("not writable");
        assert!(error.to_string().contains("--root-dir /proc/nowhere"), "{error}");
    }
}
