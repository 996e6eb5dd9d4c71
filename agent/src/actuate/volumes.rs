//! Makes, refreshes and takes away what a pod has on the node's disk: its directories and volumes, laid out as the
//! kubelet does. Everything may be called again at any time and converges from what is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pagurus_agent_core::names::{PodName, PodUid};
use pagurus_agent_core::pods::env::Surroundings;
use pagurus_agent_core::pods::spec::{Pod, Volume, VolumeSource};
use pagurus_agent_core::volumes::payload::{PayloadError, Tokens, payload};

mod atomic;
mod group;
mod host_path;
mod mounts;
mod removal;
mod sub_path;

pub use host_path::check as check_host_path;
pub use sub_path::bind as bind_sub_path;

/// Where pods have their directories.
#[derive(Clone, Debug)]
pub struct PodDirs {
    /// The agent's own directory.
    pub root: PathBuf,
    /// Where logs go.
    pub logs: PathBuf,
}

/// Why a volume could not be made or taken away.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The file system refused.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
    /// The content is not there.
    #[error(transparent)]
    Content(#[from] PayloadError),
    /// What is at a hostPath is not what was wanted.
    #[error("hostPath type check failed: {} is not {wanted}", path.display())]
    HostPath {
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// A kind of volume that this node cannot make.
    #[error("volumes of kind {0} are not supported by this node")]
    Unsupported(String),
    /// A path inside a volume leads out of it.
    #[error("subPath {0:?} leads out of its volume")]
    SubPath(String),
    /// Something is still mounted below a directory that was to be removed.
    #[error("{} is still mounted", .0.display())]
    StillMounted(PathBuf),
}

impl VolumeError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}

impl PodDirs {
    /// Everything of a pod but its logs.
    pub fn pod(&self, uid: &PodUid) -> PathBuf {
        self.root.join("pods").join(uid.as_str())
    }

    /// The pod's /etc/hosts.
    pub fn etc_hosts(&self, uid: &PodUid) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    /// Where a container has its own files.
    pub fn container(&self, uid: &PodUid, container: &str) -> PathBuf {
        self.pod(uid).join("containers").join(container)
    }

    /// Logs of a pod.
    pub fn pod_logs(&self, name: &PodName, uid: &PodUid) -> PathBuf {
        self.logs.join(format!("{}_{}_{uid}", name.namespace, name.name))
    }

    /// Where a volume of the pod is; a hostPath is where it is.
    pub fn volume(&self, uid: &PodUid, volume: &Volume) -> Result<PathBuf, VolumeError> {
        let kind = match &volume.source {
            VolumeSource::HostPath(source) => return Ok(PathBuf::from(&source.path)),
            VolumeSource::EmptyDir(_) => "empty-dir",
            VolumeSource::ConfigMap(_) => "configmap",
            VolumeSource::Secret(_) => "secret",
            VolumeSource::DownwardApi(_) => "downward-api",
            VolumeSource::Projected(_) => "projected",
            VolumeSource::Unsupported(kind) => return Err(VolumeError::Unsupported(kind.clone())),
        };
        Ok(self.pod(uid).join("volumes").join(format!("kubernetes.io~{kind}")).join(&volume.name))
    }

    /// Where a path inside a volume is bound for a container.
    pub fn sub_path(&self, uid: &PodUid, volume: &str, container: &str, place: usize) -> PathBuf {
        self.pod(uid).join("volume-subpaths").join(volume).join(container).join(place.to_string())
    }

    /// The pods that have directories here.
    pub fn pods(&self) -> Result<Vec<PodUid>, VolumeError> {
        let all = self.root.join("pods");
        let entries = match std::fs::read_dir(&all) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(VolumeError::io("list", &all)(error)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.map(PodUid).collect())
    }
}

/// Makes the pod's directories and volumes, and brings their content up to date. Blocks.
pub fn prepare(
    dirs: &PodDirs,
    pod: &Pod,
    around: &Surroundings,
    tokens: &Tokens,
) -> Result<(), BTreeMap<String, VolumeError>> {
    let mut failed = BTreeMap::new();
    let directories =
        [dirs.pod(&pod.uid), dirs.pod(&pod.uid).join("containers"), dirs.pod_logs(&pod.name, &pod.uid)];
    for directory in directories {
        if let Err(error) = make_directory(&directory, 0o755) {
            failed.insert(String::new(), error);
        }
    }
    for volume in &pod.spec.volumes {
        if let Err(error) = prepare_volume(dirs, pod, volume, around, tokens) {
            failed.insert(volume.name.clone(), error);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed) }
}

fn prepare_volume(
    dirs: &PodDirs,
    pod: &Pod,
    volume: &Volume,
    around: &Surroundings,
    tokens: &Tokens,
) -> Result<(), VolumeError> {
    let path = dirs.volume(&pod.uid, volume)?;
    let group = pod.spec.security_context.fs_group;
    match &volume.source {
        VolumeSource::HostPath(source) => host_path::check(source),
        VolumeSource::EmptyDir(source) => {
            make_directory(&path, 0o777)?;
            match source.medium.as_str() {
                "" => {}
                "Memory" => {
                    let size = source.size_limit.as_ref().and_then(mounts::bytes).filter(|size| *size > 0);
                    mounts::tmpfs(&path, size, 0o1777)?;
                }
                other => return Err(VolumeError::Unsupported(format!("emptyDir of medium {other}"))),
            }
            group.map_or(Ok(()), |group| group::give_directory(&path, group))
        }
        source => {
            let files = payload(pod, source, around, tokens)?.unwrap_or_default();
            make_directory(&path, 0o777)?;
            if !matches!(source, VolumeSource::ConfigMap(_)) {
                mounts::tmpfs(&path, None, 0o1777)?;
            }
            atomic::write(&path, &files, group)?;
            group.map_or(Ok(()), |group| group::give_directory(&path, group))
        }
    }
}

/// Takes the volumes away, keeping the other files of the pod. Blocks.
pub fn tear_down(dirs: &PodDirs, uid: &PodUid) -> Result<(), VolumeError> {
    let pod = dirs.pod(uid);
    mounts::unmount_below(&pod)?;
    removal::remove(&pod.join("volume-subpaths"))?;
    removal::remove(&pod.join("volumes"))
}

/// Removes everything of a pod that may be left on disk, its logs too. Blocks.
pub fn clean_up(dirs: &PodDirs, uid: &PodUid) -> Result<(), VolumeError> {
    if uid.as_str().is_empty() || uid.as_str().contains('/') || uid.as_str().starts_with('.') {
        return Ok(());
    }
    tear_down(dirs, uid)?;
    removal::remove(&dirs.pod(uid))?;
    let ending = format!("_{uid}");
    let entries = std::fs::read_dir(&dirs.logs).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(&ending)) {
        removal::remove(&entry.path())?;
    }
    Ok(())
}

/// Makes a directory and those above it. The permissions hold for the last one, and only if it is new.
fn make_directory(path: &Path, mode: u32) -> Result<(), VolumeError> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(VolumeError::io("make directory", path))?;
    // The umask may have taken bits away.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(VolumeError::io("chmod", path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
