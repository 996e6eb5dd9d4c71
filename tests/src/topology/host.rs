//! A place where sockets are: a network namespace, perhaps with a cgroup.
//!
//! Must not know: what it stands for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use pagurus_cni::netns::NetNs;
use pagurus_cni::sysctl;

use crate::netns::{ip, run};

/// A network namespace, and the cgroup of the processes that are there.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name for `ip netns`.
    pub name: String,
    netns: Arc<NetNs>,
    cgroup: Option<PathBuf>,
}

impl Host {
    /// Makes a namespace with a loopback device that is up.
    ///
    /// # Errors
    /// There is one of that name, or the kernel refused something.
    pub fn new(name: &str, cgroup: Option<PathBuf>) -> Result<Self> {
        ip(&["netns", "add", name])?;
        let path = format!("/run/netns/{name}");
        let netns = NetNs::open(Path::new(&path))?.with_context(|| format!("{path} has gone"))?;
        let host = Self { name: name.to_owned(), netns: Arc::new(netns), cgroup };
        host.run(|| {
            // Nobody else has our addresses; nobody advertises routers.
            for setting in ["accept_dad", "accept_ra"] {
                sysctl::set(&format!("ipv6/conf/default/{setting}"), "0")?;
            }
            ip(&["link", "set", "lo", "up"])
        })?;
        Ok(host)
    }

    /// The namespace.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Whether a node's socket programs see what is run here.
    pub fn is_hooked(&self) -> bool {
        self.cgroup.is_some()
    }

    /// The same place for a process that is not in the node's cgroup, and which its socket programs therefore do not see.
    #[must_use]
    pub fn unhooked(&self) -> Self {
        Self { cgroup: None, ..self.clone() }
    }

    /// Runs something there, on a thread of its own. Threads that it starts are there too.
    ///
    /// # Errors
    /// The thread could not be moved, or what `work` says.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            if let Some(cgroup) = &self.cgroup {
                let threads = cgroup.join("cgroup.threads");
                fs::write(&threads, "0").with_context(|| format!("join {}", threads.display()))?;
            }
            work()
        };
        self.netns.run(inside)?.with_context(|| format!("in {}", self.name))
    }

    /// Runs a program there to its end; its output.
    ///
    /// # Errors
    /// What it said.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.run(|| run(program, arguments))
    }

    /// Runs `ip` there.
    ///
    /// # Errors
    /// What it said.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        self.command("ip", arguments)
    }
}
