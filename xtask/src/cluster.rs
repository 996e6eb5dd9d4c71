//! A real cluster on this machine: what it consists of and what its parts are called. The commands are in the modules below.
//!
//! Every node is its own network, mount, uts, ipc, pid and cgroup space with its own container runtime and agent; all hang on a
//! bridge in one more network namespace, the fabric, where the control plane runs. Nothing is added to the host's own network: the
//! API server is handed a listening socket on the host's loopback.

use crate::workspace;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

pub mod api;
pub mod cgroups;
pub mod checks;
pub mod claim;
pub mod demo;
pub mod down;
pub mod enter;
pub mod hindrance;
pub mod load;
pub mod network;
pub mod node;
pub mod progress;
pub mod rights;
pub mod supervise;
pub mod up;

/// The address block of the nodes, in namespaces of the cluster's own.
pub const FABRIC_V4: &str = "10.88.0.1";
/// The same for IPv6.
pub const FABRIC_V6: &str = "fd88::1";
/// Service addresses.
pub const SERVICE_CIDRS: &str = "10.96.0.0/16,fd10:96::/112";
/// Pod addresses: a /24 and a /64 of these for each node.
pub const CLUSTER_CIDRS: &str = "10.244.0.0/16,fd10:244::/56";
/// The port of the API server inside the fabric.
pub const API_PORT: u16 = 6443;
/// Nodes are numbered in one byte of their address.
pub const MAX_NODES: u8 = 200;

/// The form of a cluster's directory that this program reads and writes.
const FORMAT: u64 = 1;

/// What `up` was asked for; kept in `.pagurus/NAME/cluster.json`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name: part of every namespace, cgroup and directory it makes.
    pub name: String,
    /// How many nodes.
    pub nodes: u8,
    /// The API server's port on the host's loopback.
    pub port: u16,
    /// Which binaries.
    pub release: bool,
    /// Further flags of the nodes' agents.
    #[serde(default)]
    pub agent_flags: Vec<String>,
}

impl Cluster {
    /// The directory of a cluster.
    pub fn directory_of(name: &str) -> PathBuf {
        workspace::root().join(".pagurus").join(name)
    }

