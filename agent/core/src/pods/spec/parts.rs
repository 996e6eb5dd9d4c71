//! The parts of a container and of a pod's settings, named as in the API. Must hold no decisions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::IntOrString;

/// What happens to a container that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum RestartPolicy {
    /// It is started again.
    #[default]
    Always,
    /// It is started again unless it succeeded.
    OnFailure,
    /// It is not started again.
    Never,
}

/// When to fetch an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// Before each start.
    Always,
    /// When the runtime does not have it.
    #[default]
    IfNotPresent,
    /// Not at all.
    Never,
}

/// Whose resolv.conf a pod gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum DnsPolicy {
    /// The cluster's, unless the pod uses the node's network.
    #[default]
    ClusterFirst,
    /// The cluster's.
    ClusterFirstWithHostNet,
    /// The node's.
    Default,
    /// Only what `dnsConfig` says.
    None,
}

/// Additions to resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsConfig {
    /// Addresses of servers.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<DnsOption>,
}

/// An option of the resolver.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DnsOption {
    /// Such as `ndots`.
    pub name: String,
    /// Such as `5`.
    pub value: Option<String>,
}

/// A line for /etc/hosts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HostAlias {
    /// Address.
    pub ip: String,
    /// Its names.
    pub hostnames: Vec<String>,
}

/// A condition that others set and readiness waits for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessGate {
    /// Type of the condition.
    pub condition_type: String,
}

/// The name of something in the pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LocalReference {
    /// Its name.
    pub name: String,
}

/// A port of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name, for probes and Services.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The port.
    pub container_port: i32,
    /// Port of the node.
    #[serde(skip_serializing_if = "is_zero")]
    pub host_port: i32,
    /// Address of the node.
    #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &i32) -> bool {
    *value == 0
}

/// Environment from a whole config map or secret.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvFrom {
    /// Put before each name.
    pub prefix: String,
    /// A config map.
    pub config_map_ref: Option<OptionalReference>,
    /// A secret.
    pub secret_ref: Option<OptionalReference>,
}

/// The name of something that need not be there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct OptionalReference {
    /// Its name.
    pub name: String,
    /// It need not be there.
    pub optional: bool,
}

/// A variable of the environment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value, with `$(OTHER)` inside.
    pub value: String,
    /// Where the value comes from instead.
    pub value_from: Option<EnvSource>,
}

/// Where a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvSource {
    /// A field of the pod.
    pub field_ref: Option<FieldReference>,
    /// Limits and requests.
    pub resource_field_ref: Option<ResourceReference>,
    /// A key of a config map.
    pub config_map_key_ref: Option<KeyReference>,
    /// A key of a secret.
    pub secret_key_ref: Option<KeyReference>,
    /// A line of a file; this node cannot read it.
    pub file_key_ref: Option<serde_json::Value>,
}

/// A field of the pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldReference {
    /// Such as `metadata.name` or `metadata.labels['app']`.
    pub field_path: String,
}

/// A limit or request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceReference {
    /// Which container; the same one without it.
    pub container_name: String,
    /// Such as `limits.cpu`.
    pub resource: String,
    /// Unit; the value is rounded up to it.
    pub divisor: Option<serde_json::Value>,
}

/// A key of a config map or secret.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct KeyReference {
    /// Name of the object.
    pub name: String,
    /// The key.
    pub key: String,
    /// It need not be there.
    pub optional: bool,
}

/// Limits and requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// The most it may use.
    pub limits: BTreeMap<String, serde_json::Value>,
    /// What it is promised.
    pub requests: BTreeMap<String, serde_json::Value>,
}

/// Restart by exit code.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartRule {
    /// `Restart`.
    pub action: String,
    /// Which exit codes.
    pub exit_codes: Option<ExitCodes>,
}

/// A set of exit codes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExitCodes {
    /// `In` or `NotIn`.
    pub operator: String,
    /// The codes.
    pub values: Vec<i32>,
}

/// A volume's place in a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMount {
    /// The volume.
    pub name: String,
    /// Where the container sees it.
    pub mount_path: String,
    /// A path inside the volume.
    pub sub_path: String,
    /// The same with `$(VAR)` inside.
    pub sub_path_expr: String,
    /// The container may only read.
    pub read_only: bool,
    /// Whether later mounts get through.
    pub mount_propagation: Option<String>,
    /// Disabled, IfPossible or Enabled.
    pub recursive_read_only: Option<String>,
}

