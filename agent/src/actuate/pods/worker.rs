//! The worker of one pod: observe, plan, start what the plan says, report, wait; again. Operations run side by side inside
//! the worker's own task, at most one per slot, and their ends wake it. It keeps no memory that matters.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use pagurus_agent_core::names::PodUid;
use pagurus_agent_core::pods::lifecycle::{Situation, Stage};
use pagurus_agent_core::pods::plan::Waiting;
use pagurus_agent_core::pods::progress::{InFlight, Volumes};
use pagurus_agent_core::pods::status::{self, NodeFacts};
use pagurus_agent_core::pods::{Failure, ObservedPod, Plan, PodOp, Progress, Slot, plan};
use pagurus_agent_core::volumes::needs;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::operations::{self, Effect, Job, Outcome};
use super::{Desired, Host, placement};
use crate::actuate::probes::Running;
use crate::observe::pods::PodView;

/// How long to wait before looking at a runtime again that did not answer.
const BLIND: SignedDuration = SignedDuration::from_secs(1);
/// How long to wait before telling the API server again what it did not take.
const RETRY_REPORT: (SignedDuration, SignedDuration) =
    (SignedDuration::from_millis(200), SignedDuration::from_secs(10));

/// How long a worker that panicked rests.
const AFTER_PANIC: Duration = Duration::from_secs(10);

type Operation = BoxFuture<'static, (Slot, u64, Outcome)>;

struct Worker {
    host: Arc<Host>,
    desired: Desired,
    observed: ObservedPod,
    /// The runtime may have changed since `observed`.
    dirty: bool,
    /// The last look at the runtime failed; said once.
    blind: bool,
    progress: Progress,
    operations: FuturesUnordered<Operation>,
    /// How to give up what is under way, by slot. The number tells an operation from its successor.
    running: BTreeMap<Slot, (u64, CancellationToken)>,
    counter: u64,
    /// What was said about waiting containers, so that it is said once.
    told: BTreeMap<String, Waiting>,
    tokens: operations::TokenCache,
    /// Containers whose preStop hook has been run: a stop that begins anew does not run it again.
    hooked: BTreeSet<String>,
    /// The content of volumes changed since the operation that writes it began.
    volumes_outdated: bool,
    /// Which state of the objects it refers to the pod has seen.
    objects_seen: u64,
    /// When a pod was first seen that is yet to run.
    starting: Option<Instant>,
    facts: NodeFacts,
}

/// Works for one pod until nothing of it is left and nobody wants it. A worker that panics is a mistake of ours that must
/// not take the other pods down with it: it starts anew after a while, from what is there.
pub(super) async fn work(
    host: Arc<Host>,
    desired: watch::Receiver<Desired>,
    wake: Arc<Notify>,
    cancel: CancellationToken,
) -> PodUid {
    loop {
        let attempt = work_once(host.clone(), desired.clone(), wake.clone(), cancel.clone());
        match AssertUnwindSafe(attempt).catch_unwind().await {
            Ok(uid) => return uid,
            Err(_) => {
                tracing::error!("the pod's worker panicked; it starts anew in {} s", AFTER_PANIC.as_secs())
            }
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(AFTER_PANIC) => {}
        }
    }
}

