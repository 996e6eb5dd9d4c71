//! What the outcomes of a container's probes mean: started, ready, or to be restarted. Pure: outcomes and times are
//! arguments. It must not know how a probe is done.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::spec::{Container, Probe};

/// Which of the three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ProbeKind {
    /// Holds the others back until it succeeds; restarts the container when it fails.
    Startup,
    /// Restarts the container when it fails.
    Liveness,
    /// Takes the pod out of Services while it fails.
    Readiness,
}

impl ProbeKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// The word at the beginning of an event's message.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// The word within a sentence.
    pub fn lowercase(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }

    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// How one attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The container answered well.
    Success,
    /// The container answered badly, or not in time.
    Failure,
    /// The attempt could not be made; it says nothing about the container.
    Error,
}

/// What the outcomes of one probe have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Enough successes in a row.
    Success,
    /// Enough failures in a row.
    Failure,
}

/// The verdicts on a pod's containers, by the runtime's id of the container. No entry: no verdict yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProbeResults(BTreeMap<String, BTreeMap<ProbeKind, Verdict>>);

impl ProbeResults {
    /// The verdict of one probe.
    pub fn get(&self, container_id: &str, kind: ProbeKind) -> Option<Verdict> {
        self.0.get(container_id)?.get(&kind).copied()
    }

    /// Enters a verdict.
    pub fn set(&mut self, container_id: &str, kind: ProbeKind, verdict: Verdict) {
        self.0.entry(container_id.to_owned()).or_default().insert(kind, verdict);
    }
}

/// What the probes of a running container say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The startup probe has succeeded, or there is none.
    pub started: bool,
    /// The readiness probe says yes, or there is none (and the container is started).
    pub ready: bool,
    /// The probe that says the container must be restarted.
    pub failed: Option<ProbeKind>,
}

/// The probes of one life of a container.
#[derive(Clone, Debug)]
pub struct Probes {
    startup: Option<Track>,
    liveness: Option<Track>,
    readiness: Option<Track>,
}

/// One probe: the run of equal outcomes, and what they have come to.
#[derive(Clone, Debug)]
struct Track {
    successes_needed: u32,
    failures_needed: u32,
    last: Option<Verdict>,
    run: u32,
    verdict: Option<Verdict>,
}

impl Track {
    fn new(probe: &Probe, verdict: Option<Verdict>) -> Self {
        let threshold = |configured: i32| u32::try_from(configured).unwrap_or(1).max(1);
        Self {
            successes_needed: threshold(probe.success_threshold),
            failures_needed: threshold(probe.failure_threshold),
            last: None,
            run: 0,
            verdict,
        }
    }

    fn record(&mut self, now: Verdict) {
        self.run = if self.last == Some(now) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(now);
        let needed = match now {
            Verdict::Success => self.successes_needed,
            Verdict::Failure => self.failures_needed,
        };
        if self.run >= needed {
            self.verdict = Some(now);
        }
    }
}

impl Probes {
    /// The probes of a container that has just been found running. `before` is what was said of this very container
    /// earlier, by an agent that ran before us: it holds until a probe says otherwise.
    pub fn new(container: &Container, before: Option<Health>) -> Self {
        let track = |kind: ProbeKind, verdict| kind.of(container).map(|probe| Track::new(probe, verdict));
        let good = |good: bool| good.then_some(Verdict::Success);
        Self {
            startup: track(ProbeKind::Startup, good(before.is_some_and(|health| health.started))),
            liveness: track(ProbeKind::Liveness, None),
            readiness: track(ProbeKind::Readiness, good(before.is_some_and(|health| health.ready))),
        }
    }

