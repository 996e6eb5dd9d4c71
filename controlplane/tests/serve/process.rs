//! A control plane process of its own, with a data directory that goes when it goes.

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
    child: Child,
}

impl ControlPlane {
    /// Starts one with an empty directory and waits until it is ready.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = command(&dir, &["--secure-port", "0"]).spawn().unwrap();
        let plane = Self { dir, child };
        plane.ready().await;
        plane
    }

    fn admin_file(&self) -> PathBuf {
        self.dir.path().join("data/admin.kubeconfig")
    }

    async fn ready(&self) {
        eventually(async || {
            if !self.admin_file().exists() {
                return false;
            }
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            let client = self.admin().await;
            let answer = tokio::time::timeout(ONE_TRY, client.request_text(request)).await;
            matches!(answer, Ok(Ok(answer)) if answer == "ok")
        })
        .await;
    }

    /// Begins the process anew on what it left; it has another port.
    pub(crate) async fn restart(&mut self) {
        std::fs::remove_file(self.admin_file()).unwrap();
        self.child = command(&self.dir, &["--secure-port", "0"]).spawn().unwrap();
        self.ready().await;
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: sends a signal to the child, which has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }

    /// Waits for the end.
    pub(crate) async fn wait(&mut self, patience: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < patience, "the process does not end");
            tokio::time::sleep(STEP).await;
        }
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

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
