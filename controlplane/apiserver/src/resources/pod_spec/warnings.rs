//! What is allowed in a pod specification but probably not meant: texts for the client's `Warning` headers.

use std::collections::{BTreeSet, HashSet};

use pagurus_controlplane_api::field::Path;
use pagurus_controlplane_api::go::quote;
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::deprecations::{self, fraction, node_expressions, node_label, node_labels};
use crate::resources::fields::{Fields, is_zero, same};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The warnings about the name of a workload and about its pods, made by the template at `path`.
pub(crate) fn workload(object: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
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
    out.extend(changed_template(object, old, path));
    out
}

/// The warnings about the template at `path`, if an update changed anything of how its pods are to be.
pub(crate) fn changed_template(object: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
    let part = path.split('.').next().unwrap_or_default();
    match old {
        Some(old) if same(object.at(part), old.at(part)) => Vec::new(),
        _ => template(&Path::new(path), object.at(path)),
    }
}

/// Annotations that came before fields, or that nothing reads any more.
const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const POD_SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_GONE: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APP_ARMOR_OLD: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";

/// The warnings about a template, or about a Pod, which has the empty path.
pub(crate) fn template(path: &Path, template: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let (of, spec) = (path.child("spec"), template.at("spec"));
    scheduling(&mut out, &of, spec);
    annotations(&mut out, &path.child("metadata.annotations"), template);
    names(&mut out, &of, spec);
    for name in ["memory", "ephemeral-storage"] {
        if let Some(amount) = spec.at("overhead").get(name) {
            fraction(&mut out, &of.child("overhead").key(name), amount);
        }
    }
    if spec.int("terminationGracePeriodSeconds") < 0 {
        let path = of.child("terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for (i, volume) in spec.items("volumes").iter().enumerate() {
        self::volume(&mut out, &of.child("volumes").index(i), volume);
    }
    for (list, containers) in super::containers::all(spec) {
        for (i, container) in containers.iter().enumerate() {
            self::container(&mut out, &of.child(list).index(i), container);
        }
    }
    ports(&mut out, &of, spec);
    out
}

/// Annotations about security, where no field says the same.
fn annotations(out: &mut Vec<String>, path: &Path, template: &Value) {
    let has = |key: &str| labels::annotation(template, key).is_some();
    for (key, text) in ANNOTATIONS {
        if has(key) {
            out.push(format!("{}: {text}", path.key(key)));
        }
    }
    let spec = template.at("spec");
    if has(POD_SECCOMP) && !spec.has("securityContext.seccompProfile") {
        out.push(format!("{}: {SECCOMP_GONE}", path.key(POD_SECCOMP)));
    }
    for container in super::containers::all(spec).iter().flat_map(|(_, containers)| containers.iter()) {
        let name = container.text("name");
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        if has(&key) && !container.has("securityContext.seccompProfile") {
            out.push(format!("{}: {SECCOMP_GONE}", path.key(&key)));
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        let said =
            container.has("securityContext.appArmorProfile") || spec.has("securityContext.appArmorProfile");
        if has(&key) && !said {
            out.push(format!("{}: {APP_ARMOR_OLD}", path.key(&key)));
        }
    }
}

/// Names and addresses that are said twice, or not at all.
fn names(out: &mut Vec<String>, path: &Path, spec: &Value) {
    let mut taken = HashSet::new();
    for (i, alias) in spec.items("hostAliases").iter().enumerate() {
        let (path, ip) = (path.child("hostAliases").index(i).child("ip"), alias.text("ip"));
        if !taken.insert(ip) {
            out.push(format!("{path}: duplicate ip {}", quote(ip)));
        }
        deprecations::ip(out, &path, ip);
    }
    let mut secrets = HashSet::new();
    for (i, secret) in spec.items("imagePullSecrets").iter().enumerate() {
        let (path, name) = (path.child("imagePullSecrets").index(i).child("name"), secret.text("name"));
        if !secrets.insert(name) {
            out.push(format!("{path}: duplicate name {}", quote(name)));
        }
        if name.is_empty() {
            out.push(format!("{path}: invalid empty name \"\""));
        }
    }
    for (i, ip) in spec.texts("dnsConfig.nameservers").enumerate() {
        deprecations::ip(out, &path.child("dnsConfig.nameservers").index(i), ip);
    }
}

/// Ports of a pod that are said twice. One of them with a port on the host overlaps, it does not repeat.
fn ports(out: &mut Vec<String>, path: &Path, spec: &Value) {
    let mut seen: Vec<(Path, &Value)> = Vec::new();
    for (list, containers) in super::containers::all(spec) {
        for (i, container) in containers.iter().enumerate() {
            for (j, port) in container.items("ports").iter().enumerate() {
                let path = path.child(list).index(i).child("ports").index(j);
                self::port(out, &path, port, &seen);
                seen.push((path, port));
            }
        }
    }
}

fn port(out: &mut Vec<String>, path: &Path, port: &Value, seen: &[(Path, &Value)]) {
    let (host, address) = (port.int("hostPort"), port.text("hostIP"));
    let (number, protocol) = (port.int("containerPort"), port.text("protocol"));
    if host == 0 && !address.is_empty() {
        let name = port.text("name");
        let shown =
            format!("{{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{address}}}");
        out.push(format!("{path}: hostIP set without hostPort: {shown}"));
    }
    for (other_path, other) in seen {
        if number != other.int("containerPort") || protocol != other.text("protocol") {
            continue;
        }
        let (other_host, other_address) = (other.int("hostPort"), other.text("hostIP"));
        let what = if host == other_host && address == other_address {
            "duplicate"
        } else if host == 0 || other_host == 0 {
            "overlapping"
        } else if host == other_host && (address.is_empty() || other_address.is_empty()) {
            "dangerously ambiguous"
        } else {
            continue;
        };
        out.push(format!("{path}: {what} port definition with {other_path}"));
    }
}

fn scheduling(out: &mut Vec<String>, path: &Path, spec: &Value) {
    node_labels(out, &path.child("nodeSelector"), spec.at("nodeSelector"));
    let (affinity, nodes) = (path.child("affinity"), spec.at("affinity.nodeAffinity"));
    let of = affinity.child("nodeAffinity");
    for (i, term) in nodes.at(REQUIRED).items("nodeSelectorTerms").iter().enumerate() {
        node_expressions(out, &of.child(REQUIRED).child("nodeSelectorTerms").index(i), term, false);
    }
    for (i, term) in nodes.items(PREFERRED).iter().enumerate() {
        let path = of.child(PREFERRED).index(i).child("preference");
        node_expressions(out, &path, term.at("preference"), true);
    }
    let nothing = "a null labelSelector results in matching no pod";
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = spec.at("affinity").at(kind);
        for (i, term) in terms.items(REQUIRED).iter().enumerate() {
            if !term.has("labelSelector") {
                let path = affinity.child(kind).child(REQUIRED).index(i).child("labelSelector");
                out.push(format!("{path}: {nothing}"));
            }
        }
        for (i, term) in terms.items(PREFERRED).iter().enumerate() {
            if !term.has("podAffinityTerm.labelSelector") {
                let path = affinity.child(kind).child(PREFERRED).index(i);
                out.push(format!("{}: {nothing}", path.child("podAffinityTerm.labelSelector")));
            }
        }
    }
    for (i, constraint) in spec.items("topologySpreadConstraints").iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(i);
        let key = constraint.text("topologyKey");
        if let Some(text) = node_label(key) {
            out.push(format!("{}: {key} is {text}", path.child("topologyKey")));
        }
        if !constraint.has("labelSelector") {
            out.push(format!("{}: {nothing}", path.child("labelSelector")));
        }
    }
}

