//! DefaultTolerationSeconds: pods stay five minutes on a node that is lost, unless they say otherwise.
//! TaintNodesByCondition: a new node is tainted until it is known to be ready.

use async_trait::async_trait;
use pagurus_controlplane_api::status::ApiError;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const SECONDS: u64 = 300;

/// See the module's description.
pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !attributes.is("", "pods") || !writes {
            return Ok(());
        }
        let Some(spec) = attributes.spec_mut() else { return Ok(()) };
        let given = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        let missing: Vec<Value> = [NOT_READY, UNREACHABLE]
            .into_iter()
            .filter(|key| !given.iter().any(|toleration| tolerates_loss(toleration, key)))
            .map(|key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}))
            .collect();
        if !missing.is_empty() {
            spec.insert("tolerations".to_owned(), given.into_iter().chain(missing).collect());
        }
        Ok(())
    }
}

fn tolerates_loss(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
    matches!(text("effect"), "NoExecute" | "") && (text("key") == taint || text("key").is_empty())
}

/// See the module's description.
pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "nodes") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(node) = attributes.object.as_deref_mut().and_then(Value::as_object_mut) else {
            return Ok(());
        };
        let spec = node.entry("spec").or_insert_with(|| json!({}));
        let Some(spec) = spec.as_object_mut() else { return Ok(()) };
        let mut taints = spec.get("taints").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_ours = |taint: &Value| {
            taint.get("key") == Some(&json!(NOT_READY)) && taint.get("effect") == Some(&json!("NoSchedule"))
        };
        if !taints.iter().any(is_ours) {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            spec.insert("taints".to_owned(), Value::Array(taints));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{admit, attributes};
    use super::*;

    #[tokio::test]
    async fn pods_tolerate_loss_for_a_while() {
        let added = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        let own =
            json!({"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let all = json!({"operator": "Exists"});
        let rows = [
            (json!({}), json!([added(NOT_READY), added(UNREACHABLE)])),
            (json!({"tolerations": [own]}), json!([own, added(UNREACHABLE)])),
            (json!({"tolerations": [all]}), json!([all])),
        ];
        for (spec, want) in rows {
            let mut pod = json!({"spec": spec});
            let attributes = attributes(Operation::Create, ("", "v1", "pods"), Some("ns"), "p", &mut pod);
            assert_eq!(admit(&DefaultTolerationSeconds, attributes).await, "");
            assert_eq!(pod["spec"]["tolerations"], want);
        }
    }

    #[tokio::test]
    async fn new_nodes_are_tainted() {
        for spec in [json!({}), json!({"taints": [{"key": NOT_READY, "effect": "NoSchedule"}]})] {
            let mut node = json!({"spec": spec});
            let attributes = attributes(Operation::Create, ("", "v1", "nodes"), None, "n", &mut node);
            assert_eq!(admit(&TaintNodesByCondition, attributes).await, "");
            assert_eq!(node["spec"]["taints"], json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
        }
    }
}
