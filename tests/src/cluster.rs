//! The two-node cluster of the end-to-end suites, made by `cargo xtask test`, and what tests do with it: kubectl where the machine has
//! one, plain API requests always.

use crate::eventually::eventually;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

/// A cluster that runs.
pub struct Cluster {
    /// Its name.
    pub name: String,
    directory: PathBuf,
    xtask: PathBuf,
}

impl Cluster {
    /// The cluster of this run; without one the test is skipped (and says so).
    pub fn shared() -> Option<Self> {
        let get = |name: &str| std::env::var_os(name).map(PathBuf::from);
        match (get("PAGURUS_CLUSTER"), get("PAGURUS_XTASK")) {
            (Some(directory), Some(xtask)) => {
                let name =
                    directory.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                Some(Self { name, directory, xtask })
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

    /// Runs kubectl; its output whatever it is.
    ///
    /// # Errors
    /// There is no kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        let program = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        Command::new(&program)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start {program}"))
    }

    /// The minor version of kubectl: Debian's own is 1.20 and speaks versions of some APIs that Kubernetes has removed since.
    ///
    /// # Errors
    /// There is no kubectl, or it does not say.
    pub fn kubectl_minor(&self) -> Result<u32> {
        let said: Value = serde_json::from_str(&self.ok(&["version", "--client", "-o", "json"])?)?;
        let minor = said["clientVersion"]["minor"].as_str().unwrap_or_default();
        minor.trim_end_matches('+').parse().with_context(|| format!("kubectl's version: {said}"))
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
