//! Makes the probes of running containers when they are due and keeps what they have come to. One task for all probes; it
//! sleeps until the next is due. It must not act on a verdict: the pod's worker does.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use pagurus_agent_core::names::PodUid;
use pagurus_agent_core::pods::probes::{self, Health, Outcome, ProbeKind, ProbeResults, Probes};
use pagurus_agent_core::pods::{ContainerKind, Pod};
use pagurus_cri_api::Runtime;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::NodeContext;
use crate::process::metrics::Metrics;
use crate::report::events::Recorder;

mod attempt;
mod grpc;
mod http;
mod tls;

pub use attempt::{Target, http_get};

/// Probes due within this time of each other are made at one waking.
const SLACK: SignedDuration = SignedDuration::from_millis(50);
/// A command in a container costs the runtime some 20 ms of CPU; more than these at once only make each other late.
const EXECS_AT_ONCE: usize = 8;

/// A container that runs, as the pod's worker saw it.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its name in the pod's spec.
    pub name: String,
    /// The runtime's id.
    pub id: String,
    /// Since when.
    pub started: Timestamp,
    /// What was reported of this very container (id) before this agent saw it first.
    pub before: Option<Health>,
}

/// The probes of this node. Cheap to clone.
#[derive(Clone)]
pub struct Prober {
    shared: Arc<Shared>,
}

struct Shared {
    pods: Mutex<HashMap<PodUid, ProbedPod>>,
    changed: Notify,
    runtime: Arc<dyn Runtime>,
    events: Recorder,
    on_verdict: Box<dyn Fn(&PodUid) + Send + Sync>,
    clock: Clock,
    execs: Semaphore,
    attempts: Family<AttemptLabels, Counter>,
}

struct ProbedPod {
    pod: Arc<Pod>,
    ip: Option<IpAddr>,
    containers: BTreeMap<String, ProbedContainer>,
}

struct ProbedContainer {
    name: String,
    started: Timestamp,
    probes: Probes,
    due: BTreeMap<ProbeKind, Due>,
}

/// When a probe is made next.
#[derive(Clone, Copy)]
enum Due {
    At(Timestamp),
    /// An attempt that was due then is under way.
    UnderWay(Timestamp),
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    probe_type: &'static str,
    result: &'static str,
}

/// The time of day at the start plus what has passed since: a clock that is set does not disturb the periods.
struct Clock {
    wall: Timestamp,
    start: tokio::time::Instant,
}

impl Clock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.start.elapsed()).unwrap_or(SignedDuration::MAX);
        self.wall.checked_add(passed).unwrap_or(Timestamp::MAX)
    }
}

/// An attempt that was made.
struct Attempted {
    pod: PodUid,
    container_id: String,
    kind: ProbeKind,
    outcome: Outcome,
    message: String,
}

impl Prober {
    /// `on_verdict` is called when a verdict on a container of this pod has changed; it must not block.
    pub fn new(context: &NodeContext, on_verdict: impl Fn(&PodUid) + Send + Sync + 'static) -> Self {
        Self::with(context.runtime.clone(), context.events.clone(), &context.metrics, on_verdict)
    }

