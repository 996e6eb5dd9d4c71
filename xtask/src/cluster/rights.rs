//! What agents may do beyond what every node may: give addresses to Services of type LoadBalancer.

use super::api::Api;
use anyhow::Result;
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const NAME: &str = "pagurus:load-balancer";
/// The agents' Lease and the ConfigMap with pools have this name.
const OBJECT: &str = "pagurus-load-balancer";

/// Lets the agents do it.
pub fn grant(api: &Api) -> Result<()> {
    let core = "";
    let cluster = json!([
        {"apiGroups": [core], "resources": ["services"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [core], "resources": ["services/status"], "verbs": ["patch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]);
    let own = json!([
        {"apiGroups": [core], "resources": ["configmaps"], "resourceNames": [OBJECT], "verbs": ["get", "list", "watch"]},
        // A name cannot be checked when the object is not there yet.
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [OBJECT], "verbs": ["get", "update"]},
    ]);
    api.ensure(&format!("{RBAC}/clusterroles"), &role("ClusterRole", None, &cluster))?;
    api.ensure(&format!("{RBAC}/clusterrolebindings"), &binding("ClusterRole", None))?;
    let namespace = "kube-system";
    let roles = format!("{RBAC}/namespaces/{namespace}");
    api.ensure(&format!("{roles}/roles"), &role("Role", Some(namespace), &own))?;
    api.ensure(&format!("{roles}/rolebindings"), &binding("Role", Some(namespace))).map(|_| ())
}

fn metadata(namespace: Option<&str>) -> Value {
    namespace.map_or_else(|| json!({"name": NAME}), |namespace| json!({"name": NAME, "namespace": namespace}))
}

fn role(kind: &str, namespace: Option<&str>, rules: &Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata(namespace), "rules": rules})
}

fn binding(role: &str, namespace: Option<&str>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{role}Binding"), "metadata": metadata(namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": NAME},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}]
    })
}
