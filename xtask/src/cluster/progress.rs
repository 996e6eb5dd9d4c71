//! The progress line of long commands: what is being done, and since when.

use std::time::Instant;

/// Prints each step with the seconds since the start.
pub struct Progress {
    start: Instant,
    last: String,
}

impl Progress {
    /// Starts the clock.
    pub fn start() -> Self {
        Self { start: Instant::now(), last: String::new() }
    }

    /// Says what is done now; the same words again are not repeated.
    pub fn say(&mut self, what: impl Into<String>) {
        let what = what.into();
        if what != self.last {
            println!("[{:6.2} s] {what}", self.start.elapsed().as_secs_f64());
            self.last = what;
        }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

/// Repeats `step` until it gives a value; an error says what was waited for.
pub fn until<T>(
    what: &str,
    limit: std::time::Duration,
    mut step: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    let mut last: Option<anyhow::Error> = None;
    loop {
        match step() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        if start.elapsed() > limit {
            let cause = last.map(|e| format!(" (last: {e:#})")).unwrap_or_default();
            anyhow::bail!("{what}: not within {} s{cause}", limit.as_secs());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
