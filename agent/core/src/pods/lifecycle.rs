//! The stages of a pod's life, derived anew each time from what is wanted and what is there.
//! Must not decide what to do about them: that is [`super::plan`]'s.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::observed::ObservedPod;
use super::probes::{Health, ProbeKind, Verdict};
use super::progress::{Progress, later};
use super::restart;
use super::spec::{Container, ContainerKind, Pod, init_kind};

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its containers are to run.
    Run,
    /// It has come to its own end: all its containers are through.
    Finished {
        /// All of them succeeded.
        succeeded: bool,
    },
    /// The API server has it as ended; that is final.
    Terminal,
    /// The node did not take it.
    Rejected,
    /// It was active for too long.
    Overdue,
    /// Somebody wants it to end.
    Deleted,
    /// The API server has forgotten it.
    Gone,
}

impl Stage {
    /// Whether containers may be started.
    pub fn runs(self) -> bool {
        self == Self::Run
    }
}

/// Everything that a decision about a pod depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// What is wanted.
    pub pod: &'a Pod,
    /// The API server has forgotten the pod.
    pub gone: bool,
    /// What is there.
    pub observed: &'a ObservedPod,
    /// What the worker knows.
    pub progress: &'a Progress,
    /// The time.
    pub now: Timestamp,
}

impl<'a> Situation<'a> {
    /// Where the pod is in its life.
    pub fn stage(&self) -> Stage {
        if self.gone {
            Stage::Gone
        } else if self.pod.is_terminating() {
            Stage::Deleted
        } else if matches!(self.pod.reported_phase(), "Succeeded" | "Failed") {
            Stage::Terminal
        } else if self.progress.rejected.is_some() {
            Stage::Rejected
        } else if self.overdue_at().is_some_and(|deadline| deadline <= self.now) {
            Stage::Overdue
        } else if let Some(succeeded) = self.finished() {
            Stage::Finished { succeeded }
        } else {
            Stage::Run
        }
    }

    /// When the pod will have been active for too long.
    pub fn overdue_at(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.active_deadline_seconds?;
        let started: Timestamp = self.pod.status["startTime"].as_str()?.parse().ok()?;
        Some(later(started, SignedDuration::from_secs(seconds)))
    }

    /// Whether the pod has come to its own end, and how. `None` while there is something left to run.
    fn finished(&self) -> Option<bool> {
        let spec = &self.pod.spec;
        if self.init_failed() {
            return Some(false);
        }
        let mut succeeded = true;
        for container in &spec.containers {
            let found = self.observed.latest(&container.name)?;
            let exit = found.exit()?;
            if restart::is_outdated(ContainerKind::App, container, found)
                || restart::restarts(self.pod, ContainerKind::App, container, exit)
            {
                return None;
            }
            succeeded &= exit.code == 0;
        }
        (!spec.containers.is_empty()).then_some(succeeded)
    }

    /// An init container has failed and is not tried again.
    pub fn init_failed(&self) -> bool {
        self.pod.spec.init_containers.iter().any(|container| {
            let exit = self.observed.latest(&container.name).and_then(|found| found.exit());
            let kind = init_kind(container);
            exit.is_some_and(|exit| exit.code != 0 && !restart::restarts(self.pod, kind, container, exit))
        })
    }

    /// All init containers are through (sidecars: started) in the sandbox that counts.
    pub fn initialized(&self) -> bool {
        let Some(sandbox) = self.observed.sandbox() else { return false };
        let app_was_made = self.pod.spec.containers.iter().any(|container| {
            self.observed.latest(&container.name).is_some_and(|found| found.sandbox == sandbox.id)
        });
        app_was_made
            || self.pod.spec.init_containers.iter().all(|container| self.init_done(&sandbox.id, container))
    }

    /// This init container is through (a sidecar: started) in this sandbox.
    pub fn init_done(&self, sandbox: &str, container: &Container) -> bool {
        let Some(found) = self.observed.latest(&container.name).filter(|found| found.sandbox == sandbox)
        else {
            return false;
        };
        match init_kind(container) {
            ContainerKind::Sidecar => self.started(container),
            _ => found.exit().is_some_and(|exit| exit.code == 0),
        }
    }

    /// The container runs, its start hook is through and its startup probe has succeeded.
    pub fn started(&self, container: &Container) -> bool {
        let Some(found) = self.running(&container.name) else { return false };
        container.startup_probe.is_none()
            || self.verdict(&found.id, ProbeKind::Startup) == Some(Verdict::Success)
    }

    /// The container is started and its readiness probe has succeeded.
    pub fn ready(&self, container: &Container) -> bool {
        let Some(found) = self.running(&container.name).filter(|_| self.started(container)) else {
            return false;
        };
        container.readiness_probe.is_none()
            || self.verdict(&found.id, ProbeKind::Readiness) == Some(Verdict::Success)
    }

    /// The running container of this name, once its start is complete.
    pub fn running(&self, name: &str) -> Option<&'a super::ObservedContainer> {
        self.observed.latest(name).filter(|found| found.is_running() && !self.progress.is_starting(name))
    }

    /// What the probe found; before the first result, what was reported of the same container. So a new agent does not
    /// take a ready container out of its Services.
    fn verdict(&self, id: &str, kind: ProbeKind) -> Option<Verdict> {
        let known = self.progress.probes.get(id, kind);
        known.or_else(|| self.reported(id, kind).then_some(Verdict::Success))
    }

    fn reported(&self, id: &str, kind: ProbeKind) -> bool {
        self.reported_health(id).is_some_and(|health| match kind {
            ProbeKind::Startup => health.started,
            ProbeKind::Readiness => health.ready,
            ProbeKind::Liveness => false,
        })
    }

    /// How often the container of this name had been started before it was reported last; `None` if none was made yet. For
    /// containers that the runtime has lost: their number does not begin anew.
    pub fn reported_restarts(&self, name: &str) -> Option<u32> {
        let lists = ["containerStatuses", "initContainerStatuses"];
        let mut entries = lists.iter().filter_map(|list| self.pod.status[*list].as_array()).flatten();
        let was_made = |id: &Value| id.as_str().is_some_and(|id| !id.is_empty());
        let entry = entries.find(|entry| entry["name"] == name && was_made(&entry["containerID"]))?;
        u32::try_from(entry["restartCount"].as_u64().unwrap_or(0)).ok()
    }

    /// What the API server was told of the container with this id of the runtime.
    pub fn reported_health(&self, id: &str) -> Option<Health> {
        let lists = ["containerStatuses", "initContainerStatuses"];
        let mut entries = lists.iter().filter_map(|list| self.pod.status[*list].as_array()).flatten();
        let same = |entry: &&Value| {
            entry["containerID"].as_str().and_then(|full| full.rsplit("//").next()) == Some(id)
        };
        let entry = entries.find(same)?;
        let is = |field: &str| entry[field].as_bool() == Some(true);
        Some(Health { started: is("started"), ready: is("ready"), failed: None })
    }
}
