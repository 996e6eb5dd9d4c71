//! What a node may do: the rules of its roles, narrowed to its own objects and to what its pods refer to.

use serde_json::Value;

use super::rbac::Index;
use super::{Attributes, Decision};
use crate::objects::Objects;
use crate::request::UserInfo;

const USER_PREFIX: &str = "system:node:";
const GROUP_NODES: &str = "system:nodes";
/// The roles every node has: that of the kubelet, and that of the service proxy, which is part of our nodes.
const ROLES: [&str; 2] = ["system:node", "system:node-proxier"];

/// The node's name, if the user is a node.
pub(super) fn name_of(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(USER_PREFIX)?;
    (user.in_group(GROUP_NODES) && !name.is_empty()).then_some(name)
}

/// Decides for a node; no opinion leaves the matter to RBAC.
pub(super) fn decide(node: &str, request: &Attributes<'_>, index: &Index, objects: &dyn Objects) -> Decision {
    if !request.is_resource {
        return Decision::NoOpinion(String::new());
    }
    let narrow = match (request.group, request.resource) {
        ("", "secrets" | "configmaps") => referenced(node, request, objects, &["get", "list", "watch"]),
        ("", "persistentvolumeclaims") if request.subresource.is_empty() => {
            referenced(node, request, objects, &["get"])
        }
        ("resource.k8s.io", "resourceclaims") if request.subresource.is_empty() => {
            referenced(node, request, objects, &["get"])
        }
        ("", "serviceaccounts") if request.subresource == "token" => {
            referenced(node, request, objects, &["create"])
        }
        ("coordination.k8s.io", "leases") => own_object(node, request, "kube-node-lease"),
        ("storage.k8s.io", "csinodes") => own_object(node, request, ""),
        _ => None,
    };
    match narrow {
        Some(refusal) if !refusal.is_empty() => return Decision::NoOpinion(refusal),
        Some(_) => return Decision::Allow(String::new()),
        None => {}
    }
    let allowed = ROLES
        .iter()
        .filter_map(|role| index.cluster_role_rules(role))
        .flatten()
        .any(|rule| rule.allows(request));
    if allowed { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) }
}

/// The objects of the node's own name; a creation names nothing yet.
fn own_object(node: &str, request: &Attributes<'_>, namespace: &str) -> Option<String> {
    let refusal = if request.namespace != namespace {
        format!("can only access objects in the namespace \"{namespace}\"")
    } else if request.verb == "create" && request.name.is_empty() || request.name == node {
        String::new()
    } else {
        format!("can only access the object with the same name as the requesting node \"{node}\"")
    };
    let known = ["get", "create", "update", "patch", "delete"].contains(&request.verb);
    if known { Some(refusal) } else { None }
}

/// The objects that a pod on the node refers to, one at a time.
fn referenced(node: &str, request: &Attributes<'_>, objects: &dyn Objects, verbs: &[&str]) -> Option<String> {
    let Attributes { resource, namespace, name, verb, .. } = *request;
    let refusal = if !verbs.contains(&verb) {
        format!("can only {} {resource}", verbs.join("/"))
    } else if name.is_empty() || namespace.is_empty() {
        format!("can only read namespaced object of this type by name: {resource}")
    } else if pods_of(node, namespace, objects).any(|pod| refers_to(&pod, resource, name)) {
        String::new()
    } else {
        format!("no relationship found between node '{node}' and this object")
    };
    Some(refusal)
}

fn pods_of(node: &str, namespace: &str, objects: &dyn Objects) -> impl Iterator<Item = Value> + use<> {
    let pods = objects.list_where("", "pods", namespace, "spec.nodeName", node);
    pods.into_iter().map(|stored| stored.value())
}

/// Whether a pod's spec names that object of its namespace.
fn refers_to(pod: &Value, resource: &str, name: &str) -> bool {
    let Some(spec) = pod.get("spec") else { return false };
    let is = |value: Option<&Value>| value.and_then(Value::as_str) == Some(name);
    match resource {
        "serviceaccounts" => is(spec.get("serviceAccountName")),
        "secrets" => {
            list(spec, "imagePullSecrets").any(|secret| is(secret.get("name")))
                || list(spec, "volumes").any(|volume| names_secret(volume, name))
                || environments(spec).any(|env| {
                    is(env.pointer("/valueFrom/secretKeyRef/name")) || is(env.pointer("/secretRef/name"))
                })
        }
        "configmaps" => {
            list(spec, "volumes").any(|volume| names_config_map(volume, name))
                || environments(spec).any(|env| {
                    is(env.pointer("/valueFrom/configMapKeyRef/name"))
                        || is(env.pointer("/configMapRef/name"))
                })
        }
        "persistentvolumeclaims" => {
            let pod_name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            list(spec, "volumes").any(|volume| {
                let generated = volume.get("ephemeral").is_some()
                    && volume
                        .get("name")
                        .and_then(Value::as_str)
                        .is_some_and(|v| name == format!("{pod_name}-{v}"));
                is(volume.pointer("/persistentVolumeClaim/claimName")) || generated
            })
        }
        "resourceclaims" => {
            let statuses = pod.pointer("/status/resourceClaimStatuses").and_then(Value::as_array);
            list(spec, "resourceClaims").any(|claim| is(claim.get("resourceClaimName")))
                || statuses.into_iter().flatten().any(|claim| is(claim.get("resourceClaimName")))
        }
        _ => false,
    }
}