/// Sources of volumes that are on their way out, or gone; what they are called, and since when.
const DEPRECATED_VOLUMES: [(&str, &str, &str); 9] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
];

fn deprecated_source(out: &mut Vec<String>, path: &Path, volume: &Value) {
    for (kind, name, text) in DEPRECATED_VOLUMES {
        if volume.has(kind) {
            out.push(format!("{}: {text}", path.child(name)));
        }
    }
}

/// The warnings about a PersistentVolume.
pub(crate) fn persistent_volume(volume: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let (path, spec) = (Path::new("spec"), volume.at("spec"));
    deprecations::storage_class(&mut out, volume);
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
    }
    for (i, term) in spec.items("nodeAffinity.required.nodeSelectorTerms").iter().enumerate() {
        let path = path.child("nodeAffinity.required.nodeSelectorTerms").index(i);
        node_expressions(&mut out, &path, term, false);
    }
    let mut persistent = spec.clone();
    // Volumes of these two sorts are told of only where pods have them.
    if let Some(fields) = persistent.as_object_mut() {
        fields.retain(|name, _| !matches!(name.as_str(), "flocker" | "quobyte"));
    }
    deprecated_source(&mut out, &path, &persistent);
    out
}

fn volume(out: &mut Vec<String>, path: &Path, volume: &Value) {
    let name = quote(volume.text("name"));
    let places = |source: &Value| -> Vec<String> {
        source.items("items").iter().map(|item| item.text("path").to_owned()).collect()
    };
    for (kind, title, key) in [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")] {
        let source = volume.at(kind);
        let told = format!("volume {name} ({title} {})", quote(source.text(key)));
        overlaps(out, &told, places(source));
    }
    overlaps(out, &format!("volume {name} (DownwardAPI)"), places(volume.at("downwardAPI")));
    projected(out, &name, volume.items("projected.sources"));
    same_as_token(out, path, volume.items("projected.sources"));
    deprecated_source(out, path, volume);
    let claim = volume.at("ephemeral.volumeClaimTemplate.spec");
    deprecations::claim(out, &path.child("ephemeral.volumeClaimTemplate.spec"), claim);
}

