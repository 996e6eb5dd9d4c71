//! First process of a node's namespaces: mounts what a machine of its own would have, then keeps the container runtime and the agent
//! running and reaps orphans. When it ends, the kernel ends every process of the node.

use super::supervise::say;
use super::{Cluster, Node, cgroups};
use crate::{images, workspace};
use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Flags of a node's first process.
#[derive(clap::Args)]
pub struct Options {
    /// The cluster
    cluster: String,
    /// The node
    node: String,
}

/// Directories that a node has for itself, kept in its directory on the host.
const OWN: &[&str] = &[
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/pagurus",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni/net.d",
    "/opt/cni/bin",
    "/tmp",
];

/// Trees of which a node sees its own copy, so that making directories in them leaves nothing on the host.
const COPIES: &[&str] = &["/etc", "/var", "/opt"];

/// Where the node's directory on the host is seen from inside.
const STATE: &str = "/run/pagurus-node";

/// The mount options of a node are all alike but for the file system.
fn mount_new(kind: &str, source: &str, target: &Path, options: &str) -> Result<()> {
    std::fs::create_dir_all(target).with_context(|| format!("cannot create {}", target.display()))?;
    let options = (!options.is_empty()).then_some(options);
    mount(Some(source), target, Some(kind), MsFlags::empty(), options).with_context(|| {
        format!("cannot mount {kind} ({}) on {}", options.unwrap_or_default(), target.display())
    })
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    std::fs::create_dir_all(target).with_context(|| format!("cannot create {}", target.display()))?;
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("cannot bind {} to {}", source.display(), target.display()))
}

