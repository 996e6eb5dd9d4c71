//! What load balancers were answered, kept over restarts of the agent: while the API server is away, the node goes on serving Services as
//! it did, and load balancers are to hear so.
//!
//! Must not know: who asks, what is answered.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use pagurus_agent_core::services::ServiceName;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{Check, Checks, Health, Wanted};
use crate::process::file;

/// The file.
pub const FILE: &str = "/run/pagurus/health-checks";
/// What is in it.
const WHAT: &str = "the health checks of Services";
/// The least time between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// What is in the file. `boot` tells the machine's starts apart: after one nothing is served any more.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    boot: String,
    updated: Timestamp,
    eligible: bool,
    #[serde(default)]
    addresses: BTreeSet<IpAddr>,
    checks: Vec<SavedCheck>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SavedCheck {
    port: u16,
    namespace: String,
    name: String,
    uid: String,
    endpoints: usize,
}

/// What an earlier agent answered.
#[derive(Debug, PartialEq)]
pub(super) struct Remembered {
    pub(super) checks: Checks,
    /// Where, if not at all addresses.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Nobody was about to take the node away.
    pub(super) eligible: bool,
    /// When it last wrote the maps.
    pub(super) updated: Timestamp,
}

/// What an earlier agent left; none if it left nothing of this run of the machine, or nothing that can be read.
pub(super) fn load(path: &Path) -> Option<Remembered> {
    let saved: Saved = file::recall(WHAT, path, |bytes| serde_json::from_slice(bytes))?;
    if saved.boot != boot() {
        return None;
    }
    let check = |saved: SavedCheck| {
        let service = ServiceName::new(&saved.namespace, &saved.name);
        (saved.port, Check { service, uid: saved.uid.into(), endpoints: saved.endpoints })
    };
    let checks = saved.checks.into_iter().map(check).collect();
    let Saved { addresses, eligible, updated, .. } = saved;
    Some(Remembered { checks, addresses, eligible, updated })
}

/// Keeps the file as the answers are, until cancelled. A disk that does not take it disturbs nothing else.
pub(super) async fn run(health: Arc<Health>, path: PathBuf, cancel: CancellationToken) -> anyhow::Result<()> {
    // What is there at the beginning is what was remembered, or nothing.
    let mut wanted = health.wanted.subscribe();
    let mut keeping = file::Keeping::new(WHAT);
    loop {
        tokio::select! {
            biased;
            changed = wanted.changed() => changed.context("the checks of Services ended")?,
            () = cancel.cancelled() => return Ok(()),
        }
        let bytes = save(&wanted.borrow_and_update().clone(), &health)?;
        let path = path.clone();
        let job = tokio::task::spawn_blocking(move || file::replace(&path, &bytes));
        keeping.note(job.await.context("save the health checks")?);
        // Cut short by the end, before which the last change is written.
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = cancel.cancelled() => {}
        }
    }
}

fn save(wanted: &Wanted, health: &Health) -> anyhow::Result<Vec<u8>> {
    let (updated, eligible) = health.kept();
    let addresses = wanted.addresses.clone().unwrap_or_default();
    let checks = wanted.checks.iter().map(|(port, check)| SavedCheck {
        port: *port,
        namespace: check.service.namespace.to_string(),
        name: check.service.name.to_string(),
        uid: check.uid.to_string(),
        endpoints: check.endpoints,
    });
    let saved = Saved { boot: boot(), updated, eligible, addresses, checks: checks.collect() };
    serde_json::to_vec(&saved).context("encode the health checks")
}

/// Tells one run of the machine from another.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_restart_without_the_api_server_closes_no_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/health-checks");
        assert_eq!(load(&path), None);
        let before = Arc::new(Health::default());
        let cancel = CancellationToken::new();
        let keeping = tokio::spawn(run(before.clone(), path.clone(), cancel.clone()));
        tokio::task::yield_now().await;
        let check = |endpoints| Check { service: ServiceName::new("ns", "web"), uid: "u".into(), endpoints };
        before.set_written(true);
        before.set_attached();
        for endpoints in 0..3 {
            // Once a second at most, and the last one before the end.
            before.set_checks(&Checks::from([(31_000, check(endpoints)), (31_001, check(0))]));
            tokio::task::yield_now().await;
        }
        cancel.cancel();
        keeping.await.unwrap().unwrap();
        let remembered = load(&path).expect("it was kept");
        assert_eq!(remembered.checks[&31_000], check(2));
        let next = Health::default();
        next.inherit(remembered);
        let status = |port| next.answer_check(port).map(|response| response.status().as_u16());
        assert_eq!((status(31_000), status(31_001), status(31_002)), (Some(200), Some(503), None));
        assert_eq!(next.answer("/healthz").map(|response| response.status().as_u16()), Some(200));
        // Its own programs are refused: nobody knows how long those of before are right.
        next.set_refused();
        assert_eq!(status(31_000), Some(503));
        next.set_written(true);
        next.set_attached();
        assert_eq!(status(31_000), Some(200));
    }

    #[test]
    fn what_is_not_of_this_run_of_the_machine_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health-checks");
        let bytes = save(&Wanted::default(), &Health::default()).unwrap();
        file::replace(&path, &bytes).unwrap();
        assert!(load(&path).is_some());
        let other = String::from_utf8(bytes).unwrap().replace(&boot(), "another");
        file::replace(&path, other.as_bytes()).unwrap();
        assert_eq!(load(&path), None);
        file::replace(&path, b"{}").unwrap();
        assert_eq!(load(&path), None);
    }
}