/// Files of a projected volume that lie at one path, within a source and across sources.
fn projected(out: &mut Vec<String>, name: &str, sources: &[Value]) {
    let mut all: BTreeSet<String> = BTreeSet::new();
    for source in sources {
        if is_zero(source) || source.as_object().is_some_and(|kinds| kinds.values().all(Value::is_null)) {
            out.push(format!("volume {name} (Projected) has no sources provided"));
            continue;
        }
        let (title, places) = projection(source);
        let told = format!("volume {name} (Projected {title})");
        overlaps(out, &told, places.clone());
        let unique: BTreeSet<String> = places.into_iter().collect();
        let mut together: Vec<String> = unique.iter().chain(&all).cloned().collect();
        together.sort();
        overlaps(out, &told, together);
        all.extend(unique);
    }
}

/// What a source of a projected volume is, and the paths of its files.
fn projection(source: &Value) -> (String, Vec<String>) {
    let places = |of: &Value| of.items("items").iter().map(|i| i.text("path").to_owned()).collect();
    for (kind, title) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
        let of = source.at(kind);
        if of.has("items") {
            return (format!("{title} {}", quote(of.text("name"))), places(of));
        }
    }
    if source.has("downwardAPI.items") {
        return ("DownwardAPI".to_owned(), places(source.at("downwardAPI")));
    }
    let place = |of: &Value| vec![of.text("path").to_owned()];
    if source.has("serviceAccountToken") {
        return ("ServiceAccountToken".to_owned(), place(source.at("serviceAccountToken")));
    }
    let bundle = source.at("clusterTrustBundle");
    if bundle.is_null() {
        return (String::new(), Vec::new());
    }
    let name = bundle.some_text("name").unwrap_or_else(|| bundle.text("signerName"));
    (format!("ClusterTrustBundle {}", quote(name)), place(bundle))
}

/// Files at the path of a token.
fn same_as_token(out: &mut Vec<String>, path: &Path, sources: &[Value]) {
    let tokens: Vec<&str> = sources.iter().filter_map(|s| s.some_text("serviceAccountToken.path")).collect();
    let path = path.child("projected.sources");
    for (kind, told) in [("configMap", "configMap"), ("secret", "secrets"), ("downwardAPI", "downwardAPI")] {
        for source in sources {
            for (i, item) in source.at(kind).items("items").iter().enumerate() {
                if tokens.contains(&item.text("path")) {
                    let place = quote(item.text("path"));
                    let path = path.child(told).index(i);
                    out.push(format!("{path}: has duplicated path with ServiceAccountToken {place}"));
                }
            }
        }
    }
}

/// Two files at one path, or a file where another needs a directory.
fn overlaps(out: &mut Vec<String>, told: &str, paths: Vec<String>) {
    let mut seen: Vec<String> = Vec::new();
    for path in paths {
        let path = path.trim_end_matches('/').to_owned();
        let meets = |a: &str, b: &str| format!("{a}/").starts_with(b);
        let other =
            seen.iter().find(|s| !s.is_empty() && !path.is_empty() && (meets(s, &path) || meets(&path, s)));
        if let Some(other) = other {
            out.push(format!("{told}: overlapping paths: {} with {}", quote(&path), quote(other)));
        }
        if !seen.contains(&path) {
            seen.push(path);
        }
    }
}

fn container(out: &mut Vec<String>, path: &Path, container: &Value) {
    let mut taken = HashSet::new();
    for (i, variable) in container.items("env").iter().enumerate() {
        let (name, value) = (variable.text("name"), variable.text("value"));
        if taken.insert(name) {
            continue;
        }
        // A value that is built upon the earlier one hides nothing.
        let reference = format!("$({name})");
        if variable.has("valueFrom") || value == reference || !value.contains(&reference) {
            let path = path.child("env").index(i);
            out.push(format!(
                "{path}: hides previous definition of {}, which may be dropped when using apply",
                quote(name)
            ));
        }
    }
    for kind in ["limits", "requests"] {
        for name in ["memory", "ephemeral-storage"] {
            if let Some(amount) = container.at("resources").at(kind).get(name) {
                fraction(out, &path.child("resources").child(kind).key(name), amount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_told() {
        let env = |values: Value| json!({"spec": {"containers": [{"env": values}]}});
        let hides = "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply";
        let port = |port: Value| json!({"spec": {"containers": [{"ports": [{"containerPort": 80, "protocol": "TCP"}, port]}]}});
        for (pod, expected) in [
            (env(json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])), hides),
            (env(json!([{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)"}])), hides),
            (env(json!([{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}])), ""),
            (
                port(json!({"containerPort": 80, "protocol": "TCP", "name": "p", "hostIP": "1.2.3.4"})),
                "spec.containers[0].ports[1]: hostIP set without hostPort: {Name:p HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.2.3.4}; \
                 spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            ),
            (
                json!({"spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}),
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            ),
            (
                json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}},
                    "spec": {"containers": [{"name": "c"}]}}),
                "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the \"appArmorProfile\" field instead",
            ),
            (
                json!({"spec": {"volumes": [{"name": "v", "projected": {"sources": [
                    {"configMap": {"name": "m", "items": [{"path": "a"}]}}, {"secret": {"name": "s", "items": [{"path": "a/b"}]}}]}}]}}),
                "volume \"v\" (Projected Secret \"s\"): overlapping paths: \"a/b\" with \"a\"",
            ),
        ] {
            assert_eq!(template(&Path::default(), &pod).join("; "), expected, "{pod}");
        }
    }
}