/// Builds the node's view of the machine.
fn mounts(node: &Node, hierarchies: &[cgroups::Hierarchy]) -> Result<()> {
    let root = Path::new("/");
    mount(None::<&str>, root, None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make mounts private")?;
    // Volumes with mount propagation need shared mounts below the node.
    mount(None::<&str>, root, None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)
        .context("cannot share mounts")?;
    mount_new("proc", "proc", Path::new("/proc"), "")?;
    // The checkout may lie below what is covered next, so its directories are opened at fixed places first.
    let state = node.directory();
    let binaries = workspace::binaries(node.cluster.release);
    let logs = node.cluster.logs();
    let open = |path: &Path| -> Result<(std::fs::File, PathBuf)> {
        let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let link = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
        Ok((file, link))
    };
    let (opened_state, opened_binaries, opened_logs) = (open(&state)?, open(&binaries)?, open(&logs)?);
    let data = open(&node.cluster.data())?;
    mount_new("tmpfs", "run", Path::new("/run"), "mode=755")?;
    bind(&opened_state.1, Path::new(STATE))?;
    bind(&opened_binaries.1, Path::new("/run/pagurus-bin"))?;
    bind(&opened_logs.1, Path::new("/run/pagurus-logs"))?;
    bind(&data.1, Path::new("/run/pagurus-control-plane"))?;
    drop((opened_state, opened_binaries, opened_logs, data));
    mount_new("sysfs", "sysfs", Path::new("/sys"), "")?;
    mount_new("bpf", "bpf", Path::new("/sys/fs/bpf"), "")?;
    cgroup_mounts(hierarchies)?;
    for tree in COPIES {
        let name = tree.trim_start_matches('/');
        let (upper, work) = (Path::new(STATE).join(name), Path::new(STATE).join(format!("{name}.work")));
        for directory in [&upper, &work] {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let options = format!("lowerdir={tree},upperdir={},workdir={}", upper.display(), work.display());
        mount_new("overlay", "overlay", Path::new(tree), &options)?;
    }
    for directory in OWN {
        let source = Path::new(STATE).join("own").join(directory.trim_start_matches('/').replace('/', "-"));
        std::fs::create_dir_all(&source).with_context(|| format!("cannot create {}", source.display()))?;
        bind(&source, Path::new(directory))?;
    }
    std::fs::set_permissions("/tmp", std::os::unix::fs::PermissionsExt::from_mode(0o1777))
        .context("cannot open the node's /tmp to everybody")?;
    Ok(())
}

/// What must be left of the machine for a node to take pods: its disk is shared with everything else on it, so a share of the
/// whole (the kubelet's default) would say nothing.
const EVICTION: &str =
    "memory.available<100Mi,nodefs.available<512Mi,imagefs.available<512Mi,nodefs.inodesFree<1%";

/// Mounts the node's cgroups; each hierarchy's root is the node's own cgroup, through its cgroup namespace.
fn cgroup_mounts(hierarchies: &[cgroups::Hierarchy]) -> Result<()> {
    let top = Path::new("/sys/fs/cgroup");
    let hybrid = hierarchies.iter().any(|h| h.v1.is_some());
    if !hybrid {
        mount_new("cgroup2", "cgroup2", top, "")?;
        // A cgroup that hands controllers on holds no processes itself (cgroups(7), "no internal processes").
        std::fs::create_dir_all(top.join("init")).context("cannot create the node's init cgroup")?;
        std::fs::write(top.join("init/cgroup.procs"), "0").context("cannot enter the node's init cgroup")?;
        cgroups::delegate(top);
        return Ok(());
    }
    mount(Some("tmpfs"), top, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("cannot mount /sys/fs/cgroup")?;
    for hierarchy in hierarchies {
        match &hierarchy.v1 {
            None => mount_new("cgroup2", "cgroup2", &top.join("unified"), "")?,
            Some(options) => {
                let name = options.strip_prefix("none,name=").unwrap_or(options);
                mount_new("cgroup", "cgroup", &top.join(name), options)?;
            }
        }
    }
    Ok(())
}

/// The node's cgroup2 directory, where its socket programs are attached.
fn cgroup_root() -> &'static str {
    if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        "/sys/fs/cgroup/unified"
    } else {
        "/sys/fs/cgroup"
    }
}

/// Whether this process may lower OOM scores; without it the runtime must not try (it would fail to start any sandbox).
fn may_lower_oom_score() -> bool {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap_or_default();
    u64::from_str_radix(line.trim(), 16).is_ok_and(|caps| caps & CAP_SYS_RESOURCE != 0)
}

/// containerd's configuration (version 2 of its format).
fn containerd_config() -> String {
    format!(
        "version = 2\n\
         disabled_plugins = [\"io.containerd.internal.v1.opt\", \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.tracing.processor.v1.otlp\", \"io.containerd.internal.v1.tracing\"]\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
         sandbox_image = \"{}\"\n\
         restrict_oom_score_adj = {}\n\
         disable_tcp_service = true\n\
         stream_server_address = \"127.0.0.1\"\n\
         stream_server_port = \"0\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
         bin_dir = \"/opt/cni/bin\"\n\
         conf_dir = \"/etc/cni/net.d\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
         snapshotter = \"overlayfs\"\n",
        images::PAUSE,
        !may_lower_oom_score(),
    )
}

/// A program that is kept running.
struct Service {
    name: &'static str,
    command: Command,
    pid: Option<i32>,
    started: Instant,
    failures: u32,
}

impl Service {
    fn new(name: &'static str, command: Command) -> Self {
        Self { name, command, pid: None, started: Instant::now(), failures: 0 }
    }

    fn due(&self) -> bool {
        self.pid.is_none()
            && (self.failures < 2
                || self.started.elapsed() > Duration::from_millis(250 << self.failures.min(5)))
    }

    fn start(&mut self) {
        self.started = Instant::now();
        match self.command.spawn() {
            // Reaped by pid in `run`, with the orphans.
            Ok(child) => self.pid = Some(child.id() as i32),
            Err(error) => {
                self.failures += 1;
                say(format_args!("cannot start {}: {error}", self.name));
            }
        }
    }

    fn ended(&mut self, status: ExitStatus) {
        self.pid = None;
        self.failures = if self.started.elapsed() < Duration::from_secs(10) { self.failures + 1 } else { 0 };
        say(format_args!("{} ended ({status}); starting it again", self.name));
    }
}

fn containerd() -> Result<Command> {
    std::fs::create_dir_all("/run/containerd")?;
    std::fs::write("/run/containerd/config.toml", containerd_config())
        .context("cannot write containerd's configuration")?;
    let log = super::supervise::log(Path::new(&format!("/run/pagurus-logs/{}.containerd.log", hostname())))?;
    let mut command = Command::new("containerd");
    command.args(["--config", "/run/containerd/config.toml", "--log-level", "warn"]);
    command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

fn hostname() -> String {
    nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn agent(node: &Node) -> Result<Command> {
    let (v4, v6) = node.addresses();
    let log = super::supervise::log(Path::new(&format!("/run/pagurus-logs/{}.agent.log", node.name())))?;
    let mut command = Command::new("/run/pagurus-bin/pagurus-agent");
    command
        .args([
            "--kubeconfig",
            &format!("{STATE}/kubeconfig"),
            "--node-name",
            &node.name(),
            "--node-ip",
            &format!("{v4},{v6}"),
        ])
        .args(["--cgroup-root", cgroup_root(), "--eviction-hard", EVICTION])
        .args(&node.cluster.agent_flags)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}

/// The variable with the descriptor of the node's lock.
pub const LOCK: &str = "PAGURUS_NODE_LOCK";

/// Keeps the lock that says that this node runs: it is held as long as the descriptor is open here, and only here.
fn hold_lock() -> Result<()> {
    let Ok(text) = std::env::var(LOCK) else { return Ok(()) };
    let lock: i32 = text.parse().with_context(|| format!("{LOCK}: {text:?} is not a descriptor"))?;
    // SAFETY: fcntl(2) changes a flag of a descriptor that the supervisor passed on for this.
    if unsafe { libc::fcntl(lock, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot keep the node's lock");
    }
    Ok(())
}

/// Runs a node.
pub fn run(options: &Options) -> Result<()> {
    hold_lock()?;
    let node = Cluster::load(&options.cluster)?.node(&options.node)?;
    let hierarchies = cgroups::hierarchies();
    nix::unistd::sethostname(node.name()).context("cannot set the host name")?;
    mounts(&node, &hierarchies)?;
    std::fs::copy("/run/pagurus-bin/pagurus-cni", "/opt/cni/bin/pagurus-cni")
        .context("cannot install pagurus-cni")?;
    let mut services = vec![Service::new("containerd", containerd()?)];
    let mut identity: Option<Instant> = None;
    loop {
        // The agent's identity comes from the control plane's CA, which appears with its first start.
        if services.len() == 1 && identity.is_none_or(|last| last.elapsed() > Duration::from_millis(100)) {
            identity = Some(Instant::now());
            if write_identity(&node)
                .inspect_err(|error| say(format_args!("no identity yet: {error:#}")))
                .is_ok()
            {
                services.push(Service::new("pagurus-agent", agent(&node)?));
            }
        }
        services.iter_mut().filter(|s| s.due()).for_each(Service::start);
        reap(&mut services);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes the agent's kubeconfig once; it survives the node.
fn write_identity(node: &Node) -> Result<()> {
    let file = Path::new(STATE).join("kubeconfig");
    if file.exists() {
        return Ok(());
    }
    let new = Path::new(STATE).join("kubeconfig.new");
    if !Path::new("/run/pagurus-control-plane/pki/ca.crt").exists() {
        anyhow::bail!("the control plane has not made its CA");
    }
    crate::process::output(
        Command::new("/run/pagurus-bin/pagurus-controlplane")
            .args(["kubeconfig", "--data-dir", "/run/pagurus-control-plane"])
            .args(["--user", &format!("system:node:{}", node.name()), "--group", "system:nodes"])
            .args(["--server", &format!("https://{}:{}", super::FABRIC_V4, super::API_PORT), "--out"])
            .arg(&new),
    )?;
    std::fs::rename(&new, &file).with_context(|| format!("cannot write {}", file.display()))
}

/// Collects every ended child, ours and the orphans that the kernel hands to the first process.
fn reap(services: &mut [Service]) {
    loop {
        let mut status = 0;
        // SAFETY: waitpid(2) writes one int; no memory of ours is shared with it otherwise.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return;
        }
        if let Some(service) = services.iter_mut().find(|s| s.pid == Some(pid)) {
            service.ended(ExitStatus::from_raw(status));
        }
    }
}
