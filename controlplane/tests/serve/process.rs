//! A control plane process of its own, with a data directory that goes when it goes.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};

const BINARY: &str = env!("CARGO_BIN_EXE_pagurus-controlplane");
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one request may take while the process starts.
const ONE_TRY: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(20);

/// A running API server.
pub(crate) struct ControlPlane {
    dir: tempfile::TempDir,
    process: Process,
}

/// A process that is killed when it is not needed any more.
pub(crate) struct Process(Child);

impl Process {
    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.0.id()).unwrap();
        // SAFETY: sends a signal to the child, which has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }

    /// Waits for the end.
    pub(crate) async fn wait(&mut self, patience: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < patience, "the process does not end");
            tokio::time::sleep(STEP).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl ControlPlane {
    /// Starts one with an empty directory and waits until it is ready.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same, with one more listening socket handed over.
    pub(crate) async fn start_with(listener: Option<&TcpListener>) -> Self {
        Self::start_as(|command| {
            let Some(listener) = listener else { return };
            let socket = listener.as_raw_fd();
            command.env("LISTEN_FDS", "1");
            // SAFETY: between fork and exec only a system call on a descriptor that is open.
            unsafe {
                command.pre_exec(move || match libc::dup2(socket, 3) {
                    3 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                });
            }
        })
        .await
        .when_ready()
        .await
    }

    /// The same once it is ready.
    pub(crate) async fn when_ready(self) -> Self {
        self.ready().await;
        self
    }

    /// One that may write no file longer than so many bytes, which fails writes as a full disk does and needs no privileges.
    /// It may not become ready.
    pub(crate) async fn start_with_files_of(bytes: u64) -> Self {
        Self::start_as(|command| {
            // SAFETY: between fork and exec only system calls on values of the closure.
            unsafe {
                command.pre_exec(move || {
                    // Ignored signals stay ignored across exec; the write then fails instead.
                    libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
                    match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                        0 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    }
                });
            }
        })
        .await
    }

    /// Lets files grow again.
    pub(crate) fn lift_limit(&self) {
        let pid = i32::try_from(self.process.0.id()).unwrap();
        let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: sets a limit of the child, which has not been waited for, from a live value.
        assert_eq!(unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) }, 0);
    }

    async fn start_as(change: impl FnOnce(&mut Command)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command(&dir, &["--secure-port", "0"]);
        change(&mut command);
        let process = Process(command.spawn().unwrap());
        Self { dir, process }
    }

    /// Other components in a process of their own.
    pub(crate) fn components(&self, names: &str) -> Process {
        let mut command = Command::new(BINARY);
        command.args(["--components", names, "--kubeconfig"]).arg(self.admin_file()).env("RUST_LOG", "warn");
        Process(command.spawn().unwrap())
    }

    /// A client with all power, on another port.
    pub(crate) async fn client_at(&self, port: u16) -> Client {
        let mut file = Kubeconfig::read_from(self.admin_file()).unwrap();
        let cluster = file.clusters[0].cluster.as_mut().unwrap();
        cluster.server = Some(format!("https://127.0.0.1:{port}"));
        from_kubeconfig(file).await
    }

    fn admin_file(&self) -> PathBuf {
        self.dir.path().join("data/admin.kubeconfig")
    }

    async fn ready(&self) {
        eventually(async || self.answers("/readyz").await).await;
    }

    /// Whether a health check says "ok".
    pub(crate) async fn answers(&self, check: &str) -> bool {
        if !self.admin_file().exists() {
            return false;
        }
        let request = http::Request::get(check).body(Vec::new()).unwrap();
        let client = self.admin().await;
        let answer = tokio::time::timeout(ONE_TRY, client.request_text(request)).await;
        matches!(answer, Ok(Ok(answer)) if answer == "ok")
    }

    /// Begins the process anew on what it left; it has another port.
    pub(crate) async fn restart(&mut self) {
        std::fs::remove_file(self.admin_file()).unwrap();
        self.process = Process(command(&self.dir, &["--secure-port", "0"]).spawn().unwrap());
        self.ready().await;
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for the end.
    pub(crate) async fn wait(&mut self, patience: Duration) -> ExitStatus {
        self.process.wait(patience).await
    }

    /// Another process on the same directory, to its end.
    pub(crate) fn second(&self, flags: &[&str]) -> Output {
        command(&self.dir, flags).stderr(Stdio::piped()).output().unwrap()
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        let file = Kubeconfig::read_from(self.admin_file()).unwrap();
        let server = file.clusters[0].cluster.as_ref().unwrap().server.clone().unwrap();
        server.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// A client with all power.
    pub(crate) async fn admin(&self) -> Client {
        from_kubeconfig(Kubeconfig::read_from(self.admin_file()).unwrap()).await
    }

    /// A client with other credentials: none, but for what `change` puts in.
    pub(crate) async fn client(&self, change: impl FnOnce(&mut AuthInfo)) -> Client {
        let mut file = Kubeconfig::read_from(self.admin_file()).unwrap();
        let mut auth = AuthInfo::default();
        change(&mut auth);
        file.auth_infos[0].auth_info = Some(auth);
        from_kubeconfig(file).await
    }

    /// A client of this server with the credentials of another kubeconfig.
    pub(crate) async fn client_with(&self, other: &Kubeconfig) -> Client {
        let auth = other.auth_infos[0].auth_info.clone().unwrap();
        self.client(|info| *info = auth).await
    }

    /// A client with a new certificate.
    pub(crate) async fn identity(&self, user: &str, group: &str) -> Client {
        from_kubeconfig(self.kubeconfig(user, group)).await
    }

    /// A kubeconfig with a new certificate, made by the subcommand.
    pub(crate) fn kubeconfig(&self, user: &str, group: &str) -> Kubeconfig {
        let server = format!("https://127.0.0.1:{}", self.port());
        let data = self.dir.path().join("data");
        let output = Command::new(BINARY)
            .args(["kubeconfig", "--user", user, "--group", group, "--server", &server, "--data-dir"])
            .arg(data)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Kubeconfig::from_yaml(&String::from_utf8(output.stdout).unwrap()).unwrap()
    }
}

fn command(dir: &tempfile::TempDir, flags: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args([
            "--components",
            "apiserver",
            "--bind-address",
            "127.0.0.1",
            "--advertise-address",
            "192.0.2.1",
        ])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .args(flags)
        .env_remove("LISTEN_FDS")
        .env("RUST_LOG", "warn");
    command
}

async fn from_kubeconfig(file: Kubeconfig) -> Client {
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Waits until something is so.
pub(crate) async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "still not so after {PATIENCE:?}");
        tokio::time::sleep(STEP).await;
    }
}