    fn track(&self, kind: ProbeKind) -> Option<&Track> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
        }
    }

    /// What one probe has come to; `None` before enough outcomes, or if there is no such probe.
    pub fn verdict(&self, kind: ProbeKind) -> Option<Verdict> {
        self.track(kind)?.verdict
    }

    /// Whether this probe is to be made: the startup probe until it has come to a result, the others once started, and
    /// none for a container that is to be restarted.
    pub fn wants(&self, kind: ProbeKind) -> bool {
        let health = self.health();
        health.failed.is_none()
            && self.track(kind).is_some()
            && health.started == (kind != ProbeKind::Startup)
    }

    /// Takes an outcome in. An outcome that is not wanted (any more) changes nothing.
    pub fn record(&mut self, kind: ProbeKind, outcome: Outcome) {
        if !self.wants(kind) {
            return;
        }
        let track = match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        };
        match (track, outcome) {
            (Some(track), Outcome::Success) => track.record(Verdict::Success),
            (Some(track), Outcome::Failure) => track.record(Verdict::Failure),
            (None, _) | (_, Outcome::Error) => {}
        }
    }

    /// What the probes say by now.
    pub fn health(&self) -> Health {
        let passed = |kind| self.track(kind).is_none_or(|track| track.verdict == Some(Verdict::Success));
        let started = passed(ProbeKind::Startup);
        let failed = [ProbeKind::Startup, ProbeKind::Liveness]
            .into_iter()
            .find(|kind| self.verdict(*kind) == Some(Verdict::Failure));
        Health { started, ready: started && passed(ProbeKind::Readiness), failed }
    }
}

/// When a probe is due for the first time.
pub fn first_due(probe: &Probe, started: Timestamp, now: Timestamp) -> Timestamp {
    let delay = SignedDuration::from_secs(probe.initial_delay_seconds.max(0).into());
    started.checked_add(delay).map_or(now, |due| due.max(now))
}

/// When a probe is due again that was due at `due`: one period later, skipping the periods that are over.
pub fn next_due(probe: &Probe, due: Timestamp, now: Timestamp) -> Timestamp {
    let period = SignedDuration::from_secs(probe.period_seconds.max(1).into());
    match due.checked_add(period) {
        Ok(next) if next > now => next,
        _ => now.checked_add(period).unwrap_or(now),
    }
}

