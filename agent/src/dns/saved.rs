//! The names of the cluster on disk: read when the agent starts, written again a few seconds after they have changed.
//!
//! Must not know: what is in the file (`agent-core`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use hickory_proto::rr::Name;
use pagurus_agent_core::dns::{Index, saved};
use tokio_util::sync::CancellationToken;

use super::table::Table;

/// The least time between two writes.
const PAUSE: Duration = Duration::from_secs(5);

/// What an earlier agent knew; none if it left nothing, or nothing that can be read.
pub(super) fn load(path: &Path, domain: &Name) -> Option<Index> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the saved names of the cluster cannot be read");
            return None;
        }
    };
    match saved::restore(domain, &bytes) {
        Ok(index) => {
            tracing::info!(services = index.used().services, "names are answered as last known");
            Some(index)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the saved names of the cluster are not used");
            None
        }
    }
}

/// Keeps the file as the table is, until cancelled. A disk that does not take it disturbs nothing else.
pub(super) async fn run(table: Table, path: PathBuf, cancel: CancellationToken) -> anyhow::Result<()> {
    let generations = table.generations();
    tokio::select! {
        () = table.completed() => {}
        () = cancel.cancelled() => return Ok(()),
    }
    let mut written = None;
    let mut told = false;
    loop {
        let now = generations.of_all();
        if written != Some(now) {
            let (table, path) = (table.clone(), path.clone());
            let job = tokio::task::spawn_blocking(move || write(&path, &table.save()));
            match job.await.context("save the names of the cluster")? {
                Ok(()) => (written, told) = (Some(now), false),
                Err(error) if !told => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the names of the cluster are not saved; trying again"
                    );
                    told = true;
                }
                Err(_) => {}
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

/// Puts the bytes in the file's place: all of them or none, whenever the machine stops.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let next = path.with_extension("next");
    let shown = next.display();
    let mut file = std::fs::File::create(&next).with_context(|| format!("create {shown}"))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("write {shown}"))?;
    std::fs::rename(&next, path).with_context(|| format!("rename {shown}"))?;
    let folder_file = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    folder_file.with_context(|| format!("write {}", folder.display()))
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
        write(&path, b"nonsense").unwrap();
        assert!(load(&path, &domain()).is_none());
        let table = Table::new(&domain(), None);
        table.set_service(service("web", "10.96.0.7"));
        let bytes = table.save();
        write(&path, &bytes).unwrap();
        assert_eq!(load(&path, &domain()).unwrap().used().services, 1);
        write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(load(&path, &domain()).is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
}
