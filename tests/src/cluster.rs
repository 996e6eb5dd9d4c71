//! The two-node cluster of the end-to-end suites, made by `cargo xtask test`, and what tests do with it: kubectl where the machine has
//! one, plain API requests always.

use crate::eventually::eventually;
use crate::kubectl::Kubectl;
use crate::load::Place;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// A cluster that runs.
#[derive(Clone)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    directory: PathBuf,
    xtask: PathBuf,
    kubectl: Option<&'static Kubectl>,
}

impl Cluster {
    /// The cluster of this run; without one the test is skipped (and says so).
    pub fn shared() -> Option<Self> {
        let get = |name: &str| std::env::var_os(name).map(PathBuf::from);
        match (get("PAGURUS_CLUSTER"), get("PAGURUS_XTASK")) {
            (Some(directory), Some(xtask)) => {
                let name =
                    directory.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                Some(Self { name, directory, xtask, kubectl: None })
            }
            _ => {
                println!("SKIPPED: needs the cluster that `cargo xtask test` makes");
                None
            }
        }
    }

    /// The kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// The directory of the cluster: logs, data, pid notes.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// The name of its network namespaces' common part.
    pub fn fabric(&self) -> String {
        format!("pagurus-{}", self.name)
    }

    /// The outside: a namespace on the nodes' network without an agent.
    pub fn outside(&self) -> Place {
        let netns = Path::new("/run/netns").join(self.fabric());
        Place { name: "outside".to_owned(), netns, cgroup: None }
    }