async fn work_once(
    host: Arc<Host>,
    mut desired: watch::Receiver<Desired>,
    wake: Arc<Notify>,
    cancel: CancellationToken,
) -> PodUid {
    let first = desired.borrow_and_update().clone();
    let uid = first.pod.uid.clone();
    let facts = NodeFacts { host_ips: host.host_ips.clone(), runtime: host.runtime_name.clone() };
    let misplaced = tokio::select! {
        misplaced = placement::rejection(&host, &first) => misplaced,
        () = cancel.cancelled() => return uid,
    };
    let first_rejection = first.rejected.clone().or(misplaced);
    let is_new = matches!(first.pod.reported_phase(), "" | "Pending");
    let mut worker = Worker {
        host,
        desired: first,
        observed: ObservedPod::default(),
        dirty: true,
        blind: false,
        progress: Progress { rejected: first_rejection, ..Progress::default() },
        operations: FuturesUnordered::new(),
        running: BTreeMap::new(),
        counter: 0,
        told: BTreeMap::new(),
        tokens: operations::TokenCache::default(),
        hooked: BTreeSet::new(),
        volumes_outdated: false,
        objects_seen: 0,
        starting: is_new.then(Instant::now),
        facts,
    };
    worker.claim();
    loop {
        let Some(pause) = worker.step().await else { break };
        tokio::select! {
            () = cancel.cancelled() => return uid,
            () = wake.notified() => worker.dirty = true,
            changed = desired.changed() => {
                if changed.is_err() {
                    return uid;
                }
                let next = desired.borrow_and_update().clone();
                worker.want(next);
            }
            Some((slot, number, outcome)) = worker.operations.next() => worker.finish(slot, number, outcome),
            () = tokio::time::sleep(pause) => {}
        }
    }
    worker.leave();
    uid
}

