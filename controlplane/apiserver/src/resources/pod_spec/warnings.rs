//! What is allowed in a pod specification but probably not meant: texts for the client's `Warning` headers.

use std::collections::HashSet;

use pagurus_controlplane_api::field::Path;
use pagurus_controlplane_api::go::quote;
use pagurus_controlplane_api::labels::{self, is_canonical_ip};
use serde_json::Value;

use crate::resources::fields::{Fields, is_zero};

/// The warnings about the name of a workload and about its pods. `pods` names their specification.
pub(crate) fn workload(object: &Value, old: Option<&Value>, pods: &str) -> Vec<String> {
    let mut out = Vec::new();
    if old.is_none() {
        let complaints = labels::dns_label(object.text("metadata.name"));
        if !complaints.is_empty() {
            out.push(format!(
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
                complaints.join(" ")
            ));
        }
    }
    out.extend(spec(&Path::new(pods), object.at(pods)));
    out
}

/// The warnings about a pod specification at a path.
pub(crate) fn spec(path: &Path, spec: &Value) -> Vec<String> {
    let mut out = Vec::new();
    scheduling(&mut out, path, spec);
    let mut taken = HashSet::new();
    for (i, alias) in spec.items("hostAliases").iter().enumerate() {
        let ip = alias.text("ip");
        if !taken.insert(ip) {
            let path = path.child("hostAliases").index(i).child("ip");
            out.push(format!("{path}: duplicate ip {}", quote(ip)));
        }
    }
    let mut secrets = HashSet::new();
    for (i, secret) in spec.items("imagePullSecrets").iter().enumerate() {
        let (path, name) = (path.child("imagePullSecrets").index(i).child("name"), secret.text("name"));
        if name.is_empty() {
            out.push(format!("{path}: invalid empty name \"\""));
        } else if !secrets.insert(name) {
            out.push(format!("{path}: duplicate name {}", quote(name)));
        }
    }
    if spec.int("terminationGracePeriodSeconds") < 0 {
        let path = path.child("terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for (i, volume) in spec.items("volumes").iter().enumerate() {
        self::volume(&mut out, &path.child("volumes").index(i), volume);
    }
    for list in ["containers", "initContainers"] {
        for (i, container) in spec.items(list).iter().enumerate() {
            self::container(&mut out, &path.child(list).index(i), container);
        }
    }
    ports(&mut out, &path.child("containers"), spec.items("containers"));
    out
}

/// Ports of a pod that are said twice. One of them with a port on the host overlaps, it does not repeat.
fn ports(out: &mut Vec<String>, path: &Path, containers: &[Value]) {
    let mut seen: Vec<(Path, &Value)> = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.items("ports").iter().enumerate() {
            let path = path.index(i).child("ports").index(j);
            for (other_path, other) in &seen {
                if port.int("containerPort") != other.int("containerPort")
                    || port.text("protocol") != other.text("protocol")
                {
                    continue;
                }
                let (host, other_host) = (port.int("hostPort"), other.int("hostPort"));
                if host == other_host && port.text("hostIP") == other.text("hostIP") {
                    out.push(format!("{path}: duplicate port definition with {other_path}"));
                } else if host == 0 || other_host == 0 {
                    out.push(format!("{path}: overlapping port definition with {other_path}"));
                }
            }
            seen.push((path, port));
        }
    }
}

fn scheduling(out: &mut Vec<String>, path: &Path, spec: &Value) {
    let affinity = path.child("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        let terms = spec.at("affinity").at(kind);
        let text = "a null labelSelector results in matching no pod";
        for (i, term) in terms.items(required).iter().enumerate() {
            if !term.has("labelSelector") {
                let path = affinity.child(kind).child(required).index(i).child("labelSelector");
                out.push(format!("{path}: {text}"));
            }
        }
        for (i, term) in terms.items(preferred).iter().enumerate() {
            if !term.has("podAffinityTerm.labelSelector") {
                let path = affinity.child(kind).child(preferred).index(i);
                out.push(format!("{}: {text}", path.child("podAffinityTerm.labelSelector")));
            }
        }
    }
    for (i, constraint) in spec.items("topologySpreadConstraints").iter().enumerate() {
        if !constraint.has("labelSelector") {
            let path = path.child("topologySpreadConstraints").index(i).child("labelSelector");
            out.push(format!("{path}: a null labelSelector results in matching no pod"));
        }
    }
    for (i, ip) in spec.texts("dnsConfig.nameservers").enumerate() {
        if !is_canonical_ip(ip) && pagurus_controlplane_api::labels::parse_ip(ip).is_some() {
            let path = path.child("dnsConfig.nameservers").index(i);
            out.push(format!("{path}: non-standard IP address {} will be considered invalid in a future Kubernetes release", quote(ip)));
        }
    }
}

/// Sources of volumes that are on their way out, or gone.
const DEPRECATED_VOLUMES: [(&str, &str); 7] = [
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
];

fn volume(out: &mut Vec<String>, path: &Path, volume: &Value) {
    let name = volume.text("name");
    for (kind, title, key) in [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")] {
        let source = volume.at(kind);
        let paths: Vec<&str> = source.items("items").iter().map(|item| item.text("path")).collect();
        for text in overlaps(&paths) {
            out.push(format!("volume {} ({title} {}): {text}", quote(name), quote(source.text(key))));
        }
    }
    let downward: Vec<&str> =
        volume.items("downwardAPI.items").iter().map(|item| item.text("path")).collect();
    for text in overlaps(&downward) {
        out.push(format!("volume {} (DownwardAPI): {text}", quote(name)));
    }
    for _ in volume.items("projected.sources").iter().filter(|s| is_zero(s)) {
        out.push(format!("volume {} (Projected) has no sources provided", quote(name)));
    }
    for (kind, text) in DEPRECATED_VOLUMES {
        if volume.has(kind) {
            out.push(format!("{}: {text}", path.child(kind)));
        }
    }
}

/// Two files at one path, or a file where another needs a directory.
fn overlaps(paths: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    for (i, path) in paths.iter().enumerate() {
        for earlier in &paths[..i] {
            let inside = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
            if path == earlier || inside(path, earlier) || inside(earlier, path) {
                out.push(format!("overlapping paths: {} with {}", quote(path), quote(earlier)));
            }
        }
    }
    out
}

fn container(out: &mut Vec<String>, path: &Path, container: &Value) {
    let mut taken = HashSet::new();
    for (i, variable) in container.items("env").iter().enumerate() {
        let name = variable.text("name");
        if !taken.insert(name) {
            let path = path.child("env").index(i);
            out.push(format!(
                "{path}: hides previous definition of {}, which may be dropped when using apply",
                quote(name)
            ));
        }
    }
    for kind in ["limits", "requests"] {
        for (name, quantity) in container.at("resources").entries(kind) {
            let fractional = pagurus_controlplane_api::quantity::Quantity::from_json(quantity)
                .is_ok_and(|q| !q.is_integer());
            if matches!(name, "memory" | "ephemeral-storage") && fractional {
                let path = path.child("resources").child(kind).key(name);
                let value = quote(quantity.as_str().unwrap_or_default());
                out.push(format!("{path}: fractional byte value {value} is invalid, must be an integer"));
            }
        }
    }
}
