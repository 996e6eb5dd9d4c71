//! Objects that are kept for a while only (events): deleted when nobody has written them for the time their kind gives them.
//!
//! Ages are told by revisions: the revision of the store is noted now and then, and what was written before an old note
//! is old. After a restart everything counts as young. It must not know which kinds expire.
//!
//! At the same time the caches let go of what is old, which they do by themselves only when something changes.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use pagurus_controlplane_store::{Revision, Txn};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Engine, Kind};
use crate::verbs;

/// How often old objects are looked for.
const TICK: Duration = Duration::from_secs(60);

/// Deletes expired objects until `cancel`.
pub(super) async fn run(engine: Weak<Engine>, cancel: CancellationToken) {
    let mut notes = Notes::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(engine) = engine.upgrade() else { return };
        match engine.store().revision().await {
            Ok(revision) => notes.note(Instant::now(), revision),
            Err(error) => warn!(%error, "the store does not tell its revision"),
        }
        for kind in engine.registry().kinds() {
            kind.cache.tidy(std::time::Instant::now());
            let Some(kept) = kind.strategy.time_to_live() else { continue };
            if let Some(before) = notes.older_than(Instant::now(), kept) {
                expire(&engine, kind, before).await;
            }
        }
    }
}

/// Deletes the objects of a kind that were written last at or before a revision.
pub(super) async fn expire(engine: &Arc<Engine>, kind: &Kind, before: Revision) {
    let snapshot = kind.cache.snapshot();
    let mut deleted = 0;
    for object in snapshot.objects.values().filter(|o| o.revision <= before) {
        let key = kind.cache.store_key(&object.key);
        let txn = Txn::delete_if(key, object.revision).noted(verbs::note_of_server("Expire"));
        match engine.store().txn(txn).await {
            Ok(_) => deleted += 1,
            Err(error) => {
                warn!(resource = %kind.resource.plural, %error, "expired objects stay for now");
                return;
            }
        }
    }
    if deleted > 0 {
        debug!(resource = %kind.resource.plural, deleted, "expired objects are deleted");
    }
}

/// Which revision the store had when.
#[derive(Debug, Default)]
struct Notes(VecDeque<(Instant, Revision)>);

impl Notes {
    fn note(&mut self, now: Instant, revision: Revision) {
        self.0.push_back((now, revision));
    }

    /// The newest revision noted so long ago; older notes are forgotten.
    fn older_than(&mut self, now: Instant, age: Duration) -> Option<Revision> {
        let old = self.0.partition_point(|(at, _)| now.duration_since(*at) >= age);
        self.0.drain(..old.saturating_sub(1));
        (old > 0).then(|| self.0.front().map(|(_, revision)| *revision)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_tell_ages() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut notes = Notes::default();
        for (seconds, revision) in [(0, 5), (60, 7), (120, 9)] {
            notes.note(at(seconds), revision);
        }
        let hour = Duration::from_secs(100);
        for (now, expected) in [(99, None), (100, Some(5)), (159, Some(5)), (200, Some(7)), (500, Some(9))] {
            assert_eq!(notes.older_than(at(now), hour), expected, "at {now}");
        }
        assert_eq!(notes.0.len(), 1);
    }
}
