//! What a pod specification means where it says nothing. Must not know in which kind it stands.

use serde_json::{Map, Value, json};

use crate::resources::fields::{Fields, default, default_text, default_zero, existing, items_mut, object_at};

/// The lists of containers of a pod specification.
pub(crate) const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Fills in a pod specification that stands in a template or a Pod.
pub(crate) fn spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default(spec, "securityContext", Value::Object(Map::new()));
    default(spec, "terminationGracePeriodSeconds", 30);
    default_text(spec, "schedulerName", "default-scheduler");
    if spec.text("serviceAccountName").is_empty() && !spec.text("serviceAccount").is_empty() {
        spec["serviceAccountName"] = spec["serviceAccount"].clone();
    } else if !spec.text("serviceAccountName").is_empty() {
        spec["serviceAccount"] = spec["serviceAccountName"].clone();
    }
    for volume in items_mut(spec, "volumes") {
        self::volume(volume);
    }
    for list in CONTAINER_LISTS {
        for container in items_mut(spec, list) {
            self::container(container);
        }
    }
}

/// Fills in the pod specification of a template.
pub(crate) fn template(template: &mut Value) {
    self::spec(object_at(template, "spec"));
}

/// Fills in what only a Pod of its own gets (not a template): requests from limits, service links, ports on the host.
pub(crate) fn pod(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(spec, "enableServiceLinks", true);
    let host_network = spec.flag("hostNetwork");
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            requests_from_limits(container);
            for port in items_mut(container, "ports").filter(|_| host_network) {
                let number = port.int("containerPort");
                default_zero(port, "hostPort", number);
            }
        }
    }
    pod_requests(spec);
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container.at("resources.limits").as_object().cloned() else { return };
    let requests = object_at(container, "resources.requests");
    for (name, quantity) in limits {
        default(requests, &name, quantity);
    }
}

/// Pod-level requests follow from the pod-level limits for what no container requests.
fn pod_requests(spec: &mut Value) {
    let Some(limits) = spec.at("resources.limits").as_object().cloned() else { return };
    let requested = |name: &str| {
        ["containers", "initContainers"]
            .iter()
            .any(|list| spec.items(list).iter().any(|c| c.at("resources.requests").get(name).is_some()))
    };
    let open: Vec<_> = limits.into_iter().filter(|(name, _)| !requested(name)).collect();
    if !open.is_empty() {
        let requests = object_at(spec, "resources.requests");
        for (name, quantity) in open {
            default(requests, &name, quantity);
        }
    }
}

fn container(container: &mut Value) {
    if container.text("imagePullPolicy").is_empty() {
        let policy = if is_latest(container.text("image")) { "Always" } else { "IfNotPresent" };
        default_text(container, "imagePullPolicy", policy);
    }
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    for port in items_mut(container, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for env in items_mut(container, "env") {
        if let Some(source) = existing(env, "valueFrom.fieldRef") {
            default_text(source, "apiVersion", "v1");
        }
        if let Some(source) = existing(env, "valueFrom.fileKeyRef") {
            default(source, "optional", false);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing(container, name) {
            self::probe(probe);
        }
    }
    for name in ["lifecycle.postStart", "lifecycle.preStop"] {
        if let Some(get) = existing(container, name).and_then(|handler| existing(handler, "httpGet")) {
            http_get(get);
        }
    }
}

/// Whether an image reference names no particular version: no digest, and no tag or the tag `latest`.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn probe(probe: &mut Value) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        default_zero(probe, name, value);
    }
    if let Some(get) = existing(probe, "httpGet") {
        http_get(get);
    }
    if let Some(grpc) = existing(probe, "grpc") {
        default(grpc, "service", "");
    }
}

fn http_get(get: &mut Value) {
    default_text(get, "path", "/");
    default_text(get, "scheme", "HTTP");
}

fn volume(volume: &mut Value) {
    let empty = volume
        .as_object()
        .is_some_and(|fields| fields.iter().all(|(name, source)| name == "name" || source.is_null()));
    if empty {
        volume["emptyDir"] = json!({});
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, name) {
            default(source, "defaultMode", 0o644);
        }
    }
    downward_items(volume, "downwardAPI.items");
    for source in items_mut(volume, "projected.sources") {
        if let Some(token) = existing(source, "serviceAccountToken") {
            default(token, "expirationSeconds", 3600);
        }
        downward_items(source, "downwardAPI.items");
    }
    if let Some(image) = existing(volume, "image") {
        let policy = if is_latest(image.text("reference")) { "Always" } else { "IfNotPresent" };
        default_text(image, "pullPolicy", policy);
    }
    if let Some(claim) = existing(volume, "ephemeral.volumeClaimTemplate.spec") {
        default(claim, "volumeMode", "Filesystem");
    }
    source(volume);
}

fn downward_items(volume: &mut Value, items: &str) {
    for item in items_mut(volume, items) {
        if let Some(reference) = existing(item, "fieldRef") {
            default_text(reference, "apiVersion", "v1");
        }
    }
}

/// Fills in the sources that volumes of pods and PersistentVolumes share.
pub(crate) fn source(volume: &mut Value) {
    if let Some(host_path) = existing(volume, "hostPath") {
        default(host_path, "type", "");
    }
    if let Some(iscsi) = existing(volume, "iscsi") {
        default_text(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = existing(volume, "rbd") {
        for (name, value) in [("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")] {
            default_text(rbd, name, value);
        }
    }
    if let Some(disk) = existing(volume, "azureDisk") {
        default(disk, "cachingMode", "ReadWrite");
        default(disk, "kind", "Shared");
        default(disk, "fsType", "ext4");
        default(disk, "readOnly", false);
    }
    if let Some(scale_io) = existing(volume, "scaleIO") {
        default_text(scale_io, "storageMode", "ThinProvisioned");
        default_text(scale_io, "fsType", "xfs");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_pull_policy() {
        for (image, expected) in [
            ("a", true),
            ("a:latest", true),
            ("a:1", false),
            ("host:5000/a", true),
            ("host:5000/a:1", false),
            ("a@sha256:0", false),
            ("", true),
        ] {
            assert_eq!(is_latest(image), expected, "{image}");
        }
    }

    #[test]
    fn a_pod() {
        let mut value = json!({
            "hostNetwork": true,
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}}, {"name": "h", "hostPath": {"path": "/"}}],
            "containers": [{"name": "c", "image": "a:1", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Mi"}},
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5}}],
        });
        spec(&mut value);
        pod(&mut value);
        assert_eq!(
            value,
            json!({
                "hostNetwork": true, "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
                "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "enableServiceLinks": true,
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}},
                    {"name": "h", "hostPath": {"path": "/", "type": ""}}],
                "containers": [{"name": "c", "image": "a:1", "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1", "memory": "1Mi"}},
                    "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "periodSeconds": 5,
                        "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}}],
            })
        );
    }
}