/// How long an attempt may take.
pub fn timeout(probe: &Probe) -> SignedDuration {
    SignedDuration::from_secs(probe.timeout_seconds.max(1).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProbeKind::{Liveness, Readiness, Startup};

    const fn health(started: bool, ready: bool, failed: Option<ProbeKind>) -> Health {
        Health { started, ready, failed }
    }

    /// A container with the probes named: (kind, successes, failures needed).
    fn container(probes: &[(ProbeKind, i32, i32)]) -> Container {
        let mut container = Container::default();
        for (kind, success_threshold, failure_threshold) in probes {
            let probe = Probe {
                success_threshold: *success_threshold,
                failure_threshold: *failure_threshold,
                ..Probe::default()
            };
            match kind {
                Startup => container.startup_probe = Some(probe),
                Liveness => container.liveness_probe = Some(probe),
                Readiness => container.readiness_probe = Some(probe),
            }
        }
        container
    }

    /// Runs outcomes (`+`, `-`, `?` after the probe's letter) through the probes and compares the health at the end.
    fn check(probes: &[(ProbeKind, i32, i32)], before: Option<Health>, outcomes: &str, expected: Health) {
        let mut state = Probes::new(&container(probes), before);
        for word in outcomes.split_whitespace() {
            let kind = match &word[..1] {
                "s" => Startup,
                "l" => Liveness,
                _ => Readiness,
            };
            let outcome = match &word[1..] {
                "+" => Outcome::Success,
                "-" => Outcome::Failure,
                _ => Outcome::Error,
            };
            state.record(kind, outcome);
        }
        assert_eq!(state.health(), expected, "{probes:?} {before:?} {outcomes}");
    }

    #[test]
    fn no_probes() {
        check(&[], None, "", health(true, true, None));
        check(&[], Some(health(false, false, None)), "", health(true, true, None));
    }

    #[test]
    fn readiness() {
        let probes = [(Readiness, 2, 3)];
        check(&probes, None, "", health(true, false, None));
        check(&probes, None, "r+", health(true, false, None));
        check(&probes, None, "r+ r+", health(true, true, None));
        check(&probes, None, "r+ r- r+", health(true, false, None));
        check(&probes, None, "r+ r+ r- r-", health(true, true, None));
        check(&probes, None, "r+ r+ r- r- r-", health(true, false, None));
        check(&probes, None, "r+ r+ r- r- r+ r- r-", health(true, true, None));
        check(&probes, None, "r+ r+ r- r? r-", health(true, true, None));
        check(&probes, None, "r+ r+ r- r? r- r-", health(true, false, None));
        check(&probes, None, "r+ r+ r- r- r- r+ r+", health(true, true, None));
    }

    #[test]
    fn liveness() {
        let probes = [(Liveness, 1, 2)];
        check(&probes, None, "", health(true, true, None));
        check(&probes, None, "l-", health(true, true, None));
        check(&probes, None, "l- l-", health(true, true, Some(Liveness)));
        check(&probes, None, "l- l+ l-", health(true, true, None));
        check(&probes, None, "l- l- l+", health(true, true, Some(Liveness)));
    }

    #[test]
    fn startup_holds_the_others_back() {
        let probes = [(Startup, 1, 3), (Liveness, 1, 1), (Readiness, 1, 1)];
        check(&probes, None, "l- r+", health(false, false, None));
        check(&probes, None, "s- s- l-", health(false, false, None));
        check(&probes, None, "s- s- s-", health(false, false, Some(Startup)));
        check(&probes, None, "s- s- s+", health(true, false, None));
        check(&probes, None, "s+ s- s- s- r+", health(true, true, None));
        check(&probes, None, "s+ r+ l-", health(true, true, Some(Liveness)));
    }

    #[test]
    fn what_was_said_before_a_restart_of_the_agent_holds() {
        let probes = [(Startup, 1, 3), (Liveness, 1, 2), (Readiness, 1, 3)];
        let before = Some(health(true, true, None));
        check(&probes, before, "", health(true, true, None));
        check(&probes, before, "r- r-", health(true, true, None));
        check(&probes, before, "r- r- r-", health(true, false, None));
        check(&probes, Some(health(false, false, None)), "", health(false, false, None));
        check(&probes, Some(health(true, false, None)), "r+", health(true, true, None));
    }

    #[test]
    fn which_probes_are_made() {
        let mut state =
            Probes::new(&container(&[(Startup, 1, 1), (Liveness, 1, 1), (Readiness, 1, 1)]), None);
        let wanted = |state: &Probes| ProbeKind::ALL.map(|kind| state.wants(kind));
        assert_eq!(wanted(&state), [true, false, false]);
        state.record(Startup, Outcome::Success);
        assert_eq!(wanted(&state), [false, true, true]);
        state.record(Liveness, Outcome::Failure);
        assert_eq!(wanted(&state), [false, false, false]);
        assert_eq!(wanted(&Probes::new(&Container::default(), None)), [false, false, false]);
    }

    #[test]
    fn times() {
        let at = |second: i64| Timestamp::from_second(second).expect("in range");
        let probe =
            Probe { initial_delay_seconds: 5, period_seconds: 10, timeout_seconds: 0, ..Probe::default() };
        assert_eq!(first_due(&probe, at(100), at(101)), at(105));
        assert_eq!(first_due(&probe, at(100), at(500)), at(500));
        assert_eq!(next_due(&probe, at(105), at(106)), at(115));
        assert_eq!(next_due(&probe, at(105), at(115)), at(125));
        assert_eq!(next_due(&probe, at(105), at(500)), at(510), "after a suspended machine: no catching up");
        assert_eq!(timeout(&probe), SignedDuration::from_secs(1));
    }
}