/// Hooks of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lifecycle {
    /// Right after the start.
    pub post_start: Option<Handler>,
    /// Right before the stop signal.
    pub pre_stop: Option<Handler>,
    /// Instead of SIGTERM.
    pub stop_signal: Option<String>,
}

/// Something that a probe or a hook does.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Handler {
    /// Runs a command in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecAction>,
    /// Asks for a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGetAction>,
    /// Opens a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpAction>,
    /// Asks the gRPC health service. Probes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcAction>,
    /// Waits. Hooks only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sleep: Option<SleepAction>,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct ExecAction {
    /// The command and its arguments; no shell.
    pub command: Vec<String>,
}

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpGetAction {
    /// The path.
    pub path: String,
    /// Number or name of the port.
    pub port: IntOrString,
    /// The pod's address without it.
    pub host: String,
    /// HTTP or HTTPS.
    pub scheme: String,
    /// Headers to send.
    pub http_headers: Vec<HttpHeader>,
}

/// A header.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct HttpHeader {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TcpAction {
    /// Number or name of the port.
    pub port: IntOrString,
    /// The pod's address without it.
    pub host: String,
}

/// The gRPC health service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct GrpcAction {
    /// The port.
    pub port: i32,
    /// Name of the service asked for.
    pub service: String,
}

/// A wait.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct SleepAction {
    /// How long.
    pub seconds: i64,
}

/// A probe.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// What is done.
    #[serde(flatten)]
    pub handler: Handler,
    /// Seconds from the start to the first probe.
    pub initial_delay_seconds: i32,
    /// Seconds for an answer.
    pub timeout_seconds: i32,
    /// Seconds between probes.
    pub period_seconds: i32,
    /// Successes in a row that make a success.
    pub success_threshold: i32,
    /// Failures in a row that make a failure.
    pub failure_threshold: i32,
    /// Seconds of grace when this probe ends the container.
    pub termination_grace_period_seconds: Option<i64>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            handler: Handler::default(),
            initial_delay_seconds: 0,
            timeout_seconds: 1,
            period_seconds: 10,
            success_threshold: 1,
            failure_threshold: 3,
            termination_grace_period_seconds: None,
        }
    }
}

/// Security of all containers of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSecurityContext {
    /// User.
    pub run_as_user: Option<i64>,
    /// Group.
    pub run_as_group: Option<i64>,
    /// Refuse to run as root.
    pub run_as_non_root: Option<bool>,
    /// More groups.
    pub supplemental_groups: Vec<i64>,
    /// `Merge` or `Strict`.
    pub supplemental_groups_policy: Option<String>,
    /// Group of volumes.
    pub fs_group: Option<i64>,
    /// `Always` or `OnRootMismatch`.
    pub fs_group_change_policy: Option<String>,
    /// Kernel settings.
    pub sysctls: Vec<Sysctl>,
    /// Filter for system calls.
    pub seccomp_profile: Option<Profile>,
    /// AppArmor.
    pub app_armor_profile: Option<Profile>,
    /// SELinux.
    pub se_linux_options: Option<SeLinux>,
}

/// A kernel setting.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Sysctl {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A profile of seccomp or AppArmor.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    /// RuntimeDefault, Unconfined or Localhost.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name or path of a local profile.
    pub localhost_profile: String,
}

/// SELinux label.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SeLinux {
    /// User.
    pub user: String,
    /// Role.
    pub role: String,
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Level.
    pub level: String,
}

/// Security of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityContext {
    /// Capabilities.
    pub capabilities: Capabilities,
    /// All the powers of the node's root.
    pub privileged: bool,
    /// User.
    pub run_as_user: Option<i64>,
    /// Group.
    pub run_as_group: Option<i64>,
    /// Refuse to run as root.
    pub run_as_non_root: Option<bool>,
    /// The root file system may only be read.
    pub read_only_root_filesystem: bool,
    /// A process may gain powers; yes unless told.
    pub allow_privilege_escalation: Option<bool>,
    /// `Default` or `Unmasked`.
    pub proc_mount: Option<String>,
    /// Filter for system calls.
    pub seccomp_profile: Option<Profile>,
    /// AppArmor.
    pub app_armor_profile: Option<Profile>,
    /// SELinux.
    pub se_linux_options: Option<SeLinux>,
}

/// Capabilities.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// More than the runtime gives.
    pub add: Vec<String>,
    /// Fewer than the runtime gives.
    pub drop: Vec<String>,
}
