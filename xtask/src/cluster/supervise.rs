//! Keeps the processes of a cluster running: the control plane and the first process of every node. Started by `up`, in the cluster's
//! own cgroup, and level-triggered: started again after a crash it takes over what still runs.

use super::{Cluster, FABRIC_V4, Node, Process, cgroups, network};
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The cgroup of the control plane.
const CONTROL_PLANE: &str = "control-plane";

/// Flags of the supervisor.
#[derive(clap::Args)]
pub struct Options {
    /// The cluster
    name: String,
}

/// A running unit: our child, or one that an earlier supervisor started.
enum Running {
    Child(Child),
    Adopted(Process),
}

impl Running {
    fn alive(&mut self) -> bool {
        match self {
            Self::Child(child) => matches!(child.try_wait(), Ok(None)),
            Self::Adopted(process) => process.alive(),
        }
    }

    /// How it ended, if we can know.
    fn status(&mut self) -> String {
        match self {
            Self::Child(child) => match child.try_wait() {
                Ok(Some(status)) => format!(" ({status})"),
                _ => String::new(),
            },
            Self::Adopted(_) => String::new(),
        }
    }
}

/// Unit 0 is the control plane, the others are the nodes.
fn unit_name(number: u8) -> String {
    if number == 0 { "the control plane".to_owned() } else { format!("node-{number}") }
}

/// What is kept running under a name.
struct Unit {
    running: Option<Running>,
    started: Instant,
    failures: u32,
}

