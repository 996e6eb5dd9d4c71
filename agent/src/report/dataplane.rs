//! The condition `DataplaneReady` of this node: whether Services are served, and why not. Written when it changes, also where somebody
//! else runs the node's kubelet.
//!
//! Must not know: what the dataplane does.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{GetParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::NodeContext;

/// Name of the condition.
const CONDITION: &str = "DataplaneReady";
const RETRY: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(10);
/// The message of a condition is for people, not for a whole log.
const MOST: usize = 1024;

/// What the dataplane says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Services are served as they should be.
    pub ready: bool,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Where the dataplane says it.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    state: Arc<watch::Sender<Option<State>>>,
}

impl Condition {
    /// How it is now.
    pub fn set(&self, ready: bool, reason: &'static str, message: impl Into<String>) {
        let mut message = message.into();
        if message.len() > MOST {
            message.truncate(message.floor_char_boundary(MOST - 4));
            message.push_str(" ...");
        }
        let state = Some(State { ready, reason, message });
        self.state.send_if_modified(|now| {
            let is_news = *now != state;
            *now = state.clone();
            is_news
        });
    }
}

/// Writes the condition until cancelled.
pub async fn run(
    context: Arc<NodeContext>,
    condition: Condition,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut changes = condition.state.subscribe();
    let mut failed = false;
    loop {
        let state = changes.borrow_and_update().clone();
        let mut wait = None;
        if let Some(state) = state {
            match tokio::time::timeout(PATIENCE, write(&context, &state)).await {
                Ok(Ok(())) => failed = false,
                Ok(Err(error)) => {
                    wait = Some(RETRY);
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "condition {CONDITION} of the node is not written; trying again"
                        );
                    }
                }
                Err(_) => wait = Some(RETRY),
            }
        }
        tokio::select! {
            Ok(()) = changes.changed() => {}
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

async fn write(context: &NodeContext, state: &State) -> anyhow::Result<()> {
    let requests = kube::core::Request::new("/api/v1/nodes");
    let name = &context.node_name;
    let node = context.client.request::<Value>(requests.get(name, &GetParams::default())?).await?;
    let Some(patch) = patch(&node, state, Timestamp::now()) else { return Ok(()) };
    let patch = Patch::Strategic(patch);
    let request = requests.patch_subresource("status", name, &PatchParams::default(), &patch)?;
    context.client.request::<Value>(request).await?;
    Ok(())
}

/// What has to be written; nothing if the node says so already.
fn patch(node: &Value, state: &State, now: Timestamp) -> Option<Value> {
    let status = if state.ready { "True" } else { "False" };
    let conditions = node["status"]["conditions"].as_array();
    let before = conditions.into_iter().flatten().find(|condition| condition["type"] == CONDITION);
    let says = |key: &str, value: &str| before.is_some_and(|before| before[key] == value);
    if says("status", status) && says("reason", state.reason) && says("message", &state.message) {
        return None;
    }
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let since = before.filter(|_| says("status", status)).map(|before| before["lastTransitionTime"].clone());
    Some(json!({ "status": { "conditions": [{
        "type": CONDITION, "status": status, "reason": state.reason, "message": state.message,
        "lastHeartbeatTime": now, "lastTransitionTime": since.unwrap_or_else(|| now.clone().into()),
    }] } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_when_it_changes() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a time");
        let state = |ready, message: &str| State { ready, reason: "R", message: message.to_owned() };
        let first = patch(&json!({}), &state(true, "m"), now).expect("nothing was said");
        let condition = &first["status"]["conditions"][0];
        assert_eq!(condition["lastTransitionTime"], "2026-01-02T03:04:05Z");
        assert_eq!(patch(&first, &state(true, "m"), now), None);
        let later: Timestamp = "2026-01-02T04:00:00Z".parse().expect("a time");
        let other = patch(&first, &state(true, "other"), later).expect("another message");
        assert_eq!(other["status"]["conditions"][0]["lastTransitionTime"], "2026-01-02T03:04:05Z");
        let bad = patch(&first, &state(false, "m"), later).expect("another status");
        assert_eq!(bad["status"]["conditions"][0]["lastTransitionTime"], "2026-01-02T04:00:00Z");
    }
}
