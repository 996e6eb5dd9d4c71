//! The names of the cluster on disk: read when the agent starts, written again a few seconds after they have changed.
//!
//! Must not know: what is in the file (`agent-core`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hickory_proto::rr::Name;
use pagurus_agent_core::dns::{Index, saved};
use tokio_util::sync::CancellationToken;

use super::table::Table;
use crate::process::file;

/// The most bytes that are kept: the file lies in memory. A Service with an address takes about a hundred, one without (headless) those of
/// its endpoints besides, about fifty for each: half a million Services.
const MOST: usize = 64 << 20;
/// What is in the file.
const WHAT: &str = "the names of the cluster";
/// The least time between two writes.
const PAUSE: Duration = Duration::from_secs(5);

/// What an earlier agent knew; none if it left nothing, or nothing that can be read.
pub(super) fn load(path: &Path, domain: &Name) -> Option<Index> {
    let index = file::recall(WHAT, path, |bytes| saved::restore(domain, bytes))?;
    tracing::info!(services = index.used().services, "names are answered as last known");
    Some(index)
}

/// Keeps the file as the table is, until cancelled. A disk that does not take it disturbs nothing else.
pub(super) async fn run(table: Table, path: PathBuf, cancel: CancellationToken) -> anyhow::Result<()> {
    let generations = table.generations();
    tokio::select! {
        () = table.completed() => {}
        () = cancel.cancelled() => return Ok(()),
    }
    let mut written = None;
    let mut keeping = file::Keeping::new(WHAT);
    loop {
        let now = generations.of_all();
        if written != Some(now) {
            let (table, path) = (table.clone(), path.clone());
            let job = tokio::task::spawn_blocking(move || write(&path, &table, MOST));
            let result = job.await.context("save the names of the cluster")?;
            // Those that are too many are so until they change.
            if result.is_ok() {
                written = Some(now);
            }
            keeping.note(result.and_then(|fits| {
                ensure!(fits, "they take more than {} MiB", MOST >> 20);
                Ok(())
            }));
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

/// Puts the names in the file's place. False if there are too many of them: then the file goes, for it is out of date.
fn write(path: &Path, table: &Table, most: usize) -> anyhow::Result<bool> {
    if let Some(bytes) = table.save(most) {
        return file::replace(path, &bytes).map(|()| true);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use hickory_proto::rr::RecordType;
    use pagurus_agent_core::dns::{Kind, Lookup, Service};

    use super::super::table::Known;
    use super::*;

    fn domain() -> Name {
        Name::from_ascii("cluster.local.").unwrap()
    }

    fn service(name: &str, ip: &str) -> Service {
        let (namespace, name) = ("ns".to_owned(), name.to_owned());
        Service { namespace, name, kind: Kind::ClusterIp(ip.parse().ok(), None), ports: Vec::new() }
    }

    /// The addresses in an answer, and where it comes from.
    fn ask(table: &Table, name: &str) -> (usize, Known) {
        let name = Name::from_ascii(format!("{name}.ns.svc.cluster.local.")).unwrap();
        match table.answer(&name, RecordType::A) {
            (Lookup::Answer(answer), known) => (answer.answers.len(), known),
            (other, _) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn names_are_answered_while_the_api_server_is_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/dns-names");
        let first = Table::new(&domain(), load(&path, &domain()));
        first.set_service(service("web", "10.96.0.7"));
        assert_eq!(ask(&first, "web").1, Known::Partly, "nothing is known yet");
        first.set_complete();
        let cancel = CancellationToken::new();
        let saving = tokio::spawn(run(first.clone(), path.clone(), cancel.clone()));
        let saved = async {
            while !path.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), saved).await.expect("saved in time");
        cancel.cancel();
        saving.await.unwrap().unwrap();
        // The next agent, to which the API server says nothing.
        let next = Table::new(&domain(), load(&path, &domain()));
        assert_eq!(ask(&next, "web"), (1, Known::Last));
        assert_eq!(ask(&next, "new"), (0, Known::Last));
        // It is back, and says part of it: only the whole counts.
        next.set_service(service("new", "10.96.0.8"));
        assert_eq!((ask(&next, "web").0, ask(&next, "new").0), (1, 0));
        next.set_complete();
        assert_eq!((ask(&next, "web").0, ask(&next, "new").0), (0, 1));
        assert!(matches!(ask(&next, "new").1, Known::Now(_)));
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dns-names");
        assert!(load(&path, &domain()).is_none());
        file::replace(&path, b"nonsense").unwrap();
        assert!(load(&path, &domain()).is_none());
        let table = Table::new(&domain(), None);
        table.set_service(service("web", "10.96.0.7"));
        assert!(write(&path, &table, MOST).unwrap());
        assert_eq!(load(&path, &domain()).unwrap().used().services, 1);
        let bytes = std::fs::read(&path).unwrap();
        file::replace(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(load(&path, &domain()).is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dns-names");
        let table = Table::new(&domain(), None);
        for number in 0..10_000 {
            table.set_service(service(&format!("web-{number}"), "10.96.0.7"));
        }
        assert!(write(&path, &table, MOST).unwrap());
        let each = std::fs::metadata(&path).unwrap().len() / 10_000;
        assert!((20..100).contains(&each), "{each} bytes for each Service");
        // Too many: what was there is out of date, and goes.
        assert!(!write(&path, &table, 300_000).unwrap());
        assert!(!path.exists());
        assert!(!write(&path, &table, 300_000).unwrap(), "and again");
    }
}
