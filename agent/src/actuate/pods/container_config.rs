//! A container in the runtime's words: its image, arguments, environment, mounts, limits and powers.
//! Must not start anything; the files that it mounts it makes.

use std::path::{Path, PathBuf};

use pagurus_agent_core::names::runtime as labels;
use pagurus_agent_core::pods::env::{EnvError, Surroundings, environment, expand};
use pagurus_agent_core::pods::network::hosts_file;
use pagurus_agent_core::pods::resources::kernel_limits;
use pagurus_agent_core::pods::restart::Attempt;
use pagurus_agent_core::pods::spec::{Pod, VolumeMount, VolumeSource};
use pagurus_agent_core::pods::{Container, ContainerKind};
use pagurus_cri_api::v1;

use super::operations::Job;
use super::sandbox;
use crate::actuate::volumes::{PodDirs, VolumeError, bind_sub_path};

/// Paths in /proc that containers must not see or change unless `procMount` says so; runtimes apply these when told.
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
];
const MASKED_SYS: [&str; 2] = ["/sys/firmware", "/sys/devices/virtual/powercap"];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Why a container cannot be described.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    /// Its environment refers to something that is not there.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// A volume cannot be used.
    #[error("failed to prepare subPath for volumeMount \"{mount}\" of container \"{container}\": {source}")]
    SubPath { mount: String, container: String, source: Box<VolumeError> },
    /// A volume cannot be used.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// It mounts a volume that the pod does not have.
    #[error("volume mount refers to volume \"{0}\", which the pod does not have")]
    NoVolume(String),
    /// A part of a path has no value.
    #[error("subPathExpr \"{0}\" refers to a variable without value")]
    Expression(String),
    /// It must not run as root, and would.
    #[error("container has runAsNonRoot and image will run as root")]
    Root,
    /// It must not run as root, and nobody knows whether it would.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({0}), cannot verify user is non-root"
    )]
    UnknownUser(String),
    /// Raw devices cannot be given.
    #[error("volumeDevices are not supported by this node")]
    Devices,
    /// A file cannot be written.
    #[error("write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// What is needed to describe a container.
pub(super) struct Blueprint<'a> {
    pub job: &'a Job,
    pub kind: ContainerKind,
    pub container: &'a Container,
    pub attempt: Attempt,
    pub around: &'a Surroundings,
    pub image: &'a v1::Image,
}

