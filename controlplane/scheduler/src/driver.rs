//! The scheduler's one task: takes in events, decides, and hands out writes.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Client;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use pagurus_controlplane_api::key::ObjectKey;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::SchedulerConfig;
use crate::assign::{bind, is_news, report};
use crate::cycle::{Decision, schedule};
use crate::events::{Note, Recorder, recorder};
use crate::listing::{Listing, Step, watch};
use crate::node::NodeFacts;
use crate::plugins::{Candidate, fits_alone, volumes};
use crate::pod::PodInfo;
use crate::queue::Queue;
use crate::snapshot::Snapshot;

/// Writes under way at once.
const WRITES: usize = 128;
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A write that has ended.
enum Done {
    Bound { pod: Arc<PodInfo>, node: String, result: Result<(), kube::Error> },
    Reported,
}

/// So many failures of a watch in a row are worth a warning.
const PATIENCE: u32 = 5;

/// The event, unless the watch is in trouble, which it settles by itself; a watch never ends.
fn taken<K>(
    what: &str,
    failures: &mut u32,
    event: Option<Result<Event<K>, watcher::Error>>,
) -> anyhow::Result<Option<Event<K>>> {
    match event {
        Some(Ok(event)) => {
            *failures = 0;
            Ok(Some(event))
        }
        Some(Err(error)) => {
            *failures += 1;
            if *failures > PATIENCE {
                tracing::warn!(what, failures, "watch: {error}");
            } else {
                tracing::debug!(what, failures, "watch: {error}");
            }
            Ok(None)
        }
        None => bail!("the watch of {what} ended"),
    }
}

/// Everything the scheduler knows and does.
pub(crate) struct Driver {
    client: Client,
    config: SchedulerConfig,
    snapshot: Snapshot,
    queue: Queue,
    /// Pods with a decision whose binding is under way, in their latest state.
    binding: HashMap<String, Arc<PodInfo>>,
    writes: JoinSet<Done>,
    start: usize,
    pods: Listing,
    nodes: Listing,
    namespaces: Listing,
    claims: Listing,
    volumes: Listing,
}

type NamespaceMeta = PartialObjectMeta<Namespace>;

impl Driver {
    pub(crate) fn new(client: Client, config: SchedulerConfig) -> Self {
        Self {
            queue: Queue::new(config.first_backoff, config.longest_backoff),
            client,
            config,
            snapshot: Snapshot::default(),
            binding: HashMap::new(),
            writes: JoinSet::new(),
            start: 0,
            pods: Listing::default(),
            nodes: Listing::default(),
            namespaces: Listing::default(),
            claims: Listing::default(),
            volumes: Listing::default(),
        }
    }