    /// The names of this checkout's clusters.
    pub fn names() -> Vec<String> {
        let entries = std::fs::read_dir(workspace::root().join(".pagurus")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Its directory.
    pub fn directory(&self) -> PathBuf {
        Self::directory_of(&self.name)
    }

    /// Where its processes write what they say.
    pub fn logs(&self) -> PathBuf {
        self.directory().join("logs")
    }

    /// The data directory of the control plane.
    pub fn data(&self) -> PathBuf {
        self.directory().join("control-plane")
    }

    /// Whether its agents connect pods: else nodes are not Ready before somebody else does.
    pub fn connects_pods(&self) -> bool {
        !self.agent_flags.iter().any(|flag| flag == "--dataplane=off" || flag == "--pod-network=off")
    }

    /// The kubeconfig for users.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory().join("kubeconfig")
    }

    /// The nodes.
    pub fn nodes(&self) -> Vec<Node> {
        (1..=self.nodes).map(|number| Node { cluster: self.clone(), number }).collect()
    }

    /// One node by its name.
    pub fn node(&self, name: &str) -> Result<Node> {
        let names: Vec<String> = self.nodes().iter().map(Node::name).collect();
        match self.nodes().into_iter().find(|node| node.name() == name) {
            Some(node) => Ok(node),
            None => bail!("cluster {} has no node {name}; it has {}", self.name, names.join(", ")),
        }
    }

    /// The network namespace with the bridge and the control plane.
    pub fn fabric(&self) -> String {
        format!("pagurus-{}", self.name)
    }

    /// The name of its cgroup in every hierarchy.
    pub fn cgroup(&self) -> String {
        format!("pagurus-{}", self.name)
    }

    /// Reads what `up` wrote.
    pub fn load(name: &str) -> Result<Self> {
        check_name(name)?;
        let file = Self::directory_of(name).join("cluster.json");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("there is no cluster {name} here; start it with `cargo xtask up --name {name}`")
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        Self::parse(&text).with_context(|| {
            format!(
                "cannot use {}; `cargo xtask down --name {name}` removes the cluster, whatever made it",
                file.display()
            )
        })
    }

    /// The directory of a cluster may be from another version of this program.
    fn parse(text: &str) -> Result<Self> {
        let value: serde_json::Value = serde_json::from_str(text).context("it is damaged")?;
        let format = value["format"].as_u64().unwrap_or(1);
        if format != FORMAT {
            bail!("another version of this program wrote it (format {format}, this one reads {FORMAT})");
        }
        serde_json::from_value(value).context("it is damaged")
    }

    /// Writes it for later commands.
    pub fn save(&self) -> Result<()> {
        let directory = self.directory();
        for part in [self.logs(), self.data()] {
            std::fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        }
        let file = directory.join("cluster.json");
        let new = directory.join("cluster.json.new");
        let mut value = serde_json::to_value(self)?;
        value["format"] = FORMAT.into();
        std::fs::write(&new, serde_json::to_vec_pretty(&value)?)
            .and_then(|()| std::fs::rename(&new, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// A node of a cluster.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its cluster.
    pub cluster: Cluster,
    /// From 1.
    pub number: u8,
}

impl Node {
    /// Its name in Kubernetes, and its host name.
    pub fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Its network namespace.
    pub fn netns(&self) -> String {
        format!("{}-{}", self.cluster.fabric(), self.name())
    }

    /// Its addresses.
    pub fn addresses(&self) -> (String, String) {
        (format!("10.88.0.{}", 10 + self.number), format!("fd88::{:x}", 16 + u16::from(self.number)))
    }

    /// Its directory on the host.
    pub fn directory(&self) -> PathBuf {
        self.cluster.directory().join("nodes").join(self.name())
    }

    /// The file with the id of its first process.
    pub fn pid_file(&self) -> PathBuf {
        self.directory().join("pid")
    }
}

/// Names become parts of host names, interface labels and cgroups.
pub fn check_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= 20
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !fine {
        bail!("the cluster name {name:?} is not usable: 1 to 20 of a-z, 0-9 and '-', not at the ends");
    }
    Ok(())
}

/// A process as it was when its id was noted: an id alone may be somebody else's by now.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat (clock ticks since boot), proc(5).
    pub started: u64,
}

impl Process {
    /// Notes a running process.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        if fields.next()? == "Z" {
            return None;
        }
        fields.nth(18)?.parse().ok().map(|started| Self { pid, started })
    }

    /// Whether it still runs.
    pub fn alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Reads a note.
    pub fn read(file: &std::path::Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }

    /// Writes a note.
    pub fn write(&self, file: &std::path::Path) -> Result<()> {
        std::fs::write(file, serde_json::to_vec(self)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, fine) in [
            ("default", true),
            ("a", true),
            ("a-1", true),
            ("", false),
            ("-a", false),
            ("A", false),
            ("a/b", false),
        ] {
            assert_eq!(check_name(name).is_ok(), fine, "{name}");
        }
    }

    #[test]
    fn notes_of_other_versions_are_refused() {
        let note = r#"{"name": "a", "nodes": 1, "port": 6443, "release": false"#;
        let check = |rest: &str, expected: Option<&str>| {
            let said = Cluster::parse(&format!("{note}{rest}")).err().map(|error| format!("{error:#}"));
            match expected {
                None => assert_eq!(said, None),
                Some(part) => assert!(said.as_ref().is_some_and(|said| said.contains(part)), "{said:?}"),
            }
        };
        check("}", None);
        check(r#", "format": 1}"#, None);
        check(
            r#", "format": 2}"#,
            Some("another version of this program wrote it (format 2, this one reads 1)"),
        );
        check("", Some("damaged"));
        check(r#", "nodes": "many"}"#, Some("damaged"));
    }

    #[test]
    fn a_noted_process_is_itself_only() {
        let me = Process::of(std::process::id() as i32).expect("this process runs");
        assert!(me.alive());
        assert!(!Process { started: me.started + 1, ..me }.alive());
    }
}
