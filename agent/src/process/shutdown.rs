//! The end of the process: SIGTERM or SIGINT asks every task to stop; then they have drained, or the time is over, or a
//! second signal says not to wait.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every task ended by itself.
    Drained,
    /// Tasks were still running when the time was over.
    TimedOut,
    /// A second signal came.
    Aborted,
}

/// The signals that ask for the end.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over. From here on they no longer kill the process by themselves.
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
        })
    }

    /// Waits for the next signal and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Cancels all tasks and waits for them, at most `grace` long and no longer than until the next signal.
pub async fn drain<T: 'static>(
    tasks: &mut JoinSet<T>,
    cancel: &CancellationToken,
    signals: &mut Signals,
    grace: Duration,
) -> Outcome {
    cancel.cancel();
    let outcome = tokio::select! {
        () = async { while tasks.join_next().await.is_some() {} } => Outcome::Drained,
        () = tokio::time::sleep(grace) => Outcome::TimedOut,
        _ = signals.next() => Outcome::Aborted,
    };
    tasks.abort_all();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drains_or_times_out() {
        let mut signals = Signals::listen().expect("signals");
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(cancel.clone().cancelled_owned());
        let outcome = drain(&mut tasks, &cancel, &mut signals, Duration::from_secs(60)).await;
        assert_eq!(outcome, Outcome::Drained);

        let mut stuck = JoinSet::new();
        stuck.spawn(std::future::pending::<()>());
        let outcome = drain(&mut stuck, &cancel, &mut signals, Duration::from_millis(1)).await;
        assert_eq!(outcome, Outcome::TimedOut);
    }
}
