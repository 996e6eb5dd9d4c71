//! A control plane and agents as processes of their own on the network of a [`Topology`](crate::topology::Topology), without
//! containers: what is tested and measured is the program as it is installed.
//!
//! Must not know: what is asked of them.

mod api;
mod ground;

pub use api::{ApiServer, NODES, PORT as SERVICE_PORT, SERVICES, SLICES, TARGET};
pub use ground::Ground;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pagurus_agent::dns::keeper;
use pagurus_agent_datapath::Datapath;

use crate::eventually::eventually;
use crate::netns::{Sandbox, ip, isolated, run};
use crate::topology::{Host, Node};

/// Where the API server is, on the nodes' network.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 200);
const PORT: u16 = 6443;
/// Where an agent has its state, as it sees it.
const RUN: &str = "/run/pagurus";
/// How long a process may take to start or to end, and to do what it is there for, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A program of the workspace, as `cargo xtask test` and `bench` tell where they are.
///
/// # Errors
/// Nobody has told.
pub fn program(name: &str) -> Result<PathBuf> {
    let binaries = std::env::var_os("PAGURUS_BINARIES").context("PAGURUS_BINARIES is not set")?;
    Ok(Path::new(&binaries).join(name))
}

/// Runs a test of programs isolated, if they are there and the agent's has its BPF programs; says why not otherwise.
pub fn with_programs(name: &str, body: impl FnOnce(&Sandbox) -> Result<()>) {
    if !Datapath::is_built() {
        println!("SKIPPED: built without BPF programs (`cargo xtask build` makes them)");
        return;
    }
    if let Err(reason) = program("pagurus-agent") {
        println!("SKIPPED: {reason} (`cargo xtask test` does it)");
        return;
    }
    isolated(name, body);
}

/// The API server with its store, in the namespace of the test, and a kubeconfig of its administrator.
#[derive(Debug)]
pub struct ControlPlane {
    child: Child,
    directory: tempfile::TempDir,
}

impl ControlPlane {
    /// Starts one with nothing in it. The bridge of the topology has to be there.
    ///
    /// # Errors
    /// It does not start.
    pub fn start() -> Result<Self> {
        ip(&["addr", "add", &format!("{ADDRESS}/24"), "dev", "br0"])?;
        let directory = tempfile::tempdir().context("make a directory for the control plane")?;
        let child = Self::spawn(directory.path())?;
        let this = Self { child, directory };
        let (data, server) = (this.directory.path().join("data"), format!("https://{ADDRESS}:{PORT}"));
        eventually("the control plane listens", PATIENCE, || Ok(TcpStream::connect((ADDRESS, PORT)).ok()))?;
        let (data, out) = (data.display().to_string(), this.kubeconfig().display().to_string());
        let words = ["kubeconfig", "--data-dir", &data, "--user", "admin", "--group", "system:masters"];
        let words = [&words[..], &["--server", &server, "--out", &out]].concat();
        let program = program("pagurus-controlplane")?.display().to_string();
        // It listens before it has made the keys.
        eventually("the cluster's keys are there", PATIENCE, || run(&program, &words).map(Some))?;
        Ok(this)
    }

    fn spawn(directory: &Path) -> Result<Child> {
        let program = program("pagurus-controlplane")?;
        let log = File::create(directory.join("log")).context("create the control plane's log")?;
        let address = ADDRESS.to_string();
        let mut command = Command::new(&program);
        command.arg("--data-dir").arg(directory.join("data")).args(["--bind-address", &address]);
        command.args(["--secure-port", &PORT.to_string(), "--components", "apiserver"]);
        command.args(["--service-cluster-ip-range", "10.96.0.0/12,fd10:96::/108", "--allow-privileged"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("start {}", program.display()))
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// A client; to be made inside of a runtime.
    ///
    /// # Errors
    /// The kubeconfig is unusable.
    pub async fn client(&self) -> Result<kube::Client> {
        let file = Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Ends it at once, as a machine that goes away.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again, with all it had.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.child = Self::spawn(self.directory.path())?;
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("end the control plane: {error:#}");
        }
    }
}

/// An agent on a node: Services only, beside pods that others have made, unless its arguments say otherwise.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    host: Host,
    directory: PathBuf,
}

/// Where the agents of a node have what they keep: on a file system of the test's own, so that the next one finds what the last one has
/// left. To them it is `/run/pagurus`, and `lib` in it is `/var/lib`.
pub fn home(node: &Node) -> PathBuf {
    PathBuf::from(format!("/run/netns/run-{}", node.host.name))
}

