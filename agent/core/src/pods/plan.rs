//! What to do next for one pod. Looks at a [`Situation`], answers operations that may all run at the same time, and when
//! to look again if nothing happens. Must not do anything itself.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::lifecycle::{Situation, Stage};
use super::observed::{ContainerState, ObservedContainer};
use super::probes::{ProbeKind, Verdict};
use super::progress::{InFlight, Slot, Volumes, later};
use super::restart::{self, Attempt, Next};
use super::spec::{Container, ContainerKind, init_kind};

/// How long an ending pod waits for a sandbox that is being made.
const SANDBOX_PATIENCE: SignedDuration = SignedDuration::from_secs(20);

/// An operation on a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum PodOp {
    /// Make the pod's directories and volumes, or bring their content up to date.
    PrepareVolumes,
    /// Take the volumes away.
    TearDownVolumes,
    /// Make and start a sandbox.
    CreateSandbox {
        /// How many there were before.
        attempt: u32,
    },
    /// End everything in a sandbox and give back its network.
    StopSandbox {
        /// The runtime's id.
        id: String,
    },
    /// Remove a sandbox.
    RemoveSandbox {
        /// The runtime's id.
        id: String,
    },
    /// Fetch the image if need be, make a container, start it and run its hook.
    Start {
        /// Its name in the pod.
        container: String,
        /// The sandbox it is to run in.
        sandbox: String,
        /// How often it was started before.
        attempt: Attempt,
        /// A container that was made for this and never started.
        replace: Option<String>,
    },
    /// Run the hook, stop, and kill at the end of the grace.
    Stop {
        /// The runtime's id.
        id: String,
        /// Its name in the pod.
        container: String,
        /// When to kill it.
        deadline: Timestamp,
        /// Why.
        why: Why,
    },
    /// Remove a container.
    Remove {
        /// The runtime's id.
        id: String,
    },
    /// Give up what is under way on this slot.
    Cancel(Slot),
    /// Tell the API server that nothing of the pod is left.
    DeletePod,
    /// Remove the pod's directories and logs.
    CleanUp,
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The pod ends.
    PodEnds,
    /// A probe failed.
    Probe(ProbeKind),
    /// Its sandbox is lost.
    SandboxLost,
    /// The pod wants another image.
    Outdated,
}

impl PodOp {
    /// What the operation is about.
    pub fn slot(&self) -> Slot {
        match self {
            Self::PrepareVolumes | Self::TearDownVolumes | Self::CleanUp => Slot::Volumes,
            Self::CreateSandbox { .. } => Slot::Sandbox,
            Self::Start { container, .. } | Self::Stop { container, .. } => {
                Slot::Container(container.clone())
            }
            Self::StopSandbox { id } | Self::RemoveSandbox { id } | Self::Remove { id } => {
                Slot::Garbage(id.clone())
            }
            Self::Cancel(slot) => slot.clone(),
            Self::DeletePod => Slot::Api,
        }
    }
}

/// Why a container does not run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Brief word.
    pub reason: String,
    /// More words.
    pub message: String,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Operations to start now.
    pub ops: Vec<PodOp>,
    /// Containers that wait for a time or after a failure.
    pub waiting: BTreeMap<String, Waiting>,
    /// When to look again at the latest.
    pub wake: Option<Timestamp>,
    /// Nothing of the pod is left and nobody wants it: the worker may end.
    pub done: bool,
}

/// What to do next in this situation.
pub fn plan(situation: &Situation<'_>) -> Plan {
    let mut planner = Planner { s: situation, plan: Plan::default() };
    match situation.stage() {
        Stage::Run => planner.run(),
        stage => planner.end(stage),
    }
    planner.remove_garbage();
    planner.plan
}

struct Planner<'a> {
    s: &'a Situation<'a>,
    plan: Plan,
}

