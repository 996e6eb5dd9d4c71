//! Makes sandboxes: the pod's settings in the runtime's words. Must not know containers but for what they ask of the node.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::SignedDuration;
use pagurus_agent_core::names::runtime as labels;
use pagurus_agent_core::pods::network::{Dns, pod_dns, read_resolv_conf, visible_hostname};
use pagurus_agent_core::pods::resources::{self, Qos};
use pagurus_agent_core::pods::spec::{Pod, Profile};
use pagurus_cri_api::v1;

use super::operations::{Effect, Job, Limits, Outcome, about};
use crate::actuate::cgroups;

/// What a sandbox waits for is mostly the pod network of a node that has just started.
const SANDBOX_RETRY: Limits = (SignedDuration::from_millis(300), SignedDuration::from_secs(5));

/// Makes and starts a sandbox.
pub(super) async fn create(job: &Job, attempt: u32) -> Outcome {
    let events = &job.host.events;
    if attempt > 0 {
        let message = "Pod sandbox changed, it will be killed and re-created.";
        events.normal(&about(&job.pod), "SandboxChanged", message);
    }
    let handler = match &job.pod.spec.runtime_class_name {
        None => String::new(),
        Some(class) => match job.host.api.runtime_handler(class).await {
            Ok(handler) => handler,
            Err(error) => return refuse(job, &error.to_string()),
        },
    };
    if job.host.cluster_dns.servers.is_empty() {
        // The Service of the cluster's DNS is written into the pod once and for all.
        job.host.links.known().await;
    }
    let logs = job.host.dirs.pod_logs(&job.pod.name, &job.pod.uid);
    if let Err(error) = tokio::fs::create_dir_all(&logs).await {
        return refuse(job, &format!("make directory {}: {error}", logs.display()));
    }
    if job.host.cgroups_per_qos {
        let (pod, promised) = (job.pod.clone(), promised_to_burstable(job));
        match tokio::task::spawn_blocking(move || cgroups::prepare(&pod, promised)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return refuse(job, &error.to_string()),
            Err(panic) => return refuse(job, &panic.to_string()),
        }
    }
    match job.host.runtime.run_sandbox(config(job, attempt), &handler).await {
        Ok(_) => Outcome::Done(Effect::Nothing),
        Err(error) => refuse(job, &error.runtime_message()),
    }
}

fn refuse(job: &Job, error: &str) -> Outcome {
    let message = format!("Failed to create pod sandbox: {error}");
    job.host.events.warning(&about(&job.pod), "FailedCreatePodSandBox", message.clone());
    Outcome::Failed { reason: "CreatePodSandboxError", message, limits: SANDBOX_RETRY }
}

/// The CPU (thousandths) that the burstable pods of this node were promised, this one too.
fn promised_to_burstable(job: &Job) -> i64 {
    let others = job.host.table.all();
    let others = others.iter().map(|view| &*view.pod).filter(|other| other.uid != job.pod.uid);
    let burstable = others.chain([&*job.pod]).filter(|pod| resources::qos(pod) == Qos::Burstable);
    burstable.filter_map(|pod| resources::pod_ask(pod).cpu_request).sum()
}

/// The labels of everything of this pod in the runtime.
pub(super) fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::POD_NAME.to_owned(), pod.name.name.clone()),
        (labels::POD_NAMESPACE.to_owned(), pod.name.namespace.clone()),
        (labels::POD_UID.to_owned(), pod.uid.0.clone()),
    ])
}

/// The node's own DNS configuration; an empty path is none.
fn node_dns(path: &Path) -> Dns {
    if path.as_os_str().is_empty() {
        return Dns::default();
    }
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "pods get nothing of the node's DNS configuration");
        String::new()
    });
    read_resolv_conf(&text)
}

