//! NamespaceLifecycle: nothing is made in a namespace that is not there or is ending, and some namespaces stay for ever.

use std::sync::Arc;

use async_trait::async_trait;
use pagurus_controlplane_api::status::ApiError;

use super::{Attributes, Operation, Plugin};
use crate::objects::Objects;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// See the module's description.
pub(super) struct NamespaceLifecycle {
    pub(super) objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if attributes.is("", "namespaces") {
            return match attributes.operation {
                Operation::Delete if IMMORTAL.contains(&attributes.name) => {
                    Err(attributes.forbidden("this namespace may not be deleted"))
                }
                _ => Ok(()),
            };
        }
        let Some(namespace) = attributes.namespace else { return Ok(()) };
        if attributes.operation == Operation::Delete
            || &*attributes.resource.plural == "localsubjectaccessreviews"
        {
            return Ok(());
        }
        let mut found = self.objects.get("", "namespaces", "", namespace);
        if found.is_none() {
            // It may have been made a moment ago.
            found = self.objects.fresh("", "namespaces", "", namespace).await;
        }
        let Some(found) = found else {
            return Err(ApiError::not_found("", "namespaces", namespace));
        };
        if attributes.operation == Operation::Create && is_terminating(&found.parsed()) {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            return Err(attributes.forbidden(&why).cause(
                "NamespaceTerminating",
                format!("namespace {namespace} is being terminated"),
                "metadata.namespace",
            ));
        }
        Ok(())
    }
}

fn is_terminating(namespace: &serde_json::Value) -> bool {
    namespace.pointer("/status/phase").is_some_and(|phase| phase == "Terminating")
        || namespace.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::trial::{admit, attributes};
    use super::*;
    use crate::objects::fake::FakeObjects;

    #[tokio::test]
    async fn decisions() {
        let objects = Arc::new(FakeObjects::default());
        objects.put("/namespaces", &json!({"metadata": {"name": "ns"}, "status": {"phase": "Active"}}));
        objects.put("/namespaces", &json!({"metadata": {"name": "end"}, "status": {"phase": "Terminating"}}));
        let plugin = NamespaceLifecycle { objects };
        use Operation::{Create, Delete, Update};
        let rows = [
            (Create, "configmaps", Some("ns"), "x", ""),
            (Create, "configmaps", Some("no"), "x", "namespaces \"no\" not found"),
            (Update, "configmaps", Some("end"), "x", ""),
            (Delete, "configmaps", Some("no"), "x", ""),
            (
                Create,
                "configmaps",
                Some("end"),
                "x",
                "configmaps \"x\" is forbidden: unable to create new content in namespace end because it is being terminated",
            ),
            (
                Delete,
                "namespaces",
                None,
                "default",
                "namespaces \"default\" is forbidden: this namespace may not be deleted",
            ),
            (Delete, "namespaces", None, "ns", ""),
            (Create, "nodes", None, "n", ""),
        ];
        for (operation, resource, namespace, name, want) in rows {
            let mut object = json!({});
            let attributes = attributes(operation, ("", "v1", resource), namespace, name, &mut object);
            assert_eq!(admit(&plugin, attributes).await, want, "{operation:?} {resource} {namespace:?}");
        }
    }
}
