//! A pod as the API server describes it, reduced to what running it needs. Decoded straight from the API's JSON.
//! Must not know the runtime.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::{PodName, PodUid};

mod parts;
mod volumes;

pub use parts::*;
pub use volumes::*;

/// A pod that this node was given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Namespace and name.
    pub name: PodName,
    /// Identity.
    pub uid: PodUid,
    /// Revision of the object that this was decoded from.
    pub resource_version: String,
    /// Count of changes to the spec.
    pub generation: Option<i64>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When the pod was made.
    pub created: Option<Timestamp>,
    /// Somebody asked for the pod to end, by this time.
    pub deletion: Option<Timestamp>,
    /// Seconds that the one who asked grants.
    pub deletion_grace: Option<i64>,
    /// What is wanted.
    pub spec: PodSpec,
    /// The status that the API server has.
    pub status: Value,
}

/// What is wanted of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Directories for the containers.
    pub volumes: Vec<Volume>,
    /// Containers that run before all others, in order.
    pub init_containers: Vec<Container>,
    /// The containers.
    pub containers: Vec<Container>,
    /// Containers added later, for a look inside.
    pub ephemeral_containers: Vec<Container>,
    /// What happens to a container that has ended.
    pub restart_policy: RestartPolicy,
    /// Seconds from asked to end to killed.
    pub termination_grace_period_seconds: Option<i64>,
    /// Seconds the pod may be active on the node.
    pub active_deadline_seconds: Option<i64>,
    /// Whose resolv.conf the pod gets.
    pub dns_policy: DnsPolicy,
    /// Additions to resolv.conf.
    pub dns_config: Option<DnsConfig>,
    /// The pod's identity towards the API server.
    pub service_account_name: String,
    /// The node it runs on.
    pub node_name: String,
    /// Labels of the nodes it may run on.
    pub node_selector: BTreeMap<String, String>,
    /// The nodes it may run on, and what others are there, as the API has it.
    pub affinity: Value,
    /// The pod uses the node's network.
    pub host_network: bool,
    /// The pod sees the node's processes.
    #[serde(rename = "hostPID")]
    pub host_pid: bool,
    /// The pod uses the node's IPC.
    #[serde(rename = "hostIPC")]
    pub host_ipc: bool,
    /// The containers see each other's processes.
    pub share_process_namespace: Option<bool>,
    /// Security of all containers.
    pub security_context: PodSecurityContext,
    /// Secrets for registries.
    pub image_pull_secrets: Vec<LocalReference>,
    /// Hostname; the pod's name without it.
    pub hostname: String,
    /// Subdomain of the pod's DNS name.
    pub subdomain: String,
    /// The hostname is the whole DNS name.
    #[serde(rename = "setHostnameAsFQDN")]
    pub set_hostname_as_fqdn: Option<bool>,
    /// Lines for /etc/hosts.
    pub host_aliases: Vec<HostAlias>,
    /// Conditions that others set and readiness waits for.
    pub readiness_gates: Vec<ReadinessGate>,
    /// Whether Services become environment variables; on unless told.
    pub enable_service_links: Option<bool>,
    /// Which of the runtime's handlers runs the pod.
    pub runtime_class_name: Option<String>,
    /// What the sandbox itself costs.
    pub overhead: BTreeMap<String, Value>,
    /// Resources of the pod as a whole.
    pub resources: Resources,
    /// Importance.
    pub priority: Option<i64>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name, unique in the pod.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// Replaces the image's entry point.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// Replaces the image's working directory.
    pub working_dir: String,
    /// Ports.
    pub ports: Vec<ContainerPort>,
    /// Environment from whole config maps and secrets.
    pub env_from: Vec<EnvFrom>,
    /// Environment.
    pub env: Vec<EnvVar>,
    /// Limits and requests.
    pub resources: Resources,
    /// For init containers `Always` makes it a sidecar.
    pub restart_policy: Option<RestartPolicy>,
    /// Rules that come before the policy.
    pub restart_policy_rules: Vec<RestartRule>,
    /// Volumes it sees.
    pub volume_mounts: Vec<VolumeMount>,
    /// Raw devices it sees.
    pub volume_devices: Vec<Value>,
    /// Restarts the container when it fails.
    pub liveness_probe: Option<Probe>,
    /// Takes the container out of Services when it fails.
    pub readiness_probe: Option<Probe>,
    /// Holds the others back until it succeeds.
    pub startup_probe: Option<Probe>,
    /// Hooks.
    pub lifecycle: Lifecycle,
    /// File with the last words.
    pub termination_message_path: String,
    /// Where else to look for last words.
    pub termination_message_policy: String,
    /// When to fetch the image.
    pub image_pull_policy: PullPolicy,
    /// Security.
    pub security_context: SecurityContext,
    /// Keep stdin open.
    pub stdin: bool,
    /// Close stdin after the first attach.
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// For ephemeral containers: whose processes to see.
    pub target_container_name: String,
}

/// Which of the pod's lists a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerKind {
    /// Runs to its end before the next one.
    Init,
    /// An init container that keeps running.
    Sidecar,
    /// An ordinary one.
    App,
    /// Added later.
    Ephemeral,
}

impl Container {
    /// The path of the file with the last words.
    pub fn message_path(&self) -> &str {
        if self.termination_message_path.is_empty() {
            "/dev/termination-log"
        } else {
            &self.termination_message_path
        }
    }
}

