//! Our own server, started for the measurement with an empty directory, and ended with it.
//!
//! Must not know: what is measured.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::client::{Ask, Client};
use crate::kubeconfig::{self, Target};

/// How long a start may take; many stored objects make it long.
const PATIENCE: Duration = Duration::from_secs(300);

/// The data directory in the one that is made for the server.
const DATA: &str = "data";

/// A running server.
#[derive(Debug)]
pub struct Ours {
    child: Child,
    directory: TempDir,
    port: u16,
    components: &'static str,
}

/// Only the API server, as it is measured.
pub const APISERVER: &str = "apiserver";
/// All components.
pub const ALL: &str = "apiserver,scheduler,controllers";

impl Ours {
    /// Starts with an empty directory; returns when `/readyz` says so, with the seconds that took.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(components: &'static str) -> Result<(Self, f64)> {
        let directory = tempfile::Builder::new().prefix("pagurus-load-").tempdir()?;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let begun = Instant::now();
        let child = spawn(directory.path(), port, components)?;
        let mut ours = Self { child, directory, port, components };
        ours.ready().await?;
        Ok((ours, begun.elapsed().as_secs_f64()))
    }

    /// Kills the process and starts another with the same directory; the seconds from the start to `/readyz`.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<f64> {
        self.child.kill()?;
        self.child.wait()?;
        let begun = Instant::now();
        self.child = spawn(self.directory.path(), self.port, self.components)?;
        self.ready().await?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// How it is reached.
    ///
    /// # Errors
    /// Its kubeconfig cannot be read.
    pub fn target(&self) -> Result<Target> {
        kubeconfig::read(&self.directory.path().join(DATA).join("admin.kubeconfig"))
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Bytes of its directory.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn stored(&self) -> Result<f64> {
        let mut sum = 0;
        for entry in std::fs::read_dir(self.directory.path().join(DATA).join("store"))? {
            sum += entry?.metadata()?.len();
        }
        Ok(sum as f64)
    }

    async fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.asked().await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(self.directory.path().join("load.log")).unwrap_or_default();
                bail!("pagurus-controlplane ended: {status}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        bail!("pagurus-controlplane does not answer /readyz with 200 after {PATIENCE:?}")
    }

    async fn asked(&self) -> Result<()> {
        Client::connect(&self.target()?).await?.expect(200, Ask::get("/readyz")).await.map(drop)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // Whether it has ended on its own does not matter here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where our binaries are: where we are told, or beside this one.
fn binary() -> Result<PathBuf> {
    let folder = match std::env::var_os("PAGURUS_BINARIES") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_exe()?.parent().context("this program has no folder")?.to_owned(),
    };
    let binary = folder.join("pagurus-controlplane");
    if !binary.exists() {
        bail!("{} is not there; build it (cargo build --release -p pagurus-controlplane)", binary.display());
    }
    Ok(binary)
}

fn spawn(directory: &Path, port: u16, components: &str) -> Result<Child> {
    use std::os::unix::process::CommandExt as _;
    let log = std::fs::File::create(directory.join("load.log"))?;
    let mut command = Command::new(binary()?);
    command.args([
        "--bind-address",
        "127.0.0.1",
        "--advertise-address",
        "127.0.0.1",
        "--components",
        components,
    ]);
    command.arg("--secure-port").arg(port.to_string()).arg("--data-dir").arg(directory.join(DATA));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: between fork and exec only one system call is made, which cannot touch memory.
    unsafe {
        command.pre_exec(|| {
            // However we end, it does too.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().context("cannot start pagurus-controlplane")
}
