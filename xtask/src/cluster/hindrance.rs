//! Why a cluster is not up yet, in one line: what its nodes and pods say of themselves. Reads only.

use super::api::Api;
use super::{Cluster, supervise};
use anyhow::Result;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::Child;

/// What the nodes lack that are not Ready; none when all are.
pub fn of_nodes(cluster: &Cluster, api: &Api) -> Result<Option<String>> {
    let list = api.get("/api/v1/nodes")?;
    let objects = items(&list);
    let reasons = cluster.nodes().into_iter().filter_map(|node| {
        let name = node.name();
        match objects.iter().find(|object| object["metadata"]["name"] == *name) {
            None => {
                let log = cluster.logs().join(format!("{name}.agent.log"));
                Some(format!("{name} has not registered; its agent says: {}", last_error(&log)))
            }
            Some(object) => unless_true(object, "Ready").map(|why| format!("{name}: {why}")),
        }
    });
    Ok(join(reasons))
}

/// Why the pods of the default namespace are not Ready; none when all are.
pub fn of_pods(api: &Api) -> Result<Option<String>> {
    let list = api.get("/api/v1/namespaces/default/pods")?;
    let reasons = items(&list).iter().filter_map(|pod| {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let waiting = items_of(&pod["status"]["containerStatuses"])
            .iter()
            .map(|status| &status["state"]["waiting"])
            .find(|waiting| waiting["message"].is_string());
        let why = match waiting {
            Some(waiting) => Some(words(waiting)),
            None => unless_true(pod, "PodScheduled").or_else(|| unless_true(pod, "Ready")),
        };
        why.map(|why| format!("pod {name}: {why}"))
    });
    Ok(join(reasons))
}

fn items(list: &Value) -> &[Value] {
    items_of(&list["items"])
}

fn items_of(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The first three are enough to know where to look.
fn join(reasons: impl Iterator<Item = String>) -> Option<String> {
    let reasons: Vec<String> = reasons.take(3).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn words(of: &Value) -> String {
    let part = |name: &str| of[name].as_str().unwrap_or_default().to_owned();
    format!("{} {}", part("reason"), part("message")).trim().to_owned()
}

fn unless_true(object: &Value, kind: &str) -> Option<String> {
    let condition = items_of(&object["status"]["conditions"]).iter().find(|c| c["type"] == kind);
    match condition {
        None => Some(format!("no condition {kind} yet")),
        Some(condition) if condition["status"] == "True" => None,
        Some(condition) => Some(format!("not {kind}: {}", words(condition))),
    }
}

/// The last error of a log, or else its last line.
fn last_error(log: &Path) -> String {
    last_error_of(&std::fs::read_to_string(log).unwrap_or_default())
}

fn last_error_of(text: &str) -> String {
    let mut lines = text.lines().rev();
    let error = lines.clone().find(|line| line.starts_with("error"));
    error.or_else(|| lines.next()).unwrap_or("nothing").to_owned()
}

/// What the processes of a cluster have said since a moment: logs are appended to, and what is older explains nothing now.
pub struct Said {
    cluster: Cluster,
    logs: PathBuf,
    lengths: BTreeMap<String, u64>,
}

/// A control plane that ends with an error this many times in a row will not come up by itself.
const ENDS: usize = 3;

impl Said {
    /// Begins now.
    pub fn from_now_on(cluster: &Cluster) -> Self {
        let logs = cluster.logs();
        let entries = std::fs::read_dir(&logs).into_iter().flatten().flatten();
        let length = |entry: std::fs::DirEntry| {
            Some((entry.file_name().to_string_lossy().into_owned(), entry.metadata().ok()?.len()))
        };
        Self { lengths: entries.filter_map(length).collect(), logs, cluster: cluster.clone() }
    }

    /// What a log has got since.
    fn text(&self, log: &str) -> String {
        let from = self.lengths.get(log).copied().unwrap_or_default();
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = std::fs::File::open(self.logs.join(log))?;
            file.seek(std::io::SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    /// Why the control plane will never be ready, once that is clear.
    pub fn hopeless(&self, supervisor: Option<&mut Child>) -> Result<Option<anyhow::Error>> {
        if let Some(supervisor) = supervisor
            && let Some(status) = supervisor.try_wait()?
            // One that an `up` which was killed has started may have been faster than ours.
            && supervise::lock(&self.cluster)?.is_some()
        {
            let said = last_error_of(&self.text("supervisor.log"));
            return Ok(Some(anyhow::anyhow!("the supervisor ended ({status}): {}", bare(&said))));
        }
        Ok(given_up(&self.text("control-plane.log"))
            .map(|said| anyhow::anyhow!("the control plane does not start: {}", bare(&said))))
    }
}

/// The error with which a control plane ends again and again.
fn given_up(log: &str) -> Option<String> {
    let ends = log.lines().filter(|line| line.starts_with("error: "));
    (ends.count() >= ENDS).then(|| last_error_of(log))
}

/// An error without the word before it, which our own has already.
fn bare(said: &str) -> &str {
    said.strip_prefix("error: ").unwrap_or(said)
}

/// What the nodes say of whose runtimes nothing is heard.
pub fn of_runtimes(cluster: &Cluster, said: &Said) -> Option<String> {
    let reasons = cluster.nodes().into_iter().filter_map(|node| {
        let name = node.name();
        let words = [format!("{name}.log"), format!("{name}.containerd.log")].map(|log| said.text(&log));
        let words = words.iter().filter(|text| !text.is_empty()).map(|text| last_error_of(text));
        let words: Vec<String> = words.collect();
        (!words.is_empty()).then(|| format!("{name}: {}", words.join("; ")))
    });
    join(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions() {
        let object = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": "R", "message": "m"}]}});
        let check = |object: Value, expected: Option<&str>| {
            assert_eq!(unless_true(&object, "Ready").as_deref(), expected)
        };
        check(object("True"), None);
        check(object("False"), Some("not Ready: R m"));
        check(json!({}), Some("no condition Ready yet"));
    }
    #[test]
    fn a_control_plane_that_keeps_ending_is_given_up() {
        let check = |log: &str, expected: Option<&str>| assert_eq!(given_up(log).as_deref(), expected);
        check("", None);
        check("2026 INFO starts\nerror: no room\n2026 INFO starts\n", None);
        check(&"2026 INFO starts\nerror: no room\n".repeat(3), Some("error: no room"));
    }
}
