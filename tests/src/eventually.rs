//! Waiting for a condition, with a time-out: the only way tests wait.

use crate::pace::patience;
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(50);

/// Repeats `look` until it gives a value. An error of `look` is a reason to look again; the last one is told at the end.
/// The limit is an ordinary machine's: a slow one is given longer ([`patience`]).
///
/// # Errors
/// Nothing within `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let (start, limit) = (Instant::now(), patience(limit));
    let mut last = String::from("not yet");
    loop {
        match look() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => last = format!("{error:#}"),
        }
        if start.elapsed() > limit {
            bail!("{what}: not within {} s; last: {last}", limit.as_secs());
        }
        std::thread::sleep(STEP);
    }
}