fn list<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// The entries of `env` and `envFrom` of all containers.
fn environments(spec: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|field| list(spec, field))
        .flat_map(|container| list(container, "env").chain(list(container, "envFrom")))
}

/// Volume sources name their secrets in three ways: `secret.secretName`, `secretRef.name` of drivers, projections.
fn names_secret(volume: &Value, name: &str) -> bool {
    let is = |value: Option<&Value>| value.and_then(Value::as_str) == Some(name);
    let of_driver = volume.as_object().into_iter().flatten().any(|(_, source)| {
        is(source.pointer("/secretRef/name")) || is(source.pointer("/nodePublishSecretRef/name"))
    });
    is(volume.pointer("/secret/secretName"))
        || of_driver
        || projections(volume).any(|source| is(source.pointer("/secret/name")))
        || is(volume.pointer("/azureFile/secretName"))
}

fn names_config_map(volume: &Value, name: &str) -> bool {
    let is = |value: Option<&Value>| value.and_then(Value::as_str) == Some(name);
    is(volume.pointer("/configMap/name"))
        || projections(volume).any(|source| is(source.pointer("/configMap/name")))
}

fn projections(volume: &Value) -> impl Iterator<Item = &Value> {
    volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::rbac::Role;
    use super::*;
    use crate::objects::fake::FakeObjects;

    #[test]
    fn nodes_reach_their_own() {
        let objects = FakeObjects::default();
        let pod = |name: &str, node: &str, spec: Value| {
            let mut pod = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
            pod["spec"]["nodeName"] = json!(node);
            pod
        };
        objects.put("/pods", &pod("p", "n1", json!({
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "vol"}},
                {"name": "b", "projected": {"sources": [{"configMap": {"name": "ca"}}]}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
            ],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}], "envFrom": [{"configMapRef": {"name": "from"}}]}],
        })));
        objects.put("/pods", &pod("q", "n2", json!({"imagePullSecrets": [{"name": "other"}]})));
        let mut index = Index::default();
        let rules = json!({"rules": [{"verbs": ["*"], "apiGroups": ["", "coordination.k8s.io"], "resources": ["*"]}]});
        index.add_role("", "system:node", Arc::new(Role::from_value(&rules)));
        let user = UserInfo::authenticated("system:node:n1", ["system:nodes"]);
        assert_eq!(name_of(&user), Some("n1"));
        let rows = [
            ("get", "", "secrets", "", "ns", "pull", true),
            ("get", "", "secrets", "", "ns", "vol", true),
            ("watch", "", "secrets", "", "ns", "env", true),
            ("get", "", "secrets", "", "ns", "other", false),
            ("get", "", "secrets", "", "elsewhere", "pull", false),
            ("list", "", "secrets", "", "ns", "", false),
            ("delete", "", "secrets", "", "ns", "pull", false),
            ("get", "", "configmaps", "", "ns", "ca", true),
            ("get", "", "configmaps", "", "ns", "from", true),
            ("get", "", "persistentvolumeclaims", "", "ns", "claim", true),
            ("create", "", "serviceaccounts", "token", "ns", "sa", true),
            ("create", "", "serviceaccounts", "token", "ns", "admin", false),
            ("update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n1", true),
            ("update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n2", false),
            ("update", "coordination.k8s.io", "leases", "", "kube-system", "n1", false),
            ("list", "", "pods", "", "", "", true),
            ("list", "apps", "deployments", "", "", "", false),
        ];
        for (verb, group, resource, subresource, namespace, name, want) in rows {
            let request = Attributes {
                user: &user,
                verb,
                is_resource: true,
                group,
                resource,
                subresource,
                namespace,
                name,
                ..Attributes::default()
            };
            let got = matches!(decide("n1", &request, &index, &objects), Decision::Allow(_));
            assert_eq!(got, want, "{request:?}");
        }
    }
}