    fn with(
        runtime: Arc<dyn Runtime>,
        events: Recorder,
        metrics: &Metrics,
        on_verdict: impl Fn(&PodUid) + Send + Sync + 'static,
    ) -> Self {
        let attempts = Family::<AttemptLabels, Counter>::default();
        metrics.register_unprefixed(|registry| {
            registry.register("prober_probe", "Attempts of probes by type and result", attempts.clone());
        });
        let shared = Shared {
            pods: Mutex::default(),
            changed: Notify::new(),
            runtime,
            events,
            on_verdict: Box::new(on_verdict),
            clock: Clock { wall: Timestamp::now(), start: tokio::time::Instant::now() },
            execs: Semaphore::new(EXECS_AT_ONCE),
            attempts,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Says which containers of a pod run and are to be probed; those not named any more are forgotten. Call it with
    /// every observation: saying the same again changes nothing.
    pub fn set(&self, pod: &Arc<Pod>, ip: Option<IpAddr>, running: Vec<Running>) {
        let now = self.shared.clock.now();
        let mut pods = self.shared.pods.lock();
        let probed = running.into_iter().filter(|running| {
            pod.container(&running.name)
                .is_some_and(|(_, c)| ProbeKind::ALL.iter().any(|kind| kind.of(c).is_some()))
        });
        let mut probed = probed.peekable();
        if probed.peek().is_none() {
            pods.remove(&pod.uid);
            return;
        }
        let entry = pods.entry(pod.uid.clone()).or_insert_with(|| ProbedPod {
            pod: pod.clone(),
            ip,
            containers: BTreeMap::new(),
        });
        (entry.pod, entry.ip) = (pod.clone(), ip);
        let mut before = std::mem::take(&mut entry.containers);
        let mut is_new = false;
        for running in probed {
            let known = before.remove(&running.id);
            is_new |= known.is_none();
            let container = known.unwrap_or_else(|| ProbedContainer::new(pod, &running, now));
            entry.containers.insert(running.id, container);
        }
        drop(pods);
        if is_new {
            self.shared.changed.notify_one();
        }
    }

    /// Forgets a pod.
    pub fn forget(&self, pod: &PodUid) {
        self.shared.pods.lock().remove(pod);
    }

    /// The verdicts on the containers of a pod. What was said of a container before this agent holds until a probe says
    /// otherwise.
    pub fn results(&self, pod: &PodUid) -> ProbeResults {
        let mut results = ProbeResults::default();
        if let Some(pod) = self.shared.pods.lock().get(pod) {
            for (id, container) in &pod.containers {
                for kind in ProbeKind::ALL {
                    if let Some(verdict) = container.probes.verdict(kind) {
                        results.set(id, kind, verdict);
                    }
                }
            }
        }
        results
    }

    /// Makes the probes until cancelled.
    pub async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        let mut attempts = JoinSet::new();
        loop {
            let next = self.start_due(&mut attempts);
            let sleep = next.map(|due| {
                let wait = due.duration_since(self.shared.clock.now());
                tokio::time::sleep(Duration::try_from(wait).unwrap_or_default())
            });
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = self.shared.changed.notified() => {}
                Some(attempted) = attempts.join_next() => self.record(attempted?),
                () = async { match sleep { Some(sleep) => sleep.await, None => std::future::pending().await } } => {}
            }
        }
    }

    /// Starts what is due and says when the next is.
    fn start_due(&self, attempts: &mut JoinSet<Attempted>) -> Option<Timestamp> {
        let now = self.shared.clock.now();
        let horizon = now.checked_add(SLACK).unwrap_or(now);
        let mut next: Option<Timestamp> = None;
        for (uid, pod) in self.shared.pods.lock().iter_mut() {
            for (id, container) in &mut pod.containers {
                container.schedule(&pod.pod, now);
                for (kind, due) in &mut container.due {
                    let Due::At(at) = *due else { continue };
                    if at > horizon {
                        next = Some(next.map_or(at, |next| next.min(at)));
                        continue;
                    }
                    *due = Due::UnderWay(at);
                    let target = Target {
                        pod: pod.pod.clone(),
                        ip: pod.ip,
                        name: container.name.clone(),
                        id: id.clone(),
                    };
                    attempts.spawn(self.shared.clone().attempt(uid.clone(), target, *kind));
                }
            }
        }
        next
    }