/// The pod in the runtime's words.
pub(super) fn config(job: &Job, attempt: u32) -> v1::PodSandboxConfig {
    let (pod, host) = (&*job.pod, &job.host);
    let spec = &pod.spec;
    let dns = pod_dns(pod, &host.dns(), &node_dns(&host.resolv_conf));
    let mut labels = pod.labels.clone();
    labels.extend(pod_labels(pod));
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: pod.name.name.clone(),
            uid: pod.uid.0.clone(),
            namespace: pod.name.namespace.clone(),
            attempt,
        }),
        hostname: if spec.host_network {
            String::new()
        } else {
            visible_hostname(pod, &host.cluster_dns.domain)
        },
        log_directory: host.dirs.pod_logs(&pod.name, &pod.uid).to_string_lossy().into_owned(),
        dns_config: Some(v1::DnsConfig {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
        port_mappings: port_mappings(pod),
        labels,
        annotations: pod.annotations.clone(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: if host.cgroups_per_qos { cgroups::path(pod) } else { String::new() },
            security_context: Some(security(pod)),
            sysctls: spec
                .security_context
                .sysctls
                .iter()
                .map(|s| (s.name.clone(), s.value.clone()))
                .collect(),
            ..Default::default()
        }),
    }
}

fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    if pod.spec.host_network {
        return Vec::new();
    }
    let ports =
        pod.containers().flat_map(|(_, container)| &container.ports).filter(|port| port.host_port > 0);
    ports
        .map(|port| v1::PortMapping {
            protocol: match port.protocol.as_str() {
                "UDP" => v1::Protocol::Udp,
                "SCTP" => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port,
            host_ip: port.host_ip.clone(),
        })
        .collect()
}

/// Which namespaces the pod has to itself.
pub(super) fn namespaces(pod: &Pod) -> v1::NamespaceOption {
    let spec = &pod.spec;
    let or_node = |node: bool| if node { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (true, _) => v1::NamespaceMode::Node,
        (false, Some(true)) => v1::NamespaceMode::Pod,
        (false, _) => v1::NamespaceMode::Container,
    };
    v1::NamespaceOption {
        network: or_node(spec.host_network) as i32,
        pid: pid as i32,
        ipc: or_node(spec.host_ipc) as i32,
        ..Default::default()
    }
}

fn security(pod: &Pod) -> v1::LinuxSandboxSecurityContext {
    let wanted = &pod.spec.security_context;
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: wanted.run_as_user.map(|value| v1::Int64Value { value }),
        run_as_group: wanted.run_as_group.map(|value| v1::Int64Value { value }),
        supplemental_groups: groups(pod),
        privileged: pod.containers().any(|(_, container)| container.security_context.privileged),
        // The sandbox runs nothing of the user's: the runtime's own filter will do unless another is wanted.
        seccomp: Some(profile(wanted.seccomp_profile.as_ref()).unwrap_or(v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::RuntimeDefault as i32,
            localhost_ref: String::new(),
        })),
        selinux_options: wanted.se_linux_options.as_ref().map(selinux),
        ..Default::default()
    }
}

/// The groups of all processes of the pod, besides their own.
pub(super) fn groups(pod: &Pod) -> Vec<i64> {
    let wanted = &pod.spec.security_context;
    let mut groups = wanted.supplemental_groups.clone();
    groups.extend(wanted.fs_group);
    groups
}

/// A profile of seccomp or AppArmor in the runtime's words.
pub(super) fn profile(wanted: Option<&Profile>) -> Option<v1::SecurityProfile> {
    use v1::security_profile::ProfileType;
    let wanted = wanted?;
    let kind = match wanted.kind.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    Some(v1::SecurityProfile { profile_type: kind as i32, localhost_ref: wanted.localhost_profile.clone() })
}

/// A SELinux label in the runtime's words.
pub(super) fn selinux(wanted: &pagurus_agent_core::pods::spec::SeLinux) -> v1::SeLinuxOption {
    v1::SeLinuxOption {
        user: wanted.user.clone(),
        role: wanted.role.clone(),
        r#type: wanted.kind.clone(),
        level: wanted.level.clone(),
    }
}
