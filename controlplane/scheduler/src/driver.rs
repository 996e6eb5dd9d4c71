//! The scheduler's one task: takes in events, decides, and hands out writes.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::SchedulerConfig;
use crate::assign::{bind, is_news, report};
use crate::cycle::{Decision, schedule};
use crate::events::{Note, Recorder, recorder};
use crate::node::NodeFacts;
use crate::plugins::{Candidate, fits};
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
    /// What a new list has shown so far.
    listed_pods: Option<HashSet<String>>,
    listed_nodes: Option<HashSet<String>>,
    pods_known: bool,
    nodes_known: bool,
}

type Watch<K> = BoxStream<'static, Result<Event<K>, watcher::Error>>;

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
            listed_pods: None,
            listed_nodes: None,
            pods_known: false,
            nodes_known: false,
        }
    }

    /// Schedules until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> anyhow::Result<()> {
        let (recorder, events) = recorder(self.client.clone(), &self.config.name);
        let mut events = pin!(events);
        let mut pods: Watch<Pod> =
            watcher(Api::all(self.client.clone()), watcher::Config::default()).default_backoff().boxed();
        let mut nodes: Watch<Node> =
            watcher(Api::all(self.client.clone()), watcher::Config::default()).default_backoff().boxed();
        loop {
            let ready = self.pods_known && self.nodes_known && self.writes.len() < WRITES;
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
                event = nodes.next() => match event {
                    Some(Ok(event)) => self.on_node(event),
                    Some(Err(error)) => tracing::debug!("watching nodes: {error}"),
                    None => bail!("the watch of nodes ended"),
                },
                event = pods.next() => match event {
                    Some(Ok(event)) => self.on_pod(event),
                    Some(Err(error)) => tracing::debug!("watching pods: {error}"),
                    None => bail!("the watch of pods ended"),
                },
                () = &mut events => bail!("the writer of events ended"),
                () = std::future::ready(()), if more => {}
                () = tokio::time::sleep(idle) => {}
            }
        }
        self.writes.shutdown().await;
        Ok(())
    }

    fn on_node(&mut self, event: Event<Node>) {
        match event {
            Event::Init => self.listed_nodes = Some(HashSet::new()),
            Event::InitApply(node) => {
                if let Some(listed) = &mut self.listed_nodes {
                    listed.extend(node.metadata.name.clone());
                }
                self.node_changed(&node);
            }
            Event::InitDone => {
                let listed = self.listed_nodes.take().unwrap_or_default();
                let gone: Vec<String> =
                    self.snapshot.names().filter(|n| !listed.contains(*n)).map(str::to_owned).collect();
                gone.iter().for_each(|name| self.snapshot.remove_node(name));
                self.nodes_known = true;
            }
            Event::Apply(node) => self.node_changed(&node),
            Event::Delete(node) => {
                self.snapshot.remove_node(node.metadata.name.as_deref().unwrap_or_default());
            }
        }
    }

    fn node_changed(&mut self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if self.snapshot.set_node(name, NodeFacts::new(node)) {
            self.wake_for(name);
        }
    }

    /// Something on a node has changed for the better: tries the pods again that fit there now.
    fn wake_for(&mut self, name: &str) {
        let Some(node) = self.snapshot.node(name) else { return };
        let Some(facts) = &node.facts else { return };
        let mut reasons = Vec::new();
        self.queue.wake(Instant::now(), |pod| fits(pod, Candidate { node, facts }, &mut reasons));
    }

    fn on_pod(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed_pods = Some(HashSet::new()),
            Event::InitApply(pod) => {
                if let Some(listed) = &mut self.listed_pods {
                    listed.extend(pod.metadata.uid.clone());
                }
                self.pod_changed(PodInfo::new(&pod));
            }
            Event::InitDone => {
                let listed = self.listed_pods.take().unwrap_or_default();
                let known = self.queue.uids().into_iter().chain(self.snapshot.placed().cloned());
                let gone: Vec<String> = known.filter(|uid| !listed.contains(uid)).collect();
                gone.iter().for_each(|uid| self.pod_gone(uid));
                self.pods_known = true;
            }
            Event::Apply(pod) => self.pod_changed(PodInfo::new(&pod)),
            Event::Delete(pod) => self.pod_gone(pod.metadata.uid.as_deref().unwrap_or_default()),
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
            let less = before.is_some_and(|b| b.requests != pod.requests);
            self.snapshot.add_pod(pod);
            if less {
                self.wake_for(&node);
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
