//! Keeps the logs of containers from filling the disk: a file that has grown too big is moved aside, the runtime opens a
//! new one, and of the old ones only the youngest stay. Must not know what is logged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pagurus_cri_api::Runtime;
use tokio_util::sync::CancellationToken;

use crate::observe::pods::PodTable;

/// How often sizes are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// When to rotate, and how much to keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file of this many bytes is moved aside.
    pub size: u64,
    /// Files kept per container, the current one among them.
    pub files: u32,
}

/// Rotates the logs of the containers that run, until cancelled.
pub async fn run(
    table: PodTable,
    runtime: Arc<dyn Runtime>,
    limits: Limits,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(PERIOD) => {}
        }
        for view in table.all() {
            for found in view.observed.containers.iter().filter(|found| found.is_running()) {
                let path = Path::new(&found.log_path);
                if let Err(error) = rotate(&*runtime, &found.id, path, limits).await {
                    tracing::warn!(pod = %view.pod.name, container = found.name, "rotate the log: {error:#}");
                }
            }
        }
    }
}

/// Rotates this log if it has grown too big.
async fn rotate(runtime: &dyn Runtime, id: &str, path: &Path, limits: Limits) -> anyhow::Result<()> {
    use anyhow::Context as _;
    match tokio::fs::metadata(path).await {
        Ok(metadata) if metadata.len() >= limits.size => {}
        _ => return Ok(()),
    }
    let aside = PathBuf::from(format!("{}.{}", path.display(), Timestamp::now().strftime("%Y%m%d-%H%M%S")));
    tokio::fs::rename(path, &aside).await.with_context(|| format!("move {} aside", path.display()))?;
    if let Err(error) = runtime.reopen_container_log(id).await {
        // The runtime still writes to what was moved: put it back, so that nobody misses it.
        tokio::fs::rename(&aside, path).await.with_context(|| format!("move {} back", aside.display()))?;
        return Err(error.into());
    }
    for old in surplus(siblings(path).await?, limits.files) {
        tokio::fs::remove_file(&old).await.with_context(|| format!("remove {}", old.display()))?;
    }
    Ok(())
}

/// The files that were moved aside from this one.
async fn siblings(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let head = format!("{}.", name.to_string_lossy());
    let mut entries = tokio::fs::read_dir(directory).await?;
    let mut out = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_name().to_string_lossy().starts_with(&head) {
            out.push(entry.path());
        }
    }
    Ok(out)
}

/// Those of the old files that are too many, the oldest ones. Their names sort by age.
fn surplus(mut old: Vec<PathBuf>, files: u32) -> Vec<PathBuf> {
    old.sort();
    let kept = usize::try_from(files.saturating_sub(1)).unwrap_or(usize::MAX);
    old.truncate(old.len().saturating_sub(kept));
    old
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use pagurus_cri_api::fake::FakeRuntime;
    use pagurus_cri_api::v1;

    #[test]
    fn the_oldest_go() {
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(surplus(files(&["c", "a", "b"]), 3), files(&["a"]));
        assert_eq!(surplus(files(&["c", "a", "b"]), 5), files(&[]));
        assert_eq!(surplus(files(&["c", "a"]), 0), files(&["a", "c"]));
    }

    #[tokio::test]
    async fn big_logs_are_moved_aside() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("0.log");
        let runtime = FakeRuntime::default();
        let sandbox = runtime.run_sandbox(v1::PodSandboxConfig::default(), "").await.unwrap();
        let config = v1::ContainerConfig::default();
        let id = runtime.create_container(&sandbox, config, v1::PodSandboxConfig::default()).await.unwrap();
        let limits = Limits { size: 10, files: 2 };
        std::fs::write(&path, "123456789").unwrap();
        rotate(&runtime, &id, &path, limits).await.unwrap();
        assert!(siblings(&path).await.unwrap().is_empty());
        std::fs::write(scratch.path().join("0.log.20200101-000000"), "old").unwrap();
        std::fs::write(&path, "1234567890").unwrap();
        rotate(&runtime, &id, &path, limits).await.unwrap();
        let kept = siblings(&path).await.unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(std::fs::read_to_string(&kept[0]).unwrap(), "1234567890");
        // A runtime that does not open a new file keeps the old one.
        std::fs::write(&path, "1234567890").unwrap();
        rotate(&runtime, "none", &path, limits).await.unwrap_err();
        assert!(path.exists());
    }
}
