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
        let (pod, old) = (attributes.object.as_deref(), attributes.old);
        if pod.map(resources) == old.map(resources) {
            return Ok(());
        }
        let node = pod.and_then(|pod| pod.pointer("/spec/nodeName"));
        match node.and_then(Value::as_str).filter(|node| !node.is_empty()) {
            Some(node) if self.objects.get("", "nodes", "", node).is_none() => {
                Err(attributes.forbidden(&format!("node {node:?} not found")))
            }
            _ => Ok(()),
        }
    }
}

/// What each of the containers is to get.
fn resources(pod: &Value) -> Vec<&Value> {
    let lists = ["/spec/initContainers", "/spec/containers"].map(|list| pod.pointer(list));
    let containers = lists.into_iter().flatten().filter_map(Value::as_array).flatten();
    containers.map(|container| &container["resources"]).collect()
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
        for (sub, node, cpu, want) in [
            (Some("resize"), json!("there"), "2", ""),
            (Some("resize"), json!("gone"), "2", "pods \"p\" is forbidden: node \"gone\" not found"),
            (Some("resize"), json!("gone"), "1", ""),
            (Some("resize"), Value::Null, "2", ""),
            (None, json!("gone"), "2", ""),
        ] {
            let of = |cpu: &str| json!({"spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": cpu}}}]}});
            let (mut pod, old) = (of(cpu), of("1"));
            let mut attributes = attributes(Operation::Update, ("", "v1", "pods"), Some("ns"), "p", &mut pod);
            attributes.subresource = sub;
            attributes.old = Some(&old);
            assert_eq!(validate(&plugin, attributes).await, want, "{sub:?} {node} {cpu}");
        }
    }
}