/// The lock that says a supervisor runs; held as long as the file is open.
pub fn lock(cluster: &Cluster) -> Result<Option<File>> {
    let path = cluster.directory().join("supervisor.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    // SAFETY: flock(2) on a file descriptor that `file` owns.
    let taken = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0;
    Ok(taken.then_some(file))
}

/// Says something in the log. A log on a full disk must not end the cluster, so nothing is said then.
pub fn say(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Opens a log for appending.
pub fn log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Runs until it is ended with its cgroup.
pub fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::load(&options.name)?;
    let Some(_lock) = lock(&cluster)? else { bail!("cluster {} has a supervisor already", cluster.name) };
    // First of all, before its number can be anything else's.
    let handed = handed_listener();
    network::fabric(&cluster)?;
    let control_plane = cluster.directory().join("control-plane.pid");
    end_earlier(&cluster);
    let listener = handed.map_or_else(|| listen(&cluster), Ok)?;
    let mut units: BTreeMap<u8, Unit> = BTreeMap::new();
    loop {
        // Read anew each round: `up` with more nodes changes it.
        let cluster = Cluster::load(&options.name)?;
        for number in 0..=cluster.nodes {
            let unit = units.entry(number).or_insert_with(|| Unit {
                running: None,
                started: Instant::now(),
                failures: 0,
            });
            if unit.running.as_mut().is_some_and(Running::alive) {
                continue;
            }
            if let Some(mut ended) = unit.running.take() {
                let short = unit.started.elapsed() < Duration::from_secs(10);
                unit.failures = if short { unit.failures + 1 } else { 0 };
                say(format_args!("{} ended{}; starting it again", unit_name(number), ended.status()));
            }
            // The first restart is immediate, later ones wait: a program that cannot start must not spin.
            if unit.failures > 1
                && unit.started.elapsed() < Duration::from_millis(250 << unit.failures.min(5))
            {
                continue;
            }
            let started = if number == 0 {
                start_control_plane(&cluster, &listener, &control_plane)
            } else {
                cluster
                    .nodes()
                    .into_iter()
                    .find(|n| n.number == number)
                    .context("no such node")
                    .and_then(|n| start_node(&n))
            };
            unit.started = Instant::now();
            match started {
                Ok(running) => unit.running = Some(running),
                Err(error) => {
                    unit.failures += 1;
                    say(format_args!("{}: {error:#}", unit_name(number)));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Ends the control plane of an earlier supervisor: its listening socket cannot be taken over. Found by its cgroup, not by a note that
/// a supervisor may not have come to write.
fn end_earlier(cluster: &Cluster) {
    let start = Instant::now();
    loop {
        let processes = cgroups::processes(&cluster.cgroup(), CONTROL_PLANE);
        if processes.is_empty() || start.elapsed() > Duration::from_secs(10) {
            return;
        }
        let signal = if start.elapsed() < Duration::from_secs(5) { libc::SIGTERM } else { libc::SIGKILL };
        for pid in processes {
            // SAFETY: kill(2) on a process that was in our own cgroup a moment ago.
            unsafe { libc::kill(pid, signal) };
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Between fork and exec: makes a socket descriptor 3, the first of socket activation (sd_listen_fds(3)).
pub fn hand_over(socket: i32) -> std::io::Result<()> {
    // SAFETY: both calls take numbers and change this process's table of descriptors only.
    let done = unsafe {
        if socket == 3 { libc::fcntl(3, libc::F_SETFD, 0) == 0 } else { libc::dup2(socket, 3) == 3 }
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The listening socket that `up` opened for a new cluster, by the protocol of socket activation.
fn handed_listener() -> Option<TcpListener> {
    if std::env::var("LISTEN_FDS").ok()? != "1" {
        return None;
    }
    // SAFETY: fcntl(2) sets a flag, and fails on a descriptor that is not open.
    if unsafe { libc::fcntl(3, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return None;
    }
    // SAFETY: whoever sets LISTEN_FDS hands descriptor 3 over to this process.
    Some(TcpListener::from(unsafe { OwnedFd::from_raw_fd(3) }))
}

/// Takes the cluster's port back.
fn listen(cluster: &Cluster) -> Result<TcpListener> {
    let (name, port) = (&cluster.name, cluster.port);
    match TcpListener::bind(("127.0.0.1", port)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "port {port} of 127.0.0.1, which cluster {name} has for its API server, is taken by another program; end that, or `cargo xtask down --name {name}` and `up` for a cluster at another port"
        ),
        other => other.with_context(|| format!("cannot listen on 127.0.0.1:{port}")),
    }
}

fn namespace(name: &str) -> Result<OwnedFd> {
    let path = Path::new("/run/netns").join(name);
    Ok(File::open(&path)
        .with_context(|| format!("cannot open the network namespace {}", path.display()))?
        .into())
}

fn start_control_plane(cluster: &Cluster, listener: &TcpListener, note: &Path) -> Result<Running> {
    let cgroup = cgroups::make(&cluster.cgroup(), CONTROL_PLANE)?;
    let fabric = namespace(&cluster.fabric())?;
    let socket = listener.as_raw_fd();
    let log = log(&cluster.logs().join("control-plane.log"))?;
    let mut command = Command::new(workspace::binaries(cluster.release).join("pagurus-controlplane"));
    command
        .arg("--data-dir")
        .arg(cluster.data())
        .args([
            "--bind-address",
            "0.0.0.0",
            "--secure-port",
            &super::API_PORT.to_string(),
            "--advertise-address",
            FABRIC_V4,
        ])
        .args(["--service-cluster-ip-range", super::SERVICE_CIDRS, "--cluster-cidr", super::CLUSTER_CIDRS])
        .arg("--allow-privileged")
        .env("LISTEN_FDS", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // SAFETY: between fork and exec only system calls on descriptors and paths prepared above.
    unsafe {
        command.pre_exec(move || {
            cgroups::join(&cgroup)?;
            if libc::setns(fabric.as_raw_fd(), libc::CLONE_NEWNET) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            hand_over(socket)
        });
    }
    let child = command.spawn().context("cannot start pagurus-controlplane")?;
    if let Some(process) = Process::of(child.id() as i32) {
        process.write(note)?;
    }
    Ok(Running::Child(child))
}

/// Takes over a node that runs, or starts one.
fn start_node(node: &Node) -> Result<Running> {
    std::fs::create_dir_all(node.directory())
        .with_context(|| format!("cannot create {}", node.directory().display()))?;
    if let Some(process) = Process::read(&node.pid_file()).filter(Process::alive) {
        return Ok(Running::Adopted(process));
    }
    // Held by a node as long as it runs, also when its supervisor died before it could note the process.
    let lock = log(&node.directory().join("lock"))?;
    if let Err(error) = lock.try_lock() {
        let process =
            init_of(node).with_context(|| format!("{} runs, but not in its cgroup: {error}", node.name()))?;
        process.write(&node.pid_file())?;
        return Ok(Running::Adopted(process));
    }
    network::node(node)?;
    let cgroup = cgroups::make(&node.cluster.cgroup(), &node.name())?;
    let netns = namespace(&node.netns())?;
    let log = log(&node.cluster.logs().join(format!("{}.log", node.name())))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["node-init", &node.cluster.name, &node.name()])
        .env("CARGO_MANIFEST_DIR", workspace::root().join("xtask"))
        .env(super::node::LOCK, lock.as_raw_fd().to_string())
        .env_remove("LISTEN_FDS")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let spaces = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP;
    // SAFETY: between fork and exec only system calls on descriptors and paths prepared above.
    unsafe {
        command.pre_exec(move || {
            cgroups::join(&cgroup)?;
            if libc::fcntl(lock.as_raw_fd(), libc::F_SETFD, 0) != 0
                || libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) != 0
                || libc::unshare(spaces) != 0
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    // A new pid namespace holds for the children of the thread that asked for it, so a thread of its own asks.
    let child = std::thread::spawn(move || -> Result<Child> {
        // SAFETY: unshare(2) without memory arguments; it changes this thread only, which ends after the spawn.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
            return Err(std::io::Error::last_os_error()).context("cannot make a pid namespace");
        }
        command.spawn().context("cannot start the node's first process")
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the thread that starts nodes panicked"))??;
    Process::of(child.id() as i32)
        .context("the node's first process ended at once")?
        .write(&node.pid_file())?;
    Ok(Running::Child(child))
}

/// The first process of a node that runs: the one in its cgroup that is number 1 of a pid namespace just below ours.
fn init_of(node: &Node) -> Option<Process> {
    let leaf = node.name();
    let pids = [leaf.clone(), format!("{leaf}/init")];
    let pids = pids.iter().flat_map(|leaf| cgroups::processes(&node.cluster.cgroup(), leaf));
    pids.filter(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        numbers.split_whitespace().collect::<Vec<_>>() == [pid.to_string().as_str(), "1"]
    })
    .find_map(Process::of)
}