    /// Schedules until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> anyhow::Result<()> {
        let (recorder, events) = recorder(self.client.clone(), &self.config.name);
        let mut events = pin!(events);
        let mut pods = watch::<Pod>(&self.client);
        let mut nodes = watch::<Node>(&self.client);
        let mut namespaces = watch::<NamespaceMeta>(&self.client);
        let mut claims = watch::<PersistentVolumeClaim>(&self.client);
        let mut volumes = watch::<PersistentVolume>(&self.client);
        let mut failures = [0_u32; 5];
        loop {
            let ready = self.known() && self.writes.len() < WRITES;
            let due = self.queue.next_due().filter(|_| ready);
            let idle = due.map_or(Duration::from_secs(3600), |d| d.saturating_duration_since(Instant::now()));
            let next = if ready { self.queue.pop(Instant::now()) } else { None };
            if let Some(pod) = next {
                self.decide(pod, &recorder);
                // What has come in meanwhile is taken in before the next decision, but not waited for.
                tokio::task::yield_now().await;
            }
            let more = ready && self.queue.has_active();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(done) = self.writes.join_next(), if !self.writes.is_empty() => self.finish(done?, &recorder),
                event = nodes.next() => if let Some(event) = taken("nodes", &mut failures[0], event)? {
                    self.on_node(event);
                },
                event = namespaces.next() => if let Some(event) = taken("namespaces", &mut failures[1], event)? {
                    self.on_namespace(event);
                },
                event = claims.next() => if let Some(event) = taken("persistentvolumeclaims", &mut failures[2], event)? {
                    self.on_claim(event);
                },
                event = volumes.next() => if let Some(event) = taken("persistentvolumes", &mut failures[3], event)? {
                    self.on_volume(event);
                },
                event = pods.next() => if let Some(event) = taken("pods", &mut failures[4], event)? {
                    self.on_pod(event);
                },
                () = &mut events => bail!("the writer of events ended"),
                () = std::future::ready(()), if more => {}
                () = tokio::time::sleep(idle) => {}
            }
        }
        self.writes.shutdown().await;
        Ok(())
    }

    /// Whether everything has been listed: before that no decision can be right.
    fn known(&self) -> bool {
        let listings = [&self.pods, &self.nodes, &self.namespaces, &self.claims, &self.volumes];
        listings.iter().all(|l| l.known())
    }

    fn on_node(&mut self, event: Event<Node>) {
        let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
        match self.nodes.take(event, name) {
            Step::Put(node) => self.node_changed(&node),
            Step::Gone(node) => self.snapshot.remove_node(&name(&node)),
            Step::Listed(listed) => {
                let known = self.snapshot.names().filter(|n| !listed.contains(*n));
                let gone: Vec<String> = known.map(str::to_owned).collect();
                gone.iter().for_each(|name| self.snapshot.remove_node(name));
            }
            Step::Nothing => {}
        }
    }

    fn node_changed(&mut self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if self.snapshot.set_node(name, NodeFacts::new(node)) {
            self.wake_for(name);
        }
    }

    /// Something on a node has changed for the better: tries the pods again that fit there now, going by the node
    /// alone. Pods that look at other pods may fit elsewhere because of it.
    fn wake_for(&mut self, name: &str) {
        let Some(node) = self.snapshot.node(name) else { return };
        let Some(facts) = &node.facts else { return };
        let mut reasons = Vec::new();
        let candidate = Candidate { node, facts };
        self.queue
            .wake(Instant::now(), |pod| pod.looks_at_pods() || fits_alone(pod, candidate, &mut reasons));
    }

    fn on_pod(&mut self, event: Event<Pod>) {
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        match self.pods.take(event, uid) {
            Step::Put(pod) => self.pod_changed(PodInfo::new(&pod)),
            Step::Gone(pod) => self.pod_gone(&uid(&pod)),
            Step::Listed(listed) => {
                let known = self.queue.uids().into_iter().chain(self.snapshot.placed().cloned());
                let gone: Vec<String> = known.filter(|uid| !listed.contains(uid)).collect();
                gone.iter().for_each(|uid| self.pod_gone(uid));
            }
            Step::Nothing => {}
        }
    }

    fn pod_changed(&mut self, pod: PodInfo) {
        if pod.finished {
            return self.pod_gone(&pod.uid);
        }
        let pod = Arc::new(pod);
        if !pod.node.is_empty() {
            self.queue.remove(&pod.uid);
            self.binding.remove(&pod.uid);
            let node = pod.node.clone();
            let before = self.snapshot.node(&node).and_then(|n| n.pods.get(&pod.uid)).cloned();
            let less = before.as_ref().is_some_and(|b| b.requests != pod.requests);
            let same = before.as_ref().is_some_and(|b| b.labels == pod.labels && b.deleting == pod.deleting);
            self.snapshot.add_pod(pod);
            if less {
                self.wake_for(&node);
            }
            if !same {
                self.queue.wake(Instant::now(), PodInfo::looks_at_pods);
            }
        } else if let Some(held) = self.binding.get_mut(&pod.uid) {
            *held = pod;
        } else if pod.wants(&self.config.name) {
            self.queue.put(pod, Instant::now());
        } else {
            self.queue.remove(&pod.uid);
        }
    }

    fn pod_gone(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.binding.remove(uid);
        if let Some(node) = self.snapshot.remove_pod(uid) {
            self.wake_for(&node);
            self.queue.wake(Instant::now(), PodInfo::looks_at_pods);
        }
    }

    fn on_namespace(&mut self, event: Event<NamespaceMeta>) {
        let name = |namespace: &NamespaceMeta| namespace.metadata.name.clone().unwrap_or_default();
        match self.namespaces.take(event, name) {
            Step::Put(namespace) => {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                self.snapshot.set_namespace(&name(&namespace), labels);
                self.queue.wake(Instant::now(), PodInfo::looks_at_pods);
            }
            Step::Gone(namespace) => self.snapshot.remove_namespace(&name(&namespace)),
            Step::Listed(listed) => self.snapshot.retain_namespaces(|name| listed.contains(name)),
            Step::Nothing => {}
        }
    }

    fn on_claim(&mut self, event: Event<PersistentVolumeClaim>) {
        let key = |claim: &PersistentVolumeClaim| ObjectKey {
            namespace: claim.metadata.namespace.clone(),
            name: claim.metadata.name.clone().unwrap_or_default(),
        };
        match self.claims.take(event, |claim| {
            let meta = &claim.metadata;
            format!(
                "{}/{}",
                meta.namespace.as_deref().unwrap_or_default(),
                meta.name.as_deref().unwrap_or_default()
            )
        }) {
            Step::Put(claim) => {
                self.snapshot.claims.insert(key(&claim), volumes::claim(&claim));
                self.queue.wake(Instant::now(), |pod| !pod.claims.is_empty());
            }
            Step::Gone(claim) => {
                self.snapshot.claims.remove(&key(&claim));
            }
            Step::Listed(listed) => self.snapshot.claims.retain(|key, _| listed.contains(&key.to_string())),
            Step::Nothing => {}
        }
    }

    fn on_volume(&mut self, event: Event<PersistentVolume>) {
        let name = |volume: &PersistentVolume| volume.metadata.name.clone().unwrap_or_default();
        match self.volumes.take(event, name) {
            Step::Put(volume) => {
                self.snapshot.volumes.insert(name(&volume), volumes::reach(&volume));
                self.queue.wake(Instant::now(), |pod| !pod.claims.is_empty());
            }
            Step::Gone(volume) => {
                self.snapshot.volumes.remove(&name(&volume));
            }
            Step::Listed(listed) => self.snapshot.volumes.retain(|name, _| listed.contains(name)),
            Step::Nothing => {}
        }
    }

    /// One scheduling cycle. The pod counts as on its node from now on, though the API server does not know yet.
    fn decide(&mut self, pod: Arc<PodInfo>, recorder: &Recorder) {
        let (decision, next) = schedule(&pod, &self.snapshot, self.start);
        self.start = next;
        let client = self.client.clone();
        match decision {
            Decision::Node(node) => {
                self.snapshot.add_pod(Arc::new(PodInfo { node: node.clone(), ..(*pod).clone() }));
                self.binding.insert(pod.uid.clone(), pod.clone());
                self.writes.spawn(async move {
                    let result = tokio::time::timeout(WRITE_TIMEOUT, bind(&client, &pod, &node)).await;
                    let result = result.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())));
                    Done::Bound { pod, node, result }
                });
            }
            Decision::Nowhere(message) => {
                tracing::debug!(pod = %pod.key, %message, "unschedulable");
                self.queue.unschedulable(pod.clone(), Instant::now());
                self.refuse(pod, message, "Unschedulable", recorder);
            }
        }
    }

    /// Says why a pod has no node: in an event, and in its status if that is news.
    fn refuse(&mut self, pod: Arc<PodInfo>, message: String, why: &str, recorder: &Recorder) {
        let note =
            Note { type_: "Warning", reason: "FailedScheduling", action: "Scheduling", text: &message };
        recorder.note(&pod, &note);
        if why != "Unschedulable" || !is_news(&pod, &message) {
            return;
        }
        let client = self.client.clone();
        self.writes.spawn(async move {
            match tokio::time::timeout(WRITE_TIMEOUT, report(&client, &pod, &message)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(pod = %pod.key, "status not written: {error}"),
                Err(_) => tracing::debug!(pod = %pod.key, "status not written: timed out"),
            }
            Done::Reported
        });
    }

    fn finish(&mut self, done: Done, recorder: &Recorder) {
        let Done::Bound { pod, node, result } = done else { return };
        match result {
            Ok(()) => {
                self.queue.settled(&pod.uid);
                let text = format!("Successfully assigned {} to {node}", pod.key);
                let note = Note { type_: "Normal", reason: "Scheduled", action: "Binding", text: &text };
                recorder.note(&pod, &note);
            }
            Err(error) => self.unbind(&pod, &node, &error, recorder),
        }
    }

    /// A binding failed. Unless the watch has told of the pod's fate meanwhile, it is tried again.
    fn unbind(&mut self, pod: &PodInfo, node: &str, error: &kube::Error, recorder: &Recorder) {
        let Some(latest) = self.binding.remove(&pod.uid) else { return };
        tracing::debug!(pod = %pod.key, node, "binding failed: {error}");
        if self.snapshot.place(&pod.uid) == Some(node) {
            self.snapshot.remove_pod(&pod.uid);
            self.wake_for(node);
        }
        if latest.wants(&self.config.name) {
            self.queue.retry(latest.clone(), Instant::now());
            self.refuse(latest, format!("binding rejected: {error}"), "SchedulerError", recorder);
        }
    }
}