    /// Takes in how an attempt went, and tells the worker if a verdict changed by it.
    fn record(&self, attempted: Attempted) {
        let Attempted { pod: uid, container_id, kind, outcome, message } = attempted;
        let mut pods = self.shared.pods.lock();
        let Some(pod) = pods.get_mut(&uid) else { return };
        let Some(container) = pod.containers.get_mut(&container_id) else { return };
        let Some(probe) = pod.pod.container(&container.name).and_then(|(_, spec)| kind.of(spec)) else {
            return;
        };
        if let Some(Due::UnderWay(at)) = container.due.get(&kind).copied() {
            container.due.insert(kind, Due::At(probes::next_due(probe, at, self.shared.clock.now())));
        }
        let wanted = container.probes.wants(kind);
        let before = container.probes.health();
        container.probes.record(kind, outcome);
        let changed = container.probes.health() != before;
        let about = reference(&pod.pod, &container.name);
        let (namespace, name) = (pod.pod.name.namespace.clone(), pod.pod.name.name.clone());
        let container_name = container.name.clone();
        drop(pods);
        if !wanted {
            return;
        }
        let verb = match outcome {
            Outcome::Success => None,
            Outcome::Failure => Some("failed"),
            Outcome::Error => Some("errored"),
        };
        if let Some(verb) = verb {
            let text = format!("{} probe {verb}: {message}", kind.as_str());
            tracing::debug!(namespace, pod = name, container = container_name, "{text}");
            self.shared.events.warning(&about, "Unhealthy", text);
        }
        if changed {
            (self.shared.on_verdict)(&uid);
        }
    }
}

impl Shared {
    async fn attempt(self: Arc<Self>, pod: PodUid, target: Target, kind: ProbeKind) -> Attempted {
        let probe = target.container().and_then(|container| kind.of(container)).cloned();
        let (outcome, message) = match &probe {
            Some(probe) => attempt::attempt(&*self.runtime, &self.execs, &target, probe).await,
            None => (Outcome::Error, "the container has no such probe any more".to_owned()),
        };
        let result = match outcome {
            Outcome::Success => "successful",
            Outcome::Failure => "failed",
            Outcome::Error => "unknown",
        };
        self.attempts.get_or_create(&AttemptLabels { probe_type: kind.as_str(), result }).inc();
        Attempted { pod, container_id: target.id, kind, outcome, message }
    }
}

impl ProbedContainer {
    fn new(pod: &Pod, running: &Running, now: Timestamp) -> Self {
        let container =
            pod.container(&running.name).map(|(_, container)| container.clone()).unwrap_or_default();
        let mut this = Self {
            name: running.name.clone(),
            started: running.started,
            probes: Probes::new(&container, running.before),
            due: BTreeMap::new(),
        };
        this.schedule(pod, now);
        this
    }

    /// Gives every probe that is wanted and has no time a time, and drops those not wanted.
    fn schedule(&mut self, pod: &Pod, now: Timestamp) {
        let Some((_, container)) = pod.container(&self.name) else { return };
        for kind in ProbeKind::ALL {
            // A pod that is ending is not restarted; it may still say whether it serves.
            let pointless = pod.is_terminating() && kind != ProbeKind::Readiness;
            match kind.of(container).filter(|_| !pointless && self.probes.wants(kind)) {
                Some(probe) => {
                    let started = self.started;
                    self.due.entry(kind).or_insert_with(|| Due::At(probes::first_due(probe, started, now)));
                }
                None => {
                    self.due.remove(&kind);
                }
            }
        }
    }
}

fn reference(pod: &Pod, container: &str) -> ObjectReference {
    let list = match pod.container(container).map(|(kind, _)| kind) {
        Some(ContainerKind::Init | ContainerKind::Sidecar) => "initContainers",
        Some(ContainerKind::Ephemeral) => "ephemeralContainers",
        Some(ContainerKind::App) | None => "containers",
    };
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.name.namespace.clone()),
        name: Some(pod.name.name.clone()),
        uid: Some(pod.uid.0.clone()),
        resource_version: Some(pod.resource_version.clone()).filter(|version| !version.is_empty()),
        field_path: Some(format!("spec.{list}{{{container}}}")),
    }
}

#[cfg(test)]
mod tests;