/// Why a pod of the API could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A part of the metadata that every object has is not there.
    #[error("pod has no metadata.{0}")]
    Missing(&'static str),
    /// The spec has another shape.
    #[error("decode the spec of pod {name}: {source}")]
    Spec {
        /// The pod.
        name: PodName,
        /// What does not fit.
        source: serde_json::Error,
    },
}

impl Pod {
    /// Reads a pod from the API's JSON.
    pub fn decode(mut object: Value) -> Result<Self, DecodeError> {
        let spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
        let status = object.get_mut("status").map(Value::take).unwrap_or_default();
        let metadata = &object["metadata"];
        let text = |key: &'static str| metadata[key].as_str().ok_or(DecodeError::Missing(key));
        let time = |key: &str| metadata[key].as_str().and_then(|value| value.parse().ok());
        let name = PodName::new(text("namespace")?, text("name")?);
        let uid = PodUid(text("uid")?.to_owned());
        let spec = serde_json::from_value(without_nulls(spec))
            .map_err(|source| DecodeError::Spec { name: name.clone(), source })?;
        Ok(Self {
            name,
            uid,
            resource_version: metadata["resourceVersion"].as_str().unwrap_or_default().to_owned(),
            generation: metadata["generation"].as_i64(),
            labels: strings(&metadata["labels"]),
            annotations: strings(&metadata["annotations"]),
            created: time("creationTimestamp"),
            deletion: time("deletionTimestamp"),
            deletion_grace: metadata["deletionGracePeriodSeconds"].as_i64(),
            spec,
            status: if status.is_null() { Value::Object(serde_json::Map::new()) } else { status },
        })
    }

    /// Somebody asked for the pod to end.
    pub fn is_terminating(&self) -> bool {
        self.deletion.is_some()
    }

    /// The phase that the API server has.
    pub fn reported_phase(&self) -> &str {
        self.status["phase"].as_str().unwrap_or_default()
    }

    /// How long the pod's containers have from the stop signal to the kill.
    pub fn grace(&self) -> SignedDuration {
        let seconds = self.deletion_grace.or(self.spec.termination_grace_period_seconds).unwrap_or(30);
        SignedDuration::from_secs(seconds.max(1))
    }

    /// Every container with its kind, in the order of starting.
    pub fn containers(&self) -> impl Iterator<Item = (ContainerKind, &Container)> {
        let init = self.spec.init_containers.iter().map(|c| (init_kind(c), c));
        let app = self.spec.containers.iter().map(|c| (ContainerKind::App, c));
        let ephemeral = self.spec.ephemeral_containers.iter().map(|c| (ContainerKind::Ephemeral, c));
        init.chain(app).chain(ephemeral)
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<(ContainerKind, &Container)> {
        self.containers().find(|(_, container)| container.name == name)
    }

    /// The hostname inside the pod (at most 63 characters).
    pub fn hostname(&self) -> String {
        let wanted = if self.spec.hostname.is_empty() { &self.name.name } else { &self.spec.hostname };
        let cut: String = wanted.chars().take(63).collect();
        cut.trim_end_matches(['-', '.']).to_owned()
    }

    /// `NAME_NAMESPACE(UID)`, as messages name a pod.
    pub fn full_name(&self) -> String {
        format!("{}_{}({})", self.name.name, self.name.namespace, self.uid)
    }
}

/// An init container that is always restarted is a sidecar.
pub fn init_kind(container: &Container) -> ContainerKind {
    match container.restart_policy {
        Some(RestartPolicy::Always) => ContainerKind::Sidecar,
        _ => ContainerKind::Init,
    }
}

/// A map of strings out of a JSON object; what is not a string is left out.
pub(crate) fn strings(object: &Value) -> BTreeMap<String, String> {
    let entries = object.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The same value without the members that are null: an explicit null means absent.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// What the API calls int-or-string.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A name.
    Text(String),
}

impl Default for IntOrString {
    fn default() -> Self {
        Self::Int(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn decodes_and_skips_nulls() {
        let pod = Pod::decode(json!({
            "metadata": {"namespace": "d", "name": "p", "uid": "u", "creationTimestamp": null,
                "deletionTimestamp": "2024-01-02T03:04:05Z", "deletionGracePeriodSeconds": 0},
            "spec": {"containers": [{"name": "c", "image": "i", "args": null,
                "livenessProbe": {"httpGet": {"port": "web", "path": "/x"}, "periodSeconds": 3}}],
                "initContainers": [{"name": "s", "restartPolicy": "Always"}], "hostPID": true, "volumes": null},
            "status": null,
        }))
        .unwrap();
        assert!(pod.is_terminating() && pod.spec.host_pid);
        assert_eq!(pod.grace(), SignedDuration::from_secs(1));
        let kinds: Vec<_> = pod.containers().map(|(kind, c)| (kind, c.name.as_str())).collect();
        assert_eq!(kinds, [(ContainerKind::Sidecar, "s"), (ContainerKind::App, "c")]);
    }

    #[test]
    fn a_pod_without_uid_is_refused() {
        let error = Pod::decode(json!({"metadata": {"namespace": "d", "name": "p"}})).unwrap_err();
        assert_eq!(error.to_string(), "pod has no metadata.uid");
    }

    #[test]
    fn hostnames_are_cut() {
        let mut pod = Pod::default();
        pod.name.name = format!("{}-x", "a".repeat(62));
        assert_eq!(pod.hostname(), "a".repeat(62));
    }
}
