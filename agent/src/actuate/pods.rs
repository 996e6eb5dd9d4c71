//! Runs this node's pods: one worker per pod, woken by the API server, the runtime, probes and time.
//! This file starts and feeds the workers; what a pod needs is decided in `agent/core`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use pagurus_agent_core::names::PodUid;
use pagurus_agent_core::pods::admit::{Rejection, admit};
use pagurus_agent_core::pods::network::ClusterDns;
use pagurus_agent_core::pods::probes::ProbeResults;
use pagurus_agent_core::pods::{ObservedPod, Pod};
use pagurus_controlplane_api::quantity::Quantity;
use pagurus_cri_api::Runtime;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::actuate::cgroups;
use crate::actuate::probes::Running;
use crate::actuate::volumes::PodDirs;
use crate::index::objects::ObjectSource;
use crate::index::pods::PodEvent;
use crate::index::service_links::ServiceLinks;
use crate::observe::containers::Observer;
use crate::observe::pods::PodTable;
use crate::report::events::Recorder;
use crate::report::pod_status::PodApi;

mod container_config;
mod hooks;
mod image;
mod insight;
mod operations;
mod placement;
mod sandbox;
mod start;
mod wiring;
mod worker;

pub use insight::Insight;
pub use wiring::run_node;

/// The probes, as workers use them.
pub trait ProbeSource: Send + Sync + 'static {
    /// Says which containers of a pod run.
    fn set(&self, pod: &Arc<Pod>, ip: Option<IpAddr>, running: Vec<Running>);
    /// What the probes of a pod have found.
    fn results(&self, pod: &PodUid) -> ProbeResults;
    /// Forgets a pod.
    fn forget(&self, pod: &PodUid);
}

/// Everything that workers share.
pub struct Host {
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// Its name, such as `containerd`.
    pub runtime_name: String,
    /// What it has.
    pub observer: Observer,
    /// The API server.
    pub api: Arc<dyn PodApi>,
    /// Config maps and secrets.
    pub objects: Arc<dyn ObjectSource>,
    /// Services.
    pub links: ServiceLinks,
    /// Probes.
    pub probes: Arc<dyn ProbeSource>,
    /// Events.
    pub events: Recorder,
    /// Where workers say what they saw.
    pub table: PodTable,
    /// What is measured.
    pub insight: Insight,
    /// Where pods have their files.
    pub dirs: PodDirs,
    /// Addresses of the node.
    pub host_ips: Vec<IpAddr>,
    /// The cluster's DNS as it was given.
    pub cluster_dns: ClusterDns,
    /// This node answers the questions itself, so that no pods have to.
    pub serves_dns: bool,
    /// The node's own DNS configuration.
    pub resolv_conf: PathBuf,
    /// Each pod has a cgroup of its own, below one for its quality of service; otherwise the runtime decides.
    pub cgroups_per_qos: bool,
    /// Memory of the node, in bytes.
    pub memory: i64,
    /// What the node can give to pods.
    pub allocatable: BTreeMap<String, Quantity>,
}

impl Host {
    /// The cluster's DNS as it is now: what was given, or else where its Service is, if somebody answers there.
    fn dns(&self) -> ClusterDns {
        let mut dns = self.cluster_dns.clone();
        if dns.servers.is_empty() {
            let service = self.links.dns().filter(|service| self.serves_dns || service.has_selector);
            dns.servers = service.map(|service| service.ips).unwrap_or_default();
        }
        dns
    }
}

/// How soon changes of the runtime are noticed when nothing tells of them.
#[derive(Clone, Copy, Debug)]
struct Pace {
    busy: Duration,
    idle: Duration,
    /// How long after a change it stays busy.
    calm: Duration,
}

const PACE: Pace =
    Pace { busy: Duration::from_millis(200), idle: Duration::from_secs(1), calm: Duration::from_secs(10) };

/// What wakes pods: everything that is not an event of their API object.
#[derive(Clone)]
pub struct Waker(mpsc::Sender<PodUid>);

/// The other end of a [`Waker`].
pub struct Wakeups(mpsc::Receiver<PodUid>);

/// A way to wake pods, and where it arrives.
pub fn wakeups() -> (Waker, Wakeups) {
    let (send, receive) = mpsc::channel(1024);
    (Waker(send), Wakeups(receive))
}

