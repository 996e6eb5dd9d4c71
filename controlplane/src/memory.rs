//! The process's memory: few arenas, and what large answers left behind goes back to the system.
//!
//! OpenAPI documents and long lists are built, sent and forgotten; the allocator would keep their pages for good.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(30);
/// Arenas of the allocator; with one per thread, what one thread frees another cannot use.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Sets the allocator up; to be called before other threads run.
pub fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt sets a number inside the allocator and has no other effect.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Gives free pages back now and then, until `cancel`.
pub async fn give_back(cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => trim(),
        }
    }
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only gives pages back that no allocation uses; it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
