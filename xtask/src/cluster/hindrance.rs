//! Why a cluster is not up yet, in one line: what its nodes and pods say of themselves. Reads only.

use super::Cluster;
use super::api::Api;
use anyhow::Result;
use serde_json::Value;

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
fn last_error(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut lines = text.lines().rev();
    let error = lines.clone().find(|line| line.starts_with("error"));
    error.or_else(|| lines.next()).unwrap_or("nothing").to_owned()
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
}