impl Waker {
    /// Has the pod's worker look again. Never blocks; when the queue is full, the next look at the runtime finds what
    /// was missed.
    pub fn wake(&self, pod: &PodUid) {
        if self.0.try_send(pod.clone()).is_err() {
            tracing::debug!(%pod, "the queue of wake-ups is full");
        }
    }
}

/// What a worker is told.
#[derive(Clone, Debug)]
struct Desired {
    pod: Arc<Pod>,
    gone: bool,
    /// From a list of all pods: holds even if its revision is an older one, as after a restored backup.
    listed: bool,
    /// The node does not take it.
    rejected: Option<Rejection>,
}

struct WorkerHandle {
    desired: watch::Sender<Desired>,
    wake: Arc<Notify>,
}

struct Manager {
    host: Arc<Host>,
    workers: HashMap<PodUid, WorkerHandle>,
    tasks: JoinSet<PodUid>,
    /// The pods named since the watch began anew; `None` once it is complete.
    listing: Option<HashSet<PodUid>>,
    complete: bool,
    /// The last list of the runtime failed; said once.
    blind: bool,
    cancel: CancellationToken,
}

/// Runs the pods that `events` names until cancelled. Containers keep running after that.
pub async fn run(
    host: Arc<Host>,
    events: impl futures::Stream<Item = PodEvent> + Send,
    mut wakeups: Wakeups,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut manager = Manager {
        host,
        workers: HashMap::new(),
        tasks: JoinSet::new(),
        listing: None,
        complete: false,
        blind: false,
        cancel: cancel.clone(),
    };
    let mut events = std::pin::pin!(events);
    let mut relist = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut last_change = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            event = events.next() => match event {
                Some(event) => manager.take(event).await,
                None => anyhow::bail!("the watch of this node's pods ended"),
            },
            Some(uid) = wakeups.0.recv() => manager.wake(&uid),
            Some(ended) = manager.tasks.join_next() => manager.ended(ended)?,
            () = &mut relist => {
                if manager.relist().await {
                    last_change = tokio::time::Instant::now();
                }
                let busy = last_change.elapsed() < PACE.calm;
                let pause = if busy { PACE.busy } else { PACE.idle };
                relist.as_mut().reset(tokio::time::Instant::now() + pause);
            }
        }
    }
    while manager.tasks.join_next().await.is_some() {}
    Ok(())
}

impl Manager {
    async fn take(&mut self, event: PodEvent) {
        match event {
            PodEvent::Reset => self.listing = Some(HashSet::new()),
            PodEvent::Is(pod) => {
                let listed = self.listing.is_some();
                if let Some(listing) = &mut self.listing {
                    listing.insert(pod.uid.clone());
                }
                self.tell(Desired { pod: Arc::new(*pod), gone: false, listed, rejected: None });
            }
            PodEvent::Gone(pod) => {
                if self.workers.contains_key(&pod.uid) {
                    self.tell(Desired { pod: Arc::new(*pod), gone: true, listed: false, rejected: None });
                }
            }
            PodEvent::Complete => {
                let listed = self.listing.take().unwrap_or_default();
                for (uid, worker) in &self.workers {
                    if !listed.contains(uid) {
                        worker.desired.send_modify(|desired| desired.gone = true);
                    }
                }
                self.complete = true;
                self.find_orphans_on_disk().await;
                self.relist().await;
            }
        }
    }

    fn tell(&mut self, desired: Desired) {
        match self.workers.get(&desired.pod.uid) {
            Some(worker) => {
                worker.desired.send_replace(desired);
            }
            None => self.begin(desired),
        }
    }

    fn begin(&mut self, mut desired: Desired) {
        desired.rejected = self.reject(&desired);
        let uid = desired.pod.uid.clone();
        let span = tracing::info_span!("pod", name = %desired.pod.name, %uid);
        let (send, receive) = watch::channel(desired);
        let wake = Arc::new(Notify::new());
        let work = worker::work(self.host.clone(), receive, wake.clone(), self.cancel.clone());
        self.tasks.spawn(work.instrument(span));
        self.workers.insert(uid, WorkerHandle { desired: send, wake });
    }