impl Blueprint<'_> {
    fn pod(&self) -> &Pod {
        &self.job.pod
    }

    fn dirs(&self) -> &PodDirs {
        &self.job.host.dirs
    }

    /// The container in the runtime's words. Blocks: makes the files it mounts.
    pub(super) fn config(&self) -> Result<v1::ContainerConfig, ConfigError> {
        let (pod, container) = (self.pod(), self.container);
        if !container.volume_devices.is_empty() {
            return Err(ConfigError::Devices);
        }
        let environment = environment(pod, container, self.around)?;
        let lookup =
            |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let expanded = |words: &[String]| words.iter().map(|word| expand(word, lookup)).collect::<Vec<_>>();
        let mut labels = sandbox::pod_labels(pod);
        labels.insert(labels::CONTAINER_NAME.into(), container.name.clone());
        Ok(v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata {
                name: container.name.clone(),
                attempt: self.attempt.number,
            }),
            image: Some(v1::ImageSpec {
                image: container.image.clone(),
                user_specified_image: container.image.clone(),
                ..Default::default()
            }),
            command: expanded(&container.command),
            args: expanded(&container.args),
            working_dir: container.working_dir.clone(),
            mounts: self.mounts(&lookup)?,
            envs: environment
                .iter()
                .map(|(k, v)| v1::KeyValue { key: k.clone(), value: v.clone() })
                .collect(),
            labels,
            annotations: self.annotations(),
            log_path: format!("{}/{}.log", container.name, self.attempt.number),
            stdin: container.stdin,
            stdin_once: container.stdin_once,
            tty: container.tty,
            linux: Some(v1::LinuxContainerConfig {
                resources: Some(self.resources()),
                security_context: Some(self.security()?),
            }),
            ..Default::default()
        })
    }

    fn annotations(&self) -> std::collections::BTreeMap<String, String> {
        let container = self.container;
        let mut out = std::collections::BTreeMap::from([
            (labels::RESTART_COUNT.to_owned(), self.attempt.number.to_string()),
            (labels::BACKOFF_STEP.to_owned(), self.attempt.step.to_string()),
            (labels::WANTED_IMAGE.to_owned(), container.image.clone()),
            (labels::TERMINATION_MESSAGE_PATH.to_owned(), container.message_path().to_owned()),
            (labels::TERMINATION_MESSAGE_POLICY.to_owned(), container.termination_message_policy.clone()),
        ]);
        if let Some(grace) = self.pod().spec.termination_grace_period_seconds {
            out.insert(labels::GRACE_PERIOD.into(), grace.to_string());
        }
        let json = [
            (
                labels::PRE_STOP,
                container.lifecycle.pre_stop.as_ref().and_then(|hook| serde_json::to_string(hook).ok()),
            ),
            (
                labels::PORTS,
                (!container.ports.is_empty()).then(|| serde_json::to_string(&container.ports).ok()).flatten(),
            ),
        ];
        out.extend(json.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        out
    }

    fn resources(&self) -> v1::LinuxContainerResources {
        let limits = kernel_limits(self.pod(), self.container, self.job.host.memory);
        v1::LinuxContainerResources {
            cpu_period: limits.cpu_period,
            cpu_quota: limits.cpu_quota,
            cpu_shares: limits.cpu_shares,
            memory_limit_in_bytes: limits.memory_limit,
            oom_score_adj: limits.oom_score_adj,
            ..Default::default()
        }
    }

    fn security(&self) -> Result<v1::LinuxContainerSecurityContext, ConfigError> {
        let (own, all) = (&self.container.security_context, &self.pod().spec.security_context);
        let user = own.run_as_user.or(all.run_as_user);
        if own.run_as_non_root.or(all.run_as_non_root) == Some(true) {
            self.check_not_root(user)?;
        }
        let unmasked = own.privileged || own.proc_mount.as_deref() == Some("Unmasked");
        let paths = |paths: &[&str]| -> Vec<String> {
            if unmasked { Vec::new() } else { paths.iter().map(|path| (*path).to_owned()).collect() }
        };
        let mut namespaces = sandbox::namespaces(self.pod());
        if self.kind == ContainerKind::Ephemeral && !self.container.target_container_name.is_empty() {
            let target = self.job.observed.latest(&self.container.target_container_name);
            if let Some(target) = target.filter(|found| found.is_running()) {
                namespaces.pid = v1::NamespaceMode::Target as i32;
                namespaces.target_id = target.id.clone();
            }
        }
        let no_new_privs = own.allow_privilege_escalation == Some(false);
        Ok(v1::LinuxContainerSecurityContext {
            capabilities: Some(v1::Capability {
                add_capabilities: own.capabilities.add.clone(),
                drop_capabilities: own.capabilities.drop.clone(),
                add_ambient_capabilities: Vec::new(),
            }),
            privileged: own.privileged,
            namespace_options: Some(namespaces),
            run_as_user: user.map(|value| v1::Int64Value { value }),
            run_as_group: own.run_as_group.or(all.run_as_group).map(|value| v1::Int64Value { value }),
            readonly_rootfs: own.read_only_root_filesystem,
            supplemental_groups: sandbox::groups(self.pod()),
            no_new_privs,
            masked_paths: [paths(&MASKED), paths(&MASKED_SYS)].concat(),
            readonly_paths: paths(&READ_ONLY),
            // A privileged container has no filter; others have one only when asked for.
            seccomp: if own.privileged {
                None
            } else {
                sandbox::profile(own.seccomp_profile.as_ref().or(all.seccomp_profile.as_ref()))
            }
            .or(Some(v1::SecurityProfile {
                profile_type: v1::security_profile::ProfileType::Unconfined as i32,
                localhost_ref: String::new(),
            })),
            apparmor: sandbox::profile(own.app_armor_profile.as_ref().or(all.app_armor_profile.as_ref())),
            selinux_options: own
                .se_linux_options
                .as_ref()
                .or(all.se_linux_options.as_ref())
                .map(sandbox::selinux),
            ..Default::default()
        })
    }

    fn check_not_root(&self, user: Option<i64>) -> Result<(), ConfigError> {
        let image_user = self.image.uid.as_ref().map(|uid| uid.value);
        match (user, image_user, self.image.username.as_str()) {
            (Some(0), ..) | (None, Some(0), _) | (None, None, "" | "root") => Err(ConfigError::Root),
            (Some(_), ..) | (None, Some(_), _) => Ok(()),
            (None, None, name) => Err(ConfigError::UnknownUser(name.to_owned())),
        }
    }

    // ---- mounts

    fn mounts(&self, lookup: &impl Fn(&str) -> Option<String>) -> Result<Vec<v1::Mount>, ConfigError> {
        let mut out = Vec::new();
        let wanted = self.container.volume_mounts.iter().enumerate();
        for (place, mount) in wanted {
            out.push(self.volume_mount(place, mount, lookup)?);
        }
        if !self.container.volume_mounts.iter().any(|mount| mount.mount_path == "/etc/hosts") {
            out.extend(self.hosts()?);
        }
        out.push(self.last_words()?);
        Ok(out)
    }

    fn volume_mount(
        &self,
        place: usize,
        mount: &VolumeMount,
        lookup: &impl Fn(&str) -> Option<String>,
    ) -> Result<v1::Mount, ConfigError> {
        let pod = self.pod();
        let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| ConfigError::NoVolume(mount.name.clone()))?;
        let mut host_path = self.dirs().volume(&pod.uid, volume)?;
        let sub_path = self.sub_path(mount, lookup)?;
        if !sub_path.is_empty() {
            let target = self.dirs().sub_path(&pod.uid, &mount.name, &self.container.name, place);
            bind_sub_path(&host_path, &sub_path, &target).map_err(|source| ConfigError::SubPath {
                mount: mount.name.clone(),
                container: self.container.name.clone(),
                source: Box::new(source),
            })?;
            host_path = target;
        }
        if let VolumeSource::HostPath(source) = &volume.source
            && source.kind.is_empty()
            && !host_path.exists()
        {
            // As other runtimes' users expect: a path that is not there becomes a directory.
            std::fs::create_dir_all(&host_path)
                .map_err(|source| ConfigError::Write { path: host_path.clone(), source })?;
        }
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
            _ => v1::MountPropagation::PropagationPrivate,
        };
        let from_api = !matches!(volume.source, VolumeSource::EmptyDir(_) | VolumeSource::HostPath(_));
        Ok(v1::Mount {
            container_path: absolute(&mount.mount_path),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: mount.read_only || from_api,
            propagation: propagation as i32,
            ..Default::default()
        })
    }

    fn sub_path(
        &self,
        mount: &VolumeMount,
        lookup: &impl Fn(&str) -> Option<String>,
    ) -> Result<String, ConfigError> {
        if mount.sub_path_expr.is_empty() {
            return Ok(mount.sub_path.clone());
        }
        let missing = std::cell::Cell::new(false);
        let path = expand(&mount.sub_path_expr, |name| {
            let value = lookup(name);
            missing.set(missing.get() | value.is_none());
            value
        });
        if missing.get() { Err(ConfigError::Expression(mount.sub_path_expr.clone())) } else { Ok(path) }
    }

    /// The pod's /etc/hosts, written when its first container needs it and kept up to date by the later ones.
    fn hosts(&self) -> Result<Option<v1::Mount>, ConfigError> {
        let pod = self.pod();
        if self.around.pod_ips.is_empty() {
            return Ok(None);
        }
        let node_hosts = if pod.spec.host_network {
            std::fs::read_to_string("/etc/hosts").unwrap_or_default()
        } else {
            String::new()
        };
        let api_server = self.job.host.links.api_server();
        let text =
            hosts_file(pod, &self.around.pod_ips, &self.job.host.dns(), api_server.as_deref(), &node_hosts);
        let path = self.dirs().etc_hosts(&pod.uid);
        write_if_other(&path, text.as_bytes(), 0o644)?;
        Ok(Some(v1::Mount {
            container_path: "/etc/hosts".into(),
            host_path: path.to_string_lossy().into_owned(),
            readonly: self.container.security_context.read_only_root_filesystem,
            ..Default::default()
        }))
    }

    /// The file for the last words, one for each life of the container.
    fn last_words(&self) -> Result<v1::Mount, ConfigError> {
        let directory = self.dirs().container(&self.pod().uid, &self.container.name);
        let path = directory.join(self.attempt.number.to_string());
        std::fs::create_dir_all(&directory)
            .map_err(|source| ConfigError::Write { path: directory, source })?;
        // Anybody in the container may write it.
        write_if_other(&path, b"", 0o666)?;
        Ok(v1::Mount {
            container_path: self.container.message_path().to_owned(),
            host_path: path.to_string_lossy().into_owned(),
            ..Default::default()
        })
    }
}

/// Mount paths without a leading slash are taken from the root.
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Writes in place, because containers hold the file itself.
fn write_if_other(path: &Path, data: &[u8], mode: u32) -> Result<(), ConfigError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| ConfigError::Write { path: path.to_owned(), source };
    if std::fs::read(path).is_ok_and(|found| found == data) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, data).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)
}
