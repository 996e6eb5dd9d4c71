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
/// How long an API server may refuse this node before the agent starts anyway, and how long one answer may take.
const RIGHTS_PATIENCE: Duration = Duration::from_secs(10);
const RIGHTS_ANSWER: Duration = Duration::from_secs(2);

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

/// Waits while the API server is there but refuses this node: one that has just been started for the first time makes the
/// roles of nodes a moment after it begins to serve. Said once; after a while the subsystems say themselves what is refused.
pub async fn api_rights(client: &kube::Client, node_name: &str, cancel: &CancellationToken) {
    let start = Instant::now();
    let mut said = false;
    while start.elapsed() < RIGHTS_PATIENCE {
        let request =
            kube::core::Request::new("/api/v1/nodes").get(node_name, &kube::api::GetParams::default());
        let Ok(request) = request else { return };
        let answer = tokio::select! {
            answer = tokio::time::timeout(RIGHTS_ANSWER, client.request::<serde_json::Value>(request)) => answer,
            () = cancel.cancelled() => return,
        };
        // A server that is away, or does not know the node yet, is what every subsystem copes with.
        match answer {
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {}
            _ => return,
        }
        if !std::mem::replace(&mut said, true) {
            tracing::info!("waiting until the API server knows what nodes may do");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = cancel.cancelled() => return,
        }
    }
    tracing::warn!(
        "the API server refuses to tell this node about itself; does the kubeconfig name a user system:node:{node_name}?"
    );
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

    #[tokio::test]
    async fn refusals_are_waited_out() {
        /// How many requests it takes, with an API server that answers so.
        async fn check(answers: &'static [u16], expected: usize) {
            let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let count = asked.clone();
            let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
                let place = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let code = answers[place.min(answers.len() - 1)];
                let status =
                    serde_json::json!({"kind": "Status", "status": "Failure", "code": code, "message": "no"});
                let response = http::Response::builder()
                    .status(code)
                    .body(kube::client::Body::from(status.to_string().into_bytes()));
                std::future::ready(response)
            });
            let client = kube::Client::new(service, "default");
            api_rights(&client, "n1", &CancellationToken::new()).await;
            assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), expected, "{answers:?}");
        }
        check(&[200], 1).await;
        check(&[404], 1).await;
        check(&[503], 1).await;
        check(&[403, 403, 404], 3).await;
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