    /// Why the node does not take this pod, which it has not seen before. One that it took already stays taken.
    fn reject(&self, desired: &Desired) -> Option<Rejection> {
        let pod = &desired.pod;
        if desired.gone || pod.is_terminating() || pod.status["startTime"].is_string() {
            return None;
        }
        let ended = |pod: &Pod| {
            let status = self.host.table.get(&pod.uid).map(|view| view.status["phase"].clone());
            let phase = status.as_ref().and_then(|phase| phase.as_str()).unwrap_or(pod.reported_phase());
            matches!(phase, "Succeeded" | "Failed")
        };
        let others: Vec<Arc<Pod>> =
            self.workers.values().map(|worker| worker.desired.borrow().pod.clone()).collect();
        let others = others.iter().map(|other| &**other).filter(|other| !ended(other));
        let rejection = admit(pod, others, &self.host.allocatable)?;
        tracing::info!(pod = %pod.name, reason = rejection.reason, "the node does not take the pod");
        self.host.events.warning(&operations::about(pod), &rejection.reason, rejection.message.clone());
        Some(rejection)
    }

    fn wake(&self, uid: &PodUid) {
        if let Some(worker) = self.workers.get(uid) {
            worker.wake.notify_one();
        }
    }

    fn ended(&mut self, ended: Result<PodUid, tokio::task::JoinError>) -> anyhow::Result<()> {
        let uid = ended.map_err(|error| anyhow::anyhow!("the worker of a pod panicked: {error}"))?;
        if !self.cancel.is_cancelled() {
            self.workers.remove(&uid);
        }
        Ok(())
    }

    /// Wakes the workers of pods that changed in the runtime; begins workers for those that nobody wants any more.
    async fn relist(&mut self) -> bool {
        let changed = match self.host.observer.changed_pods().await {
            Ok(changed) => changed,
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    tracing::warn!(%error, "cannot list what the runtime has; trying again");
                }
                return false;
            }
        };
        self.blind = false;
        for uid in &changed {
            match self.workers.get(uid) {
                Some(worker) => worker.wake.notify_one(),
                // Only once it is known which pods are wanted.
                None if self.complete => self.begin_orphan(uid).await,
                None => {}
            }
        }
        !changed.is_empty()
    }

    async fn begin_orphan(&mut self, uid: &PodUid) {
        match self.host.observer.observe(uid).await {
            Ok(observed) if !observed.is_empty() => {
                tracing::info!(pod = %uid, "the runtime has a pod that nobody wants; ending it");
                let pod = Arc::new(orphan(uid, &observed));
                self.tell(Desired { pod, gone: true, listed: false, rejected: None });
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(pod = %uid, %error, "cannot look at a pod that nobody wants"),
        }
    }

    /// Directories and cgroups of pods that were forgotten while no agent ran.
    async fn find_orphans_on_disk(&mut self) {
        let (dirs, has_cgroups) = (self.host.dirs.clone(), self.host.cgroups_per_qos);
        let listed = tokio::task::spawn_blocking(move || {
            let mut pods: BTreeSet<PodUid> = dirs.pods()?.into_iter().collect();
            if has_cgroups {
                pods.extend(cgroups::pods()?);
            }
            anyhow::Ok(pods)
        });
        let pods = match listed.await.map_err(anyhow::Error::from).flatten() {
            Ok(pods) => pods,
            Err(error) => {
                return tracing::warn!("cannot look for what forgotten pods left on disk: {error:#}");
            }
        };
        for uid in pods {
            if !self.workers.contains_key(&uid) {
                // The worker looks again before it takes anything away; without its name the pod is ended all the same.
                let observed = self.host.observer.observe(&uid).await.unwrap_or_else(|error| {
                    tracing::warn!(pod = %uid, %error, "cannot look at what the runtime has of a forgotten pod");
                    ObservedPod::default()
                });
                self.tell(Desired {
                    pod: Arc::new(orphan(&uid, &observed)),
                    gone: true,
                    listed: false,
                    rejected: None,
                });
            }
        }
    }
}

/// What can be said of a pod that only the runtime remembers.
fn orphan(uid: &PodUid, observed: &ObservedPod) -> Pod {
    let mut pod = Pod { uid: uid.clone(), status: serde_json::json!({}), ..Pod::default() };
    if let Some(sandbox) = observed.sandbox() {
        pod.name = sandbox.pod.clone();
    }
    pod.spec.termination_grace_period_seconds = observed.containers.iter().find_map(|found| found.stop.grace);
    pod
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
