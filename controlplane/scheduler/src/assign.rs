//! The scheduler's writes: binding a pod to its node, and saying in the pod's status why it has none.

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use pagurus_controlplane_api::time::now_text;
use serde_json::json;

use crate::pod::PodInfo;

/// Binds a pod to a node.
pub(crate) async fn bind(client: &Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.key.name.clone()),
            namespace: pod.key.namespace.clone(),
            uid: Some(pod.uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api = Api::<Pod>::namespaced(client.clone(), pod.namespace());
    let _: Status =
        api.create_subresource("binding", &pod.key.name, &PostParams::default(), &binding).await?;
    Ok(())
}

/// The reason in the condition of a pod that fits nowhere.
const UNSCHEDULABLE: &str = "Unschedulable";

/// Whether the pod's status has to be told this message.
pub(crate) fn is_news(pod: &PodInfo, message: &str) -> bool {
    pod.condition
        .as_ref()
        .is_none_or(|(status, reason, text)| status != "False" || reason != UNSCHEDULABLE || text != message)
}

/// Writes the PodScheduled condition of a pod that fits nowhere.
pub(crate) async fn report(client: &Client, pod: &PodInfo, message: &str) -> Result<(), kube::Error> {
    let mut condition = json!({
        "type": "PodScheduled", "status": "False", "reason": UNSCHEDULABLE, "message": message,
    });
    if pod.condition.as_ref().is_none_or(|(status, ..)| status != "False") {
        condition["lastTransitionTime"] = json!(now_text());
    }
    let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
    let api = Api::<Pod>::namespaced(client.clone(), pod.namespace());
    api.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}
