//! The process's memory: what large answers left behind goes back to the system.
//!
//! OpenAPI documents and long lists are built, sent and forgotten. The allocator (mimalloc) gives free pages back when threads come by
//! that allocate, so an idle server would keep them for good.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

// Links the allocator, also where the library is tested without the binary.
use mimalloc as _;

const EVERY: Duration = Duration::from_secs(30);

unsafe extern "C" {
    /// mimalloc's: collects what this thread has free and, with `force`, gives back the free pages of the whole process.
    safe fn mi_collect(force: bool);
}

/// Gives free pages back now and then, until `cancel`.
pub async fn give_back(cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => mi_collect(true),
        }
    }
}
