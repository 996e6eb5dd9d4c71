//! Flow control's bookkeeping: every request is told its flow, and every FlowSchema says whether the priority level it names exists.
//!
//! kube-apiserver writes this condition a moment after the FlowSchema, and clients read the object again for it. Here whoever writes a
//! FlowSchema is answered when its condition is written: the answer is the object as it was stored, the next read has the condition.
//!
//! The plan is pure; it is applied through the server like any client's server-side apply. It must not know how
//! requests are queued.

mod classify;

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use pagurus_controlplane_api::time;
use pagurus_controlplane_store::Revision;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::authn::Peer;
use crate::cache::Cache;
use crate::engine::Engine;
use crate::request::{RequestInfo, UserInfo, full_body};
use crate::server::Server;

pub use classify::Classifier;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
const RETRY: Duration = Duration::from_secs(1);
/// For how long the writer of a FlowSchema waits for its condition at most.
const PATIENCE: Duration = Duration::from_secs(2);
const SCHEMAS: &str = "flowschemas";

/// How far the conditions have been written.
#[derive(Debug)]
pub struct Progress {
    /// The FlowSchemas up to this revision have theirs; the largest while nobody writes any.
    settled: watch::Sender<Revision>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { settled: watch::Sender::new(Revision::MAX) }
    }
}

impl Progress {
    /// Waits until the FlowSchemas that are there now have their conditions. A write that takes longer is not held up.
    pub(crate) async fn settle(&self, engine: &Engine) {
        let Some(schemas) = engine.cache(GROUP, SCHEMAS) else { return };
        let settled = async {
            // The cache must have come to the caller's own write before its revision says anything.
            if schemas.current().await.is_ok() {
                let goal = schemas.revision();
                drop(self.settled.subscribe().wait_for(|settled| *settled >= goal).await);
            }
        };
        if tokio::time::timeout(PATIENCE, settled).await.is_err() {
            warn!("the condition of a FlowSchema takes long to be written");
        }
    }
}

/// Whether a request writes FlowSchemas themselves, not only their status.
pub(crate) fn is_written_by(info: &RequestInfo) -> bool {
    info.is_resource
        && info.group == GROUP
        && info.resource == SCHEMAS
        && info.subresource.is_none()
        && !info.verb.is_read_only()
}

/// Keeps the conditions of all FlowSchemas right until `cancel`.
pub async fn keep_statuses(server: Arc<Server>, engine: Arc<Engine>, cancel: CancellationToken) {
    let caches = engine.cache(GROUP, SCHEMAS).zip(engine.cache(GROUP, "prioritylevelconfigurations"));
    let Some((schemas, levels)) = caches else { return };
    let settled = &server.flow().settled;
    settled.send_replace(0);
    let work = keep(&server, &schemas, &levels, settled);
    tokio::select! {
        () = cancel.cancelled() => {}
        () = Box::pin(work) => {}
    }
    settled.send_replace(Revision::MAX);
}

async fn keep(server: &Arc<Server>, schemas: &Cache, levels: &Cache, settled: &watch::Sender<Revision>) {
    let peer = Peer::Local(Arc::new(UserInfo::server()));
    loop {
        let seen = (schemas.revision(), levels.revision());
        let mut failed = false;
        for schema in schemas.list(None) {
            let value = schema.value();
            let exists = levels.get(None, level(&value)).is_some();
            if let Some(condition) = plan(&value, exists, &time::now_text()) {
                failed |= !apply(server, &peer, &schema.key.name, &condition).await;
            }
        }
        if !failed {
            settled.send_replace(seen.0);
        }
        tokio::select! {
            _ = schemas.changed(seen.0) => {}
            _ = levels.changed(seen.1) => {}
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}

fn level(schema: &Value) -> &str {
    schema.pointer("/spec/priorityLevelConfiguration/name").and_then(Value::as_str).unwrap_or_default()
}

/// The condition that the schema lacks; none if what it has says the same.
fn plan(schema: &Value, exists: bool, now: &str) -> Option<Value> {
    let level = level(schema);
    let (status, reason, end) = if exists {
        ("False", "Found", "and it exists")
    } else {
        ("True", "NotFound", "but there is no such object")
    };
    let message =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {end}");
    let conditions = schema.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let stored = conditions.into_iter().find(|condition| condition["type"] == "Dangling");
    let same = |field: &str, wanted: &str| stored.is_some_and(|condition| condition[field] == wanted);
    if same("status", status) && same("reason", reason) && same("message", &message) {
        return None;
    }
    let since = stored.filter(|_| same("status", status)).and_then(|c| c["lastTransitionTime"].as_str());
    Some(json!({
        "type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or(now),
    }))
}

/// Whether it was applied, or the schema is gone.
async fn apply(server: &Arc<Server>, peer: &Peer, name: &str, condition: &Value) -> bool {
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    let patch = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema", "metadata": {"name": name},
        "status": {"conditions": [condition]},
    });
    let request = Request::patch(format!(
        "/apis/{GROUP}/v1/flowschemas/{encoded}/status?fieldManager={MANAGER}&force=true"
    ))
    .header(CONTENT_TYPE, HeaderValue::from_static("application/apply-patch+yaml"))
    .header(HOST, HeaderValue::from_static("kubernetes.default"))
    .body(full_body(patch.to_string()));
    let Ok(request) = request else { return true };
    let response = server.handle(request, peer.clone()).await;
    let code = response.status();
    if code.is_success() || code == http::StatusCode::NOT_FOUND {
        return true;
    }
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    warn!(name, %code, answer = %String::from_utf8_lossy(&body), "cannot write a FlowSchema's condition");
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans() {
        let schema = |condition: Value| json!({"spec": {"priorityLevelConfiguration": {"name": "l"}}, "status": {"conditions": [condition]}});
        let found = |since: &str| {
            json!({"type": "Dangling", "status": "False", "reason": "Found", "lastTransitionTime": since,
                   "message": "This FlowSchema references the PriorityLevelConfiguration object named \"l\" and it exists"})
        };
        let lost = |since: &str| {
            json!({"type": "Dangling", "status": "True", "reason": "NotFound", "lastTransitionTime": since,
                   "message": "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there is no such object"})
        };
        let mut renamed = found("before");
        renamed["message"] = json!("of another level");
        let rows = [
            (schema(Value::Null), true, Some(found("now"))),
            (schema(found("before")), true, None),
            (schema(found("before")), false, Some(lost("now"))),
            (schema(lost("before")), false, None),
            (schema(lost("before")), true, Some(found("now"))),
            (schema(renamed), true, Some(found("before"))),
        ];
        for (schema, exists, want) in rows {
            assert_eq!(plan(&schema, exists, "now"), want, "{schema}");
        }
    }
}