impl Worker {
    /// Looks, plans, starts and reports. Answers how long to wait for the next look; `None` at the end.
    async fn step(&mut self) -> Option<Duration> {
        if self.dirty {
            match self.host.observer.observe(&self.desired.pod.uid).await {
                Ok(observed) => {
                    self.observed = observed;
                    (self.dirty, self.blind) = (false, false);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.blind, true) {
                        tracing::warn!(%error, "cannot look at the pod in the runtime; trying again");
                    }
                    return Some(Duration::try_from(BLIND).unwrap_or_default());
                }
            }
        }
        self.progress.probes = self.host.probes.results(&self.desired.pod.uid);
        let now = Timestamp::now();
        self.note_end(now);
        self.note_changed_content(now);
        let (mut next, wanted) = self.decide(now);
        if next.done {
            return None;
        }
        let mut wake = [next.wake, self.tokens.due()].into_iter().flatten().min();
        self.tell(&next);
        for op in std::mem::take(&mut next.ops) {
            self.start(op);
        }
        self.measure(&wanted);
        self.publish(&wanted);
        self.report(wanted, &mut wake);
        let pause = wake.map_or(SignedDuration::from_secs(60), |wake| wake.duration_since(now));
        // A little more, so that the time has surely come.
        let pause = pause.max(SignedDuration::ZERO) + SignedDuration::from_millis(1);
        Some(Duration::try_from(pause).unwrap_or_default())
    }

    fn situation(&self, now: Timestamp) -> Situation<'_> {
        let Desired { pod, gone, .. } = &self.desired;
        Situation { pod, gone: *gone, observed: &self.observed, progress: &self.progress, now }
    }

    /// The plan, and the status that goes with it.
    fn decide(&mut self, now: Timestamp) -> (Plan, Value) {
        // The plan of an ending pod depends on whether its status is known to the API server, and the status on the plan.
        let mut next = plan(&self.situation(now));
        let mut wanted = status::status(&self.situation(now), &next.waiting, &self.facts);
        let reported = status::patch(&self.desired.pod.status, &wanted).is_none();
        if reported != self.progress.reported {
            self.progress.reported = reported;
            next = plan(&self.situation(now));
            wanted = status::status(&self.situation(now), &next.waiting, &self.facts);
        }
        (next, wanted)
    }

    /// Notes when the pod's end began; what failed before that does not hold it up.
    fn note_end(&mut self, now: Timestamp) {
        let ends = !matches!(self.situation(now).stage(), Stage::Run);
        if ends && self.progress.ending_since.is_none() {
            self.progress.ending_since = Some(now);
            self.progress.failures.clear();
        }
    }

    /// Notes that objects that the pod refers to have changed, or that a token is to be renewed.
    fn note_changed_content(&mut self, now: Timestamp) {
        let changes = self.host.objects.changes(&self.desired.pod.uid);
        if changes != self.objects_seen {
            self.objects_seen = changes;
            // What failed for want of them is worth another try at once.
            self.progress.failures.retain(|slot, failure| {
                !(*slot == Slot::Volumes || failure.reason == operations::CONFIG_ERROR)
            });
            self.outdate_volumes();
        }
        if self.tokens.due().is_some_and(|due| due <= now) {
            self.tokens.clear_due();
            self.outdate_volumes();
        }
    }

    fn outdate_volumes(&mut self) {
        self.volumes_outdated = true;
        if self.progress.volumes == Volumes::Ready {
            self.progress.volumes = Volumes::Stale;
        }
    }

    /// Says which containers wait because they keep failing, once each.
    fn tell(&mut self, next: &Plan) {
        for (container, waiting) in &next.waiting {
            let is_back_off = matches!(waiting.reason.as_str(), "CrashLoopBackOff" | "ImagePullBackOff");
            if is_back_off && self.told.get(container) != Some(waiting) {
                operations::tell_back_off(&self.host, &self.desired.pod, container, waiting);
            }
        }
        self.told.clone_from(&next.waiting);
    }

    fn start(&mut self, op: PodOp) {
        let slot = op.slot();
        if let PodOp::Cancel(slot) = &op {
            if let Some((_, cancel)) = self.running.get(slot) {
                cancel.cancel();
            }
            return;
        }
        let kind = match &op {
            PodOp::Start { .. } => InFlight::Start,
            PodOp::Stop { deadline, .. } => InFlight::Stop { deadline: *deadline },
            _ => InFlight::Other,
        };
        if op == PodOp::PrepareVolumes {
            self.volumes_outdated = false;
        }
        tracing::debug!(?op, "begins");
        let job = Job {
            host: self.host.clone(),
            pod: self.desired.pod.clone(),
            observed: self.observed.clone(),
            tokens: self.tokens.clone(),
            runs_hook: match &op {
                PodOp::Stop { id, .. } => self.hooked.insert(id.clone()),
                _ => true,
            },
        };
        self.spawn(slot, kind, |cancel| Box::pin(operations::run(job, op, cancel)));
    }

    fn spawn(
        &mut self,
        slot: Slot,
        kind: InFlight,
        make: impl FnOnce(CancellationToken) -> BoxFuture<'static, Outcome>,
    ) {
        self.counter += 1;
        let number = self.counter;
        let cancel = CancellationToken::new();
        let work = make(cancel.clone());
        self.progress.in_flight.insert(slot.clone(), kind);
        self.running.insert(slot.clone(), (number, cancel));
        self.operations.push(Box::pin(async move { (slot, number, work.await) }));
    }

    /// Takes in how an operation ended.
    fn finish(&mut self, slot: Slot, number: u64, outcome: Outcome) {
        if self.running.get(&slot).is_none_or(|(current, _)| *current != number) {
            return;
        }
        self.running.remove(&slot);
        self.progress.in_flight.remove(&slot);
        // The volumes and the API are not the runtime's.
        self.dirty |= !matches!(slot, Slot::Volumes | Slot::Api);
        let now = Timestamp::now();
        match outcome {
            Outcome::Done(effect) => {
                self.progress.failures.remove(&slot);
                self.apply(effect);
            }
            Outcome::Failed { reason, message, limits } => {
                tracing::warn!(?slot, reason, "{message}");
                let before = self.progress.failures.get(&slot);
                let failure = Failure::after(before, reason, message, now, limits);
                self.progress.failures.insert(slot, failure);
            }
            Outcome::Cancelled => {}
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::VolumesReady => {
                // What changed while they were made is not in them yet.
                self.progress.volumes = if self.volumes_outdated { Volumes::Stale } else { Volumes::Ready };
            }
            Effect::TornDown => self.progress.volumes = Volumes::TornDown,
            Effect::CleanedUp => {
                self.progress.volumes = Volumes::TornDown;
                self.progress.cleaned = true;
            }
            Effect::SandboxStopped(id) => {
                self.progress.stopped.insert(id);
            }
            Effect::Reported(pod) => {
                self.want(Desired { pod: Arc::new(*pod), gone: false, listed: false, rejected: None })
            }
            Effect::ApiForgot => self.desired.gone = true,
        }
    }

    /// Says to those who serve and probe how the pod is.
    fn publish(&self, wanted: &Value) {
        let now = Timestamp::now();
        let situation = self.situation(now);
        let ips = status::pod_ips(&situation, &self.facts.host_ips);
        let pod = &self.desired.pod;
        let running = pod.containers().filter_map(|(_, container)| {
            let found = situation.running(&container.name)?;
            let pagurus_agent_core::pods::ContainerState::Running { started } = found.state else {
                return None;
            };
            let before = situation.reported_health(&found.id);
            Some(Running { name: container.name.clone(), id: found.id.clone(), started, before })
        });
        self.host.probes.set(pod, ips.first().copied(), running.collect());
        self.host.table.put(PodView {
            pod: pod.clone(),
            observed: self.observed.clone(),
            ips,
            status: wanted.clone(),
            pending: self.pending(),
        });
    }

    /// What is under way or waited out, for those who look for what holds a pod up.
    fn pending(&self) -> Value {
        let Progress { in_flight, failures, .. } = &self.progress;
        let under_way =
            in_flight.iter().map(|(slot, what)| (format!("{slot:?}"), format!("{what:?}").into()));
        let failed = failures.iter().map(|(slot, failure)| {
            let Failure { reason, message, retry, count, .. } = failure;
            let text = format!("{reason} ({count} times, again at {retry}): {message}");
            (format!("{slot:?} failed"), text.into())
        });
        Value::Object(under_way.chain(failed).collect())
    }

    /// Measures the start of a pod that was not running when it was first seen.
    fn measure(&mut self, wanted: &Value) {
        let Some(since) = self.starting else { return };
        if wanted["phase"] != "Pending" {
            self.starting = None;
            if wanted["phase"] == "Running" {
                self.host.insight.start.observe(since.elapsed().as_secs_f64());
            }
        }
    }

    /// Tells the API server what it does not know yet.
    fn report(&mut self, wanted: Value, wake: &mut Option<Timestamp>) {
        if self.desired.gone || self.progress.is_busy(&Slot::Api) {
            return;
        }
        let Some(patch) = status::patch(&self.desired.pod.status, &wanted) else { return };
        if let Some(failure) = self.progress.waiting(&Slot::Api, Timestamp::now()) {
            *wake = Some(wake.map_or(failure.retry, |wake| wake.min(failure.retry)));
            return;
        }
        let (host, pod) = (self.host.clone(), self.desired.pod.clone());
        self.spawn(Slot::Api, InFlight::Other, |_| {
            Box::pin(operations::report(host, pod, patch, RETRY_REPORT))
        });
    }

    /// Takes in what is wanted now.
    fn want(&mut self, next: Desired) {
        let old = &self.desired.pod;
        let holds = next.gone || next.listed || is_newer(&next.pod.resource_version, &old.resource_version);
        if !holds {
            return;
        }
        if !next.gone {
            operations::tell_resize(&self.host, old, &next.pod);
        }
        if old.labels != next.pod.labels || old.annotations != next.pod.annotations {
            self.outdate_volumes();
        }
        self.desired =
            Desired { pod: next.pod, gone: next.gone || self.desired.gone, listed: false, rejected: None };
        self.claim();
    }

    /// Says which objects the pod needs.
    fn claim(&self) {
        let Desired { pod, gone, .. } = &self.desired;
        let needs = if *gone { Default::default() } else { needs::needs(pod) };
        self.host.objects.claim(&pod.uid, &pod.name.namespace, needs);
    }

    /// Nothing is left: takes the pod out of all tables.
    fn leave(&self) {
        let pod = &self.desired.pod;
        self.host.objects.claim(&pod.uid, &pod.name.namespace, Default::default());
        self.host.probes.forget(&pod.uid);
        self.host.table.remove(&pod.uid);
        tracing::debug!("nothing is left of the pod");
    }
}

/// Whether this revision is later. What cannot be compared counts as later.
fn is_newer(revision: &str, than: &str) -> bool {
    match (revision.parse::<u64>(), than.parse::<u64>()) {
        (Ok(revision), Ok(than)) => revision > than,
        _ => true,
    }
}
