//! What the worker of a pod knows besides API and runtime: operations under way, failures to wait out, probe results.
//! All of it may be lost at any moment (the agent may die); it then builds up again from what is really there.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::admit::Rejection;
use super::probes::ProbeResults;

/// The worker's memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Operations under way; one per slot.
    pub in_flight: BTreeMap<Slot, InFlight>,
    /// How far the volumes are.
    pub volumes: Volumes,
    /// Operations that failed last time, by slot.
    pub failures: BTreeMap<Slot, Failure>,
    /// Sandboxes that were stopped by us: no process and no address is left.
    pub stopped: BTreeSet<String>,
    /// What the probes found.
    pub probes: ProbeResults,
    /// The node did not take the pod.
    pub rejected: Option<Rejection>,
    /// Since when the pod is being ended.
    pub ending_since: Option<Timestamp>,
    /// The API server has the status that follows from what is there.
    pub reported: bool,
    /// Nothing of the pod is left on the node's disk.
    pub cleaned: bool,
}

/// What an operation is about. Two operations on one slot never run at the same time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// The volumes and directories.
    Volumes,
    /// The sandbox.
    Sandbox,
    /// A container, by name.
    Container(String),
    /// Something dead, by the runtime's id.
    Garbage(String),
    /// The pod's object.
    Api,
}

/// An operation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlight {
    /// A container is being started.
    Start,
    /// A container is being stopped; it is killed by then.
    Stop {
        /// The end of its grace.
        deadline: Timestamp,
    },
    /// Something else.
    Other,
}

/// How far the volumes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    /// Not looked at by this process.
    #[default]
    Unknown,
    /// There, and as wanted.
    Ready,
    /// There, but their content changed since.
    Stale,
    /// Gone.
    TornDown,
}

/// An operation that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Brief word, such as `ErrImagePull`.
    pub reason: String,
    /// What went wrong.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// How often in a row.
    pub count: u32,
    /// When to try again.
    pub retry: Timestamp,
}

impl Failure {
    /// A failure after `before`, to be tried again after a time that doubles from `first` to `most`.
    pub fn after(
        before: Option<&Failure>,
        reason: &str,
        message: String,
        at: Timestamp,
        (first, most): (SignedDuration, SignedDuration),
    ) -> Self {
        let count = before
            .filter(|failure| failure.reason == reason)
            .map_or(1, |failure| failure.count.saturating_add(1));
        let factor = 1_i32.checked_shl(count.saturating_sub(1).min(16)).unwrap_or(i32::MAX);
        let delay = first.saturating_mul(factor).min(most);
        Self { reason: reason.to_owned(), message, at, count, retry: later(at, delay) }
    }
}

/// `time` plus `delay`, at most the end of time.
pub fn later(time: Timestamp, delay: SignedDuration) -> Timestamp {
    time.checked_add(delay).unwrap_or(Timestamp::MAX)
}

impl Progress {
    /// Whether an operation on this slot is under way.
    pub fn is_busy(&self, slot: &Slot) -> bool {
        self.in_flight.contains_key(slot)
    }

    /// Whether this container is being started.
    pub fn is_starting(&self, container: &str) -> bool {
        self.in_flight.get(&Slot::Container(container.to_owned())) == Some(&InFlight::Start)
    }

    /// The failure of this slot, if it is still to be waited out.
    pub fn waiting(&self, slot: &Slot, now: Timestamp) -> Option<&Failure> {
        self.failures.get(slot).filter(|failure| failure.retry > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_double_up_to_the_most() {
        let limits = (SignedDuration::from_secs(10), SignedDuration::from_secs(300));
        let mut last: Option<Failure> = None;
        let mut delays = Vec::new();
        for _ in 0..7 {
            let next =
                Failure::after(last.as_ref(), "ErrImagePull", String::new(), Timestamp::UNIX_EPOCH, limits);
            delays.push(next.retry.as_second());
            last = Some(next);
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        let other = Failure::after(last.as_ref(), "Other", String::new(), Timestamp::UNIX_EPOCH, limits);
        assert_eq!(other.count, 1);
    }
}