/// The agent's program, to be started on a node and with the files of its home, with these arguments.
///
/// # Errors
/// The home cannot be made.
pub fn tool(node: &Node, arguments: &[&str]) -> Result<Command> {
    tool_of(&program("pagurus-agent")?, node, arguments)
}

/// As [`tool`], of another program file.
fn tool_of(program: &Path, node: &Node, arguments: &[&str]) -> Result<Command> {
    let directory = home(node);
    fs::create_dir_all(directory.join("lib")).with_context(|| format!("create {}", directory.display()))?;
    fs::create_dir_all(RUN).with_context(|| format!("create {RUN}"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    let run = std::ffi::CString::new(directory.as_os_str().as_encoded_bytes())?;
    let lib = std::ffi::CString::new(directory.join("lib").as_os_str().as_encoded_bytes())?;
    // SAFETY: between fork and exec only system calls are made, on strings that were made before.
    unsafe {
        command.pre_exec(move || {
            let bind = |from: &std::ffi::CStr, to: &std::ffi::CStr| {
                let null = std::ptr::null();
                libc::mount(from.as_ptr(), to.as_ptr(), null, libc::MS_BIND, null.cast()) == 0
            };
            if libc::unshare(libc::CLONE_NEWNS) != 0
                || !bind(&lib, c"/var/lib")
                || !bind(&run, c"/run/pagurus")
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(command)
}

impl Agent {
    /// Starts one. `arguments` come after those that lead it to its node.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(node: &Node, kubeconfig: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_program(&program("pagurus-agent")?, node, kubeconfig, arguments)
    }

    /// Starts one, and waits until every part of it is ready.
    ///
    /// # Errors
    /// It cannot be started, or is not ready in time.
    pub fn started(node: &Node, kubeconfig: &Path, arguments: &[&str]) -> Result<Self> {
        let mut agent = Self::start(node, kubeconfig, arguments)?;
        agent.ready(PATIENCE)?;
        Ok(agent)
    }

    /// As [`start`](Self::start), of another program file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_program(program: &Path, node: &Node, kubeconfig: &Path, arguments: &[&str]) -> Result<Self> {
        let directory = home(node);
        let mut command = tool_of(program, node, &["--kubelet", "off"])?;
        command.arg("--kubeconfig").arg(kubeconfig).args(["--node-name", &node.host.name]);
        command.arg("--node-ip").arg(format!("{},{}", node.ips.v4, node.ips.v6));
        if !arguments.iter().any(|argument| argument.starts_with("--pod-network")) {
            command.args(["--pod-network", "off"]);
        }
        command.arg("--cgroup-root").arg(&node.cgroup).arg("--bpffs").arg(&node.bpffs);
        command.arg("--root-dir").arg(directory.join("root")).args(arguments);
        let log = File::options().create(true).append(true).open(directory.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let host = node.host.unhooked();
        let child = host.run(|| command.spawn().with_context(|| format!("start {command:?}")))?;
        Ok(Self { child, host, directory })
    }

    /// Waits until every part of it is ready.
    ///
    /// # Errors
    /// It is not in time; with the end of its log.
    pub fn ready(&mut self, limit: Duration) -> Result<()> {
        let ready = eventually("the agent is ready", limit, || {
            if let Some(status) = self.child.try_wait()? {
                // No use in waiting on.
                return Ok(Some(Err(anyhow::anyhow!("the agent ended: {status}"))));
            }
            let answer = self.get("/readyz")?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            Ok(Some(Ok(())))
        });
        ready.flatten().with_context(|| format!("its log ends with: {}", self.log_end()))
    }

    /// An answer of its health port, head and all.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, path: &str) -> Result<String> {
        self.host.run(|| {
            let mut stream = TcpStream::connect("127.0.0.1:10248")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    /// A metric without labels.
    ///
    /// # Errors
    /// It is not there.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let metrics = self.get("/metrics")?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no metric {name}"))?.trim().parse()?)
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines it has said.
    pub fn log_end(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Ends it, kindly or not.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().try_into()?), signal)?;
        eventually("the agent ends", PATIENCE, || Ok(self.child.try_wait()?))?;
        Ok(())
    }
}

impl Drop for Agent {
    /// An agent that still runs is the node's last one: who holds its DNS sockets ends with it.
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Err(error) = self.end(Signal::SIGKILL) {
            eprintln!("end the agent: {error:#}");
        }
        let socket = self.directory.join("dns-sockets.sock");
        if let Err(error) = keeper::end(&keeper::Settings { socket, command: Vec::new() }) {
            eprintln!("end who holds the DNS sockets: {error}");
        }
    }
}
