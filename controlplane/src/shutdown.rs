//! When the process is to end: the first signal drains, the second or a time-out ends at once.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Everything finished.
    Complete,
    /// The grace period was over first.
    TimedOut,
    /// A second signal came first.
    Interrupted,
}

/// The signals that end the process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT.
    pub fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Tells everything to stop and waits until it has, but not for ever.
    pub async fn drain(&mut self, cancel: &CancellationToken, tasks: &TaskTracker, grace: Duration) -> Drain {
        cancel.cancel();
        tasks.close();
        tokio::select! {
            () = tasks.wait() => Drain::Complete,
            () = tokio::time::sleep(grace) => Drain::TimedOut,
            _ = self.next() => Drain::Interrupted,
        }
    }
}