    /// Where a pod's processes are: in its network namespace and its cgroup2, so that the node's socket programs see them.
    ///
    /// # Errors
    /// The pod does not run.
    pub fn in_pod(&self, namespace: &str, pod: &str) -> Result<Place> {
        let object = self.get(&["-n", namespace, "pod", pod])?;
        let uid = object["metadata"]["uid"].as_str().context("a pod without uid")?;
        let mut directories = vec![cgroup2()?.join(self.fabric())];
        while let Some(directory) = directories.pop() {
            let listed = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            if let Some(pid) = listed.lines().next().filter(|_| directory.to_string_lossy().contains(uid)) {
                let netns = PathBuf::from(format!("/proc/{pid}/ns/net"));
                return Ok(Place { name: pod.to_owned(), netns, cgroup: Some(directory) });
            }
            // A cgroup may go while we look.
            let below = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            directories.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
        bail!("pod {namespace}/{pod} ({uid}) has no process")
    }

    /// The client program of the test images, as a file of this machine.
    ///
    /// # Errors
    /// Nobody says where it is.
    pub fn probe_program(&self) -> Result<String> {
        let binaries = std::env::var("PAGURUS_BINARIES").context("PAGURUS_BINARIES is not set")?;
        Ok(Path::new(&binaries).join("../images/probe").display().to_string())
    }

    /// Runs the client program at a place; what it printed.
    ///
    /// # Errors
    /// It failed; with what it said.
    pub fn probe(&self, place: &Place, words: &[&str]) -> Result<String> {
        let out = place.command(&self.probe_program()?)?.args(words).output()?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "{}: probe {}: {}", place.name, words.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// The addresses of a node, IPv4 first.
    ///
    /// # Errors
    /// There is no such node.
    pub fn addresses(&self, node: &str) -> Result<Vec<IpAddr>> {
        let object = self.get(&["node", node])?;
        let all = object["status"]["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let internal = all.iter().filter(|address| address["type"] == "InternalIP");
        let mut ips: Vec<IpAddr> =
            internal.filter_map(|address| address["address"].as_str()?.parse().ok()).collect();
        ips.sort();
        Ok(ips)
    }

    /// A pod of this image on a node.
    ///
    /// # Errors
    /// The API refuses it.
    pub fn pod(&self, namespace: &str, name: &str, app: &str, node: &str, image: &str) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": image}]}
        }))
        .map(drop)
    }

    /// Runs `xtask` for this cluster.
    ///
    /// # Errors
    /// It failed; with what it said.
    pub fn xtask(&self, words: &[&str]) -> Result<String> {
        let out = Command::new(&self.xtask).args(words).output()?;
        ensure!(out.status.success(), "xtask {}: {}", words.join(" "), String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// The same cluster, asked with this kubectl.
    #[must_use]
    pub fn with(&self, kubectl: &'static Kubectl) -> Self {
        Self { kubectl: Some(kubectl), ..self.clone() }
    }

    /// A command of kubectl.
    ///
    /// # Errors
    /// There is no kubectl.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.kubectl.map_or_else(Kubectl::first, Ok)?.command();
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        Ok(command)
    }

    /// Runs kubectl; its output whatever it is.
    ///
    /// # Errors
    /// There is no kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.output().context("cannot start kubectl")
    }

    /// N of kubectl's version 1.N: Debian's own is 1.20 and speaks versions of some APIs that Kubernetes has removed since.
    ///
    /// # Errors
    /// There is no kubectl.
    pub fn kubectl_minor(&self) -> Result<u32> {
        Ok(self.kubectl.map_or_else(Kubectl::first, Ok)?.minor())
    }

    /// Runs kubectl and returns what it printed; anything but success is an error.
    ///
    /// # Errors
    /// What kubectl said.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let out = self.kubectl(arguments)?;
        if !out.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// An object as JSON.
    ///
    /// # Errors
    /// It is not there, or is not JSON.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let mut words = vec!["get", "-o", "json"];
        words.extend(arguments);
        Ok(serde_json::from_str(&self.ok(&words)?)?)
    }

    /// `kubectl apply` of a manifest.
    ///
    /// # Errors
    /// What kubectl said.
    pub fn apply(&self, manifest: &Value) -> Result<String> {
        use std::io::Write as _;
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&serde_json::to_vec(manifest)?)?;
        self.ok(&["apply", "-f", &file.path().display().to_string()])
    }

    /// Runs a command in a node's namespaces.
    ///
    /// # Errors
    /// It failed; with what it said.
    pub fn on_node(&self, node: &str, words: &[&str]) -> Result<String> {
        let out = Command::new(&self.xtask)
            .args(["enter", "--name", &self.name, node, "--"])
            .args(words)
            .output()?;
        if !out.status.success() {
            bail!("{node}: {}: {}", words.join(" "), String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// The names of the nodes.
    ///
    /// # Errors
    /// The API does not answer.
    pub fn nodes(&self) -> Result<Vec<String>> {
        let list = self.get(&["nodes"])?;
        Ok(items(&list).iter().filter_map(|n| n["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until `look` says yes.
    ///
    /// # Errors
    /// Not within the limit.
    pub fn wait(&self, what: &str, seconds: u64, mut look: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        eventually(what, Duration::from_secs(seconds), || Ok(look(self)?.then_some(())))
    }

    /// Waits until a pod is Ready.
    ///
    /// # Errors
    /// Not within a minute.
    pub fn ready(&self, namespace: &str, pod: &str) -> Result<()> {
        self.wait(&format!("pod {namespace}/{pod} is Ready"), 60, |c| {
            Ok(is_ready(&c.get(&["-n", namespace, "pod", pod])?))
        })
    }
}

/// The mount point of cgroup2.
fn cgroup2() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    line.and_then(|line| line.split(' ').nth(4)).map(PathBuf::from).context("no cgroup2 is mounted")
}

/// A cluster of a test's own, removed with it.
pub struct Own(Cluster);

impl Own {
    /// Starts it; none (and says so) where there is no shared cluster either, which is the sign that clusters can run here. By the
    /// beginning of its name, `e2e-`, a run of the suites that is ended finds it and removes it.
    ///
    /// # Errors
    /// It does not come up.
    pub fn up(name: &str, nodes: u8, agent_flags: &[&str]) -> Result<Option<Self>> {
        ensure!(name.starts_with("e2e-"), "the name of a test's own cluster begins with `e2e-`: {name}");
        let Some(shared) = Cluster::shared() else { return Ok(None) };
        let directory = shared.directory.parent().context("no directory of clusters")?.join(name);
        let own = Self(Cluster { name: name.to_owned(), directory, ..shared });
        own.xtask(&["down", "--name", name])?;
        let nodes = nodes.to_string();
        let flags: Vec<String> = agent_flags.iter().map(|flag| format!("--agent-flag={flag}")).collect();
        let mut words = vec!["up", "--no-build", "--no-demo", "--name", name, "--nodes", &nodes];
        words.extend(flags.iter().map(String::as_str));
        own.xtask(&words)?;
        Ok(Some(own))
    }
}

impl Own {
    /// The end of each log: they go with the cluster.
    fn show_logs(&self) {
        for entry in std::fs::read_dir(self.directory.join("logs")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {}", entry.path().display());
            lines.iter().skip(lines.len().saturating_sub(20)).for_each(|line| eprintln!("{line}"));
        }
    }
}

impl std::ops::Deref for Own {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        if let Err(error) = self.xtask(&["down", "--name", &self.0.name]) {
            eprintln!("{error:#}");
        }
    }
}

/// Whether there are nodes and each is ready, by their list.
pub fn are_ready(nodes: &Value) -> bool {
    !items(nodes).is_empty() && items(nodes).iter().all(is_ready)
}

/// Who answered the client program's `spread`, by the servers' names, and how often.
///
/// # Errors
/// It did not say that.
pub fn spread(said: &str) -> Result<BTreeMap<String, u32>> {
    let line = |line: &str| {
        let (count, name) = line.split_once(' ').with_context(|| format!("an answer of {said:?}"))?;
        Ok((name.to_owned(), count.parse().with_context(|| format!("how often {name} answered"))?))
    };
    said.lines().map(line).collect()
}

/// Whether the client program's `refusal` met one, and at once: within a time in which nothing was sent twice.
///
/// # Errors
/// It did not say how long it took.
pub fn is_refused_at_once(said: &str) -> Result<bool> {
    let milliseconds = said.split(' ').next().unwrap_or_default();
    let milliseconds: f64 = milliseconds.parse().with_context(|| format!("how long it took: {said}"))?;
    Ok(said.contains("refused") && milliseconds < 500.0)
}

/// The items of a list.
pub fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether an object's condition Ready is True.
pub fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// A namespace of a test's own: made now, deleted with everything in it at the end, also when the test fails.
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

impl<'a> Namespace<'a> {
    /// Creates it and waits for its default ServiceAccount.
    ///
    /// # Errors
    /// The API refuses, or no ServiceAccount appears.
    pub fn new(cluster: &'a Cluster, name: &str) -> Result<Self> {
        cluster.ok(&["create", "namespace", name])?;
        let made = Self { cluster, name: name.to_owned() };
        cluster.wait("the default ServiceAccount is there", 20, |c| {
            Ok(c.get(&["-n", name, "serviceaccount", "default"]).is_ok())
        })?;
        Ok(made)
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What a failed test left is what explains it.
            for words in [
                &["-n", &self.name, "get", "all", "-o", "wide"][..],
                &["-n", &self.name, "get", "events"],
                &["get", "nodes", "-o", "wide"],
            ] {
                if let Ok(out) = self.cluster.kubectl(words) {
                    eprintln!("--- kubectl {}\n{}", words.join(" "), String::from_utf8_lossy(&out.stdout));
                }
            }
        }
        // Not waited for: the next test has a namespace of its own.
        let _ =
            self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"]);
    }
}
