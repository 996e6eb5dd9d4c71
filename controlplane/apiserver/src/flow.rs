//! Flow control's bookkeeping: every FlowSchema says whether the priority level it names exists.
//!
//! The plan is pure; it is applied through the server like any client's server-side apply. It must not know how
//! requests are queued.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use pagurus_controlplane_api::time;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::authn::Peer;
use crate::cache::Cache;
use crate::engine::Engine;
use crate::request::{UserInfo, full_body};
use crate::server::Server;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the conditions of all FlowSchemas right until `cancel`.
pub async fn keep_statuses(server: Arc<Server>, engine: Arc<Engine>, cancel: CancellationToken) {
    let caches = engine.cache(GROUP, "flowschemas").zip(engine.cache(GROUP, "prioritylevelconfigurations"));
    let Some((schemas, levels)) = caches else { return };
    let work = keep(&server, &schemas, &levels);
    tokio::select! {
        () = cancel.cancelled() => {}
        () = Box::pin(work) => {}
    }
}

async fn keep(server: &Arc<Server>, schemas: &Cache, levels: &Cache) {
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
