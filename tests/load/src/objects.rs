//! The objects of the measurements: a pod as a Deployment makes them, ConfigMaps of 1 kB, nodes, definitions of custom resources.
//!
//! Must not know: when they are made and what is measured with them.

use bytes::Bytes;
use serde_json::{Value, json};

/// The namespace of everything.
pub const NAMESPACE: &str = "pagurus-load";

/// The collection of a namespaced kind of the core group.
pub fn collection(plural: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{plural}")
}

/// The image that answers are searched for.
pub const IMAGE: &str = "registry.example/shop/frontend:4.12.7";

/// A pod that comes to 2.8 kB with what the server adds (managedFields above all), so that 2,000 make a list of 5.7 MB.
pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "frontend", "pod-template-hash": "6d4b75cb6d", "tier": "web"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "frontend-6d4b75cb6d",
                "uid": "5c1f7a52-7b0c-4a1e-9a53-0f6c1b7d2e11", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "containers": [{
                "name": "server", "image": IMAGE,
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "LOG_LEVEL", "value": "info"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            }],
        },
    })
}

/// A ConfigMap with 1 kB of data.
pub fn config_map(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"settings.conf": "x".repeat(1000)},
    })
}

/// A node as an agent registers it.
pub fn node(number: u64) -> Value {
    let name = format!("node-{number:05}");
    let amounts = json!({"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
        }},
        "spec": {"podCIDR": format!("10.{}.{}.0/24", 64 + number / 256, number % 256)},
        "status": {
            "capacity": amounts, "allocatable": amounts,
            "addresses": [{"type": "InternalIP", "address": format!("192.0.{}.{}", number / 256, number % 256)}],
            "nodeInfo": {
                "machineID": "5f6c", "systemUUID": "5f6c", "bootID": "5f6c", "kernelVersion": "6.18.0",
                "osImage": "Linux", "containerRuntimeVersion": "containerd://2.1.0", "kubeletVersion": "v1.37.1",
                "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            },
        },
    })
}

/// A definition of a custom resource with a schema of 20 kB.
pub fn definition(number: u64) -> Value {
    let group = format!("load{number}.pagurus.example");
    let field = |at: usize| {
        let text = format!("Setting {at} of the widget, as its operator reads it when it is reconciled.");
        (
            format!("setting{at:03}"),
            json!({"type": "string", "description": text, "maxLength": 64, "default": "none"}),
        )
    };
    let properties: serde_json::Map<String, Value> = (0..128).map(field).collect();
    let schema =
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// As the body of a request.
pub fn body(object: &Value) -> Bytes {
    object.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let pod = body(&pod("frontend-6d4b75cb6d-00001")).len();
        assert!((600..800).contains(&pod), "{pod}");
        assert!((1000..1200).contains(&body(&config_map("a")).len()));
        let definition = body(&definition(7)).len();
        assert!((19_000..21_500).contains(&definition), "{definition}");
    }
}