impl Planner<'_> {
    /// Adds an operation unless its slot is taken or still waits after a failure.
    fn offer(&mut self, op: PodOp) -> bool {
        let slot = op.slot();
        let taken = self.s.progress.is_busy(&slot) || self.plan.ops.iter().any(|other| other.slot() == slot);
        if taken {
            return false;
        }
        if let Some(failure) = self.s.progress.waiting(&slot, self.s.now) {
            let retry = failure.retry;
            self.wake_at(retry);
            return false;
        }
        self.plan.ops.push(op);
        true
    }

    fn wake_at(&mut self, time: Timestamp) {
        self.plan.wake = Some(self.plan.wake.map_or(time, |earlier| earlier.min(time)));
    }

    // ---- a pod that is to run

    fn run(&mut self) {
        if let Some(deadline) = self.s.overdue_at() {
            self.wake_at(deadline);
        }
        let volumes = self.s.progress.volumes;
        if volumes != Volumes::Ready {
            self.offer(PodOp::PrepareVolumes);
        }
        let Some(sandbox) = self.sandbox() else { return };
        self.check_running();
        if !matches!(volumes, Volumes::Ready | Volumes::Stale) {
            return;
        }
        self.start_next(&sandbox);
    }

    /// The id of the sandbox to run in; makes one if there is none.
    fn sandbox(&mut self) -> Option<String> {
        let Some(current) = self.s.observed.sandbox() else {
            self.offer(PodOp::CreateSandbox { attempt: 0 });
            return None;
        };
        if current.ready {
            return Some(current.id.clone());
        }
        let alive: Vec<&ObservedContainer> =
            self.s.observed.alive().filter(|container| container.sandbox == current.id).collect();
        if self.stop_left_behind(&alive) {
            return None;
        }
        if !alive.is_empty() || !self.s.progress.stopped.contains(&current.id) {
            let id = current.id.clone();
            self.offer(PodOp::StopSandbox { id });
        } else {
            let attempt = current.attempt.saturating_add(1);
            self.offer(PodOp::CreateSandbox { attempt });
        }
        None
    }

    /// Containers that outlive their sandbox end as gracefully as always. False when there are none; one that could not be
    /// stopped ends with the sandbox.
    fn stop_left_behind(&mut self, alive: &[&ObservedContainer]) -> bool {
        let deadline = later(self.s.now, self.s.pod.grace());
        let mut any = false;
        for found in alive {
            let slot = Slot::Container(found.name.clone());
            if !self.s.progress.failures.contains_key(&slot) {
                any = true;
                match self.s.progress.in_flight.get(&slot) {
                    Some(InFlight::Start) => self.plan.ops.push(PodOp::Cancel(slot)),
                    _ => self.stop(found, deadline, Why::SandboxLost),
                }
            }
        }
        any
    }

    /// Ends containers whose liveness or startup probe has failed, and those that are to run another image.
    fn check_running(&mut self) {
        let pod = self.s.pod;
        for (kind, container) in pod.containers() {
            let Some(found) = self.s.running(&container.name) else { continue };
            if restart::is_outdated(kind, container, found) {
                let deadline = later(self.s.now, pod.grace());
                let (id, container) = (found.id.clone(), container.name.clone());
                self.offer(PodOp::Stop { id, container, deadline, why: Why::Outdated });
                continue;
            }
            let failed = [ProbeKind::Startup, ProbeKind::Liveness]
                .into_iter()
                .find(|kind| self.s.progress.probes.get(&found.id, *kind) == Some(Verdict::Failure));
            let Some(kind) = failed else { continue };
            let probe = match kind {
                ProbeKind::Startup => container.startup_probe.as_ref(),
                _ => container.liveness_probe.as_ref(),
            };
            let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
            let grace = own.map_or(pod.grace(), |seconds| SignedDuration::from_secs(seconds.max(1)));
            let deadline = later(self.s.now, grace);
            let (id, name) = (found.id.clone(), container.name.clone());
            self.offer(PodOp::Stop { id, container: name, deadline, why: Why::Probe(kind) });
        }
    }

    /// Starts the next container, one at a time and in order.
    fn start_next(&mut self, sandbox: &str) {
        let mut free = !self.s.progress.in_flight.values().any(|running| *running == InFlight::Start);
        let initialized = self.s.initialized();
        for container in &self.s.pod.spec.init_containers {
            let kind = init_kind(container);
            let through =
                self.s.init_done(sandbox, container) || (initialized && kind == ContainerKind::Init);
            if through {
                continue;
            }
            self.bring_up(sandbox, kind, container, &mut free);
            if !initialized {
                self.start_ephemeral(sandbox, &mut free);
                return;
            }
        }
        for container in &self.s.pod.spec.containers {
            self.bring_up(sandbox, ContainerKind::App, container, &mut free);
        }
        self.start_ephemeral(sandbox, &mut free);
    }

    fn start_ephemeral(&mut self, sandbox: &str, free: &mut bool) {
        for container in &self.s.pod.spec.ephemeral_containers {
            self.bring_up(sandbox, ContainerKind::Ephemeral, container, free);
        }
    }

    /// Starts this container if it is its turn and time.
    fn bring_up(&mut self, sandbox: &str, kind: ContainerKind, container: &Container, free: &mut bool) {
        let slot = Slot::Container(container.name.clone());
        if self.s.progress.is_busy(&slot) {
            return;
        }
        let (attempt, replace) = match self.s.observed.latest(&container.name) {
            None => {
                let lost = self.s.reported_restarts(&container.name);
                let next = |before: u32| Attempt { number: before.saturating_add(1), step: 1 };
                (lost.map(next).unwrap_or_default(), None)
            }
            Some(found) => match &found.state {
                ContainerState::Running { .. } if found.sandbox == sandbox => return,
                ContainerState::Created => {
                    let same = Attempt { number: found.attempt, step: found.backoff_step };
                    (same, Some(found.id.clone()))
                }
                ContainerState::Unknown => (restart::again(found), Some(found.id.clone())),
                _ => match self.after_exit(sandbox, kind, container, found) {
                    Some(attempt) => (attempt, None),
                    None => return,
                },
            },
        };
        if let Some(failure) = self.s.progress.failures.get(&slot) {
            let (waiting, until) = waiting_after(failure, &container.image, self.s.now);
            self.plan.waiting.insert(container.name.clone(), waiting);
            if let Some(until) = until {
                self.wake_at(until);
            }
        }
        if *free {
            let (container, sandbox) = (container.name.clone(), sandbox.to_owned());
            *free = !self.offer(PodOp::Start { container, sandbox, attempt, replace });
        }
    }

    /// The attempt that is due after this end, if one is.
    fn after_exit(
        &mut self,
        sandbox: &str,
        kind: ContainerKind,
        container: &Container,
        ended: &ObservedContainer,
    ) -> Option<Attempt> {
        // Init containers run again in a new sandbox, whatever became of them in the old one.
        if ended.sandbox != sandbox && kind == ContainerKind::Init {
            return Some(restart::again(ended));
        }
        match restart::next(self.s.pod, kind, container, ended, self.s.now) {
            Next::Start(attempt) => Some(attempt),
            Next::Over => None,
            Next::Wait { until, delay, .. } => {
                self.wake_at(until);
                let message = format!(
                    "back-off {} restarting failed container={} pod={}",
                    duration(delay),
                    container.name,
                    self.s.pod.full_name()
                );
                let waiting = Waiting { reason: "CrashLoopBackOff".into(), message };
                self.plan.waiting.insert(container.name.clone(), waiting);
                None
            }
        }
    }

    // ---- a pod that ends

    fn end(&mut self, stage: Stage) {
        let progress = self.s.progress;
        self.give_up_starts();
        self.stop_containers();
        let busy = progress.in_flight.keys().any(|slot| matches!(slot, Slot::Container(_) | Slot::Sandbox));
        if busy || self.s.observed.alive().next().is_some() {
            return;
        }
        if !self.stop_sandboxes() {
            return;
        }
        if progress.volumes != Volumes::TornDown {
            self.offer(PodOp::TearDownVolumes);
            return;
        }
        match stage {
            Stage::Deleted if progress.reported => {
                self.offer(PodOp::DeletePod);
            }
            Stage::Gone => self.vanish(),
            _ => {}
        }
    }

    /// Gives up what is being started. A sandbox is waited for: one that is given up half-way may still come to be, after
    /// everybody has looked. But not for ever.
    fn give_up_starts(&mut self) {
        let patience = later(self.s.progress.ending_since.unwrap_or(self.s.now), SANDBOX_PATIENCE);
        for (slot, running) in &self.s.progress.in_flight {
            match slot {
                Slot::Container(_) if *running == InFlight::Start => {
                    self.plan.ops.push(PodOp::Cancel(slot.clone()));
                }
                Slot::Sandbox if patience <= self.s.now => self.plan.ops.push(PodOp::Cancel(slot.clone())),
                Slot::Sandbox => self.wake_at(patience),
                _ => {}
            }
        }
    }

    /// Stops what runs: first the ordinary containers, all at once; then the sidecars, last one first.
    fn stop_containers(&mut self) {
        let pod = self.s.pod;
        let deadline = later(self.s.progress.ending_since.unwrap_or(self.s.now), pod.grace());
        let is_sidecar = |found: &ObservedContainer| {
            matches!(pod.container(&found.name), Some((ContainerKind::Sidecar, _)))
        };
        let alive: Vec<&ObservedContainer> = self.s.observed.alive().collect();
        let ordinary: Vec<&ObservedContainer> =
            alive.iter().copied().filter(|found| !is_sidecar(found)).collect();
        if !ordinary.is_empty() {
            for found in ordinary {
                self.stop(found, deadline, Why::PodEnds);
            }
            return;
        }
        let last = pod
            .spec
            .init_containers
            .iter()
            .rev()
            .find_map(|c| alive.iter().find(|found| found.name == c.name));
        if let Some(found) = last {
            self.stop(found, deadline, Why::PodEnds);
        }
    }

    fn stop(&mut self, found: &ObservedContainer, deadline: Timestamp, why: Why) {
        let slot = Slot::Container(found.name.clone());
        match self.s.progress.in_flight.get(&slot) {
            // A shorter grace than the one under way: begin anew.
            Some(InFlight::Stop { deadline: old })
                if deadline < later(*old, SignedDuration::from_millis(-500)) =>
            {
                self.plan.ops.push(PodOp::Cancel(slot));
                return;
            }
            Some(_) => return,
            None => {}
        }
        let (id, container) = (found.id.clone(), found.name.clone());
        self.offer(PodOp::Stop { id, container, deadline, why });
    }

    /// Stops each sandbox once. True when all are stopped.
    fn stop_sandboxes(&mut self) -> bool {
        let mut all = true;
        for sandbox in &self.s.observed.sandboxes {
            if !self.s.progress.stopped.contains(&sandbox.id) {
                all = false;
                self.offer(PodOp::StopSandbox { id: sandbox.id.clone() });
            }
        }
        all
    }

    /// Removes the last traces of a pod that the API server has forgotten.
    fn vanish(&mut self) {
        for found in &self.s.observed.containers {
            self.offer(PodOp::Remove { id: found.id.clone() });
        }
        if self.s.observed.containers.is_empty() {
            for sandbox in &self.s.observed.sandboxes {
                self.offer(PodOp::RemoveSandbox { id: sandbox.id.clone() });
            }
        }
        if !self.s.observed.is_empty() {
            return;
        }
        if self.s.progress.cleaned {
            self.plan.done = self.s.progress.in_flight.is_empty();
        } else {
            self.offer(PodOp::CleanUp);
        }
    }

    // ---- what is left over

    /// Removes all but the two youngest containers of each name, and old sandboxes with nothing in them.
    fn remove_garbage(&mut self) {
        let observed = self.s.observed;
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for found in &observed.containers {
            let count = seen.entry(&found.name).or_default();
            *count += 1;
            if *count > 2 && found.exit().is_some() {
                self.offer(PodOp::Remove { id: found.id.clone() });
            }
        }
        for old in observed.sandboxes.iter().skip(1) {
            if old.ready || !self.s.progress.stopped.contains(&old.id) {
                self.offer(PodOp::StopSandbox { id: old.id.clone() });
            } else if observed.containers.iter().all(|found| found.sandbox != old.id) {
                self.offer(PodOp::RemoveSandbox { id: old.id.clone() });
            }
        }
    }
}

/// The words for a start that failed, and until when they hold: its own at first, those of the wait a moment later.
fn waiting_after(failure: &super::Failure, image: &str, now: Timestamp) -> (Waiting, Option<Timestamp>) {
    let own = Waiting { reason: failure.reason.clone(), message: failure.message.clone() };
    if failure.reason != "ErrImagePull" {
        return (own, None);
    }
    let until = later(failure.at, SignedDuration::from_secs(1));
    if now < until {
        return (own, Some(until));
    }
    let message = format!("Back-off pulling image \"{image}\": {}: {}", failure.reason, failure.message);
    (Waiting { reason: "ImagePullBackOff".into(), message }, None)
}

/// A duration as messages show it: `10s`, `1m20s`, `5m0s`.
pub fn duration(value: SignedDuration) -> String {
    let seconds = value.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests;
