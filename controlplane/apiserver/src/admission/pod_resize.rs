//! A pod's resources are changed only while the node that would have to do it is there.

use std::sync::Arc;

use async_trait::async_trait;
use pagurus_controlplane_api::status::ApiError;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::objects::Objects;

/// See the module's description.
pub(super) struct PodResize {
    pub(super) objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for PodResize {
    fn name(&self) -> &'static str {
        "PodResize"
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let of_pods = &*attributes.resource.plural == "pods" && attributes.resource.group.is_empty();
        let resizes = attributes.subresource == Some("resize") && attributes.operation == Operation::Update;
        if !of_pods || !resizes {
            return Ok(());
        }
        let node = attributes.object.as_deref().and_then(|pod| pod.pointer("/spec/nodeName"));
        match node.and_then(Value::as_str).filter(|node| !node.is_empty()) {
            Some(node) if self.objects.get("", "nodes", "", node).is_none() => {
                Err(attributes.forbidden(&format!("node {node:?} not found")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::trial::{attributes, validate};
    use super::*;
    use crate::objects::fake::FakeObjects;

    #[tokio::test]
    async fn the_node_must_be_there() {
        let objects = Arc::new(FakeObjects::default());
        objects.put("/nodes", &json!({"metadata": {"name": "there"}}));
        let plugin = PodResize { objects };
        for (sub, node, want) in [
            (Some("resize"), json!("there"), ""),
            (Some("resize"), json!("gone"), "pods \"p\" is forbidden: node \"gone\" not found"),
            (Some("resize"), Value::Null, ""),
            (None, json!("gone"), ""),
        ] {
            let mut pod = json!({"spec": {"nodeName": node}});
            let mut attributes = attributes(Operation::Update, ("", "v1", "pods"), Some("ns"), "p", &mut pod);
            attributes.subresource = sub;
            assert_eq!(validate(&plugin, attributes).await, want, "{sub:?} {node}");
        }
    }
}
