//! An API server alone, as a process of its own on loopback: started, killed and started again with what it had.
//!
//! Must not know: what is asked of it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::program;
use crate::eventually::eventually;
use crate::kubectl::Kubectl;

/// How long it may take to serve, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process, its directory and its address.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    /// Where the log is, and the data unless they are elsewhere.
    home: tempfile::TempDir,
    data: PathBuf,
    port: u16,
    components: &'static str,
    environment: Vec<(String, PathBuf)>,
    flags: Vec<String>,
    kubectl: Option<&'static Kubectl>,
}

impl Server {
    /// Starts one with nothing in it; none (and says so) where nobody tells where the programs are.
    ///
    /// # Errors
    /// It does not start.
    pub fn start() -> Result<Option<Self>> {
        Self::start_with("apiserver", None)
    }

    /// The same with these components, and with its data in a directory of the caller's.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_with(components: &'static str, data: Option<&Path>) -> Result<Option<Self>> {
        Self::start_as(components, data, Vec::new(), &[])
    }

    /// The same with more in its environment, and with these flags.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_as(
        components: &'static str,
        data: Option<&Path>,
        environment: Vec<(String, PathBuf)>,
        flags: &[&str],
    ) -> Result<Option<Self>> {
        if let Err(reason) = program("pagurus-controlplane") {
            println!("SKIPPED: {reason} (`cargo xtask test` does it)");
            return Ok(None);
        }
        let home = tempfile::tempdir().context("make a directory for the API server")?;
        let data = data.map_or_else(|| home.path().join("data"), Path::to_path_buf);
        let (port, flags) = (free_port()?, flags.iter().map(|flag| (*flag).to_owned()).collect());
        let mut server =
            Self { child: None, home, data, port, components, environment, flags, kubectl: None };
        server.restart()?;
        Ok(Some(server))
    }

    /// Starts it, with all it had, and waits until it serves. Gives how long that took.
    ///
    /// # Errors
    /// It does not serve; with the end of its log.
    pub fn restart(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.spawn()?;
        let ready = eventually("the API server serves", PATIENCE, || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()) {
                return Ok(Some(Err(anyhow::anyhow!("the API server ended: {}", status?))));
            }
            ensure!(self.kubeconfig().is_file(), "there is no kubeconfig yet");
            std::net::TcpStream::connect(self.address())?;
            Ok(Some(Ok(())))
        });
        ready.flatten().with_context(|| format!("its log ends with: {}", self.log_end()))?;
        Ok(begun.elapsed())
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the API server runs already");
        let program = program("pagurus-controlplane")?;
        let log = File::options().create(true).append(true).open(self.log()).context("open its log")?;
        let mut command = Command::new(&program);
        command.arg("--data-dir").arg(&self.data).args(["--bind-address", "127.0.0.1"]);
        command.args(["--advertise-address", "127.0.0.1", "--secure-port", &self.port.to_string()]);
        command.args(["--components", self.components, "--service-cluster-ip-range", "10.96.0.0/16"]);
        command.args(&self.flags).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("start {}", program.display()))?);
        Ok(())
    }

    /// Ends it at once, as a machine that goes away.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        kill(Pid::from_raw(child.id().try_into()?), Signal::SIGKILL).or_else(|error| match error {
            nix::errno::Errno::ESRCH => Ok(()),
            other => Err(other),
        })?;
        child.wait()?;
        Ok(())
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("admin.kubeconfig")
    }

    /// The administrator's configuration of a client.
    ///
    /// # Errors
    /// The kubeconfig is unusable.
    pub async fn config(&self) -> Result<kube::Config> {
        let file = Kubeconfig::read_from(self.kubeconfig())?;
        Ok(kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)
    }

    /// A client of the administrator; to be made inside of a runtime.
    ///
    /// # Errors
    /// The kubeconfig is unusable.
    pub async fn client(&self) -> Result<kube::Client> {
        Ok(kube::Client::try_from(self.config().await?)?)
    }

    /// From now on it is asked with this kubectl.
    pub fn use_kubectl(&mut self, kubectl: &'static Kubectl) {
        self.kubectl = Some(kubectl);
    }

    /// A command of kubectl for the administrator, with our plugin on its path and a cache of its own: another server may have had this
    /// port before.
    ///
    /// # Errors
    /// There is no kubectl.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let binaries = std::env::var("PAGURUS_BINARIES").context("PAGURUS_BINARIES is not set")?;
        let path = format!("{binaries}:{}", std::env::var("PATH").unwrap_or_default());
        let mut command = self.kubectl.map_or_else(Kubectl::first, Ok)?.command();
        command.args(words).env("PATH", path).env("KUBECONFIG", self.kubeconfig());
        command.env("HOME", self.home.path()).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs kubectl for the administrator; its output whatever it is.
    ///
    /// # Errors
    /// There is no kubectl.
    pub fn kubectl(&self, words: &[&str]) -> Result<Output> {
        self.command(words)?.output().context("start kubectl")
    }

    /// What kubectl prints.
    ///
    /// # Errors
    /// It failed; with what it said.
    pub fn ok(&self, words: &[&str]) -> Result<String> {
        let out = self.kubectl(words)?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "kubectl {}: {}", words.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// It does not run.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(self.proc("status")?)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS")?;
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// How many files and sockets it has open.
    ///
    /// # Errors
    /// It does not run.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(self.proc("fd")?)?.count())
    }

    fn proc(&self, file: &str) -> Result<PathBuf> {
        let child = self.child.as_ref().context("the API server does not run")?;
        Ok(format!("/proc/{}/{file}", child.id()).into())
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// The last lines it has said.
    pub fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the API server's log\n{}", self.log_end());
        }
        if let Err(error) = self.kill() {
            eprintln!("end the API server: {error:#}");
        }
    }
}

/// A port nobody listens on now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
