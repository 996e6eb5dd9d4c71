//! Pods from their object to their end: a whole worker against a runtime in memory and an API server in memory.
//! With `PAGURUS_TEST_RUNTIME=unix:///run/containerd/containerd.sock` the same cases run on a real one (as root).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use pagurus_agent_core::names::{PodName, PodUid};
use pagurus_agent_core::pods::Pod;
use pagurus_agent_core::pods::env::{ObjectData, Objects, ServiceLink};
use pagurus_agent_core::pods::network::ClusterDns;
use pagurus_agent_core::pods::probes::{ProbeKind, ProbeResults, Verdict};
use pagurus_agent_core::pods::spec::TokenProjection;
use pagurus_agent_core::volumes::needs::Need;
use pagurus_cri_api::Runtime;
use pagurus_cri_api::fake::FakeRuntime;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Host, ProbeSource, Waker, wakeups};
use crate::actuate::probes::Running;
use crate::actuate::volumes::PodDirs;
use crate::index::objects::{ObjectSource, ObjectsError};
use crate::index::pods::PodEvent;
use crate::index::service_links::ServiceLinks;
use crate::observe::containers::Observer;
use crate::observe::pods::PodTable;
use crate::process::metrics::Metrics;
use crate::report::events;
use crate::report::pod_status::{ApiFailure, PodApi, Token};

mod insides;
mod lives;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// The API server: pods by name, a revision, and whoever watches.
struct FakeApi {
    state: watch::Sender<State>,
    events: mpsc::UnboundedSender<PodEvent>,
}

#[derive(Clone, Default)]
struct State {
    revision: u64,
    pods: BTreeMap<String, Value>,
    /// The last object of each pod that was deleted.
    deleted: BTreeMap<String, Value>,
    tokens: u32,
}

impl FakeApi {
    fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.state.send_modify(|state| {
            state.revision += 1;
            let revision = state.revision.to_string();
            let pod =
                state.pods.entry(name.to_owned()).or_insert_with(|| json!({"metadata": {}, "status": {}}));
            change(pod);
            pod["metadata"]["resourceVersion"] = revision.into();
            let decoded = Pod::decode(pod.clone()).expect("a pod of the test");
            self.events.send(PodEvent::Is(Box::new(decoded))).ok();
        });
    }

    fn remove(&self, name: &str) {
        self.state.send_modify(|state| {
            if let Some(pod) = state.pods.remove(name) {
                let decoded = Pod::decode(pod.clone()).expect("a pod of the test");
                state.deleted.insert(name.to_owned(), pod);
                self.events.send(PodEvent::Gone(Box::new(decoded))).ok();
            }
        });
    }
}

#[async_trait]
impl PodApi for FakeApi {
    async fn patch_status(&self, name: &PodName, _: &PodUid, status: Value) -> Result<Box<Pod>, ApiFailure> {
        if !self.state.borrow().pods.contains_key(&name.name) {
            return Err(ApiFailure::Gone(name.clone()));
        }
        self.change(&name.name, |pod| {
            for (key, value) in status.as_object().into_iter().flatten() {
                if key == "conditions" {
                    let mut all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
                    for new in value.as_array().into_iter().flatten() {
                        all.retain(|old| old["type"] != new["type"]);
                        all.push(new.clone());
                    }
                    pod["status"]["conditions"] = all.into();
                } else {
                    let mut value = value.clone();
                    if let Some(list) = value.as_array_mut() {
                        list.retain(|item| item.get("$patch").is_none());
                    }
                    pod["status"][key] = value;
                }
            }
        });
        let Some(pod) = self.state.borrow().pods.get(&name.name).cloned() else {
            return Err(ApiFailure::Gone(name.clone()));
        };
        Ok(Box::new(Pod::decode(pod).expect("a pod of the test")))
    }

    async fn delete(&self, name: &PodName, _: &PodUid) -> Result<(), ApiFailure> {
        self.remove(&name.name);
        Ok(())
    }

    async fn token(&self, _: &Pod, wanted: &TokenProjection) -> Result<Token, ApiFailure> {
        self.state.send_modify(|state| state.tokens += 1);
        let text = format!("token {} for {}", self.state.borrow().tokens, wanted.audience);
        let seconds = SignedDuration::from_secs(wanted.expiration_seconds.unwrap_or(3600));
        Ok(Token { text, expires: Timestamp::now() + seconds })
    }

    async fn runtime_handler(&self, class: &str) -> Result<String, ApiFailure> {
        Ok(class.to_owned())
    }

    async fn node_labels(&self, _: &str) -> Result<BTreeMap<String, String>, ApiFailure> {
        Ok(BTreeMap::from([("disk".to_owned(), "fast".to_owned())]))
    }
}

/// Config maps and secrets of the test.
struct FakeObjects {
    content: Mutex<Objects>,
    changes: Mutex<u64>,
    waker: Waker,
    users: Mutex<BTreeSet<PodUid>>,
}

impl FakeObjects {
    fn config_map(&self, name: &str, entries: &[(&str, &str)]) {
        let data = entries.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        let object = Arc::new(ObjectData { data, binary: BTreeMap::new() });
        self.content.lock().config_maps.insert(name.to_owned(), object);
        *self.changes.lock() += 1;
        self.users.lock().iter().for_each(|user| self.waker.wake(user));
    }
}

#[async_trait]
impl ObjectSource for FakeObjects {
    fn claim(&self, pod: &PodUid, _: &str, _: BTreeSet<Need>) {
        self.users.lock().insert(pod.clone());
    }

    fn changes(&self, _: &PodUid) -> u64 {
        *self.changes.lock()
    }

    async fn objects(&self, _: &str, _: &BTreeSet<Need>) -> Result<Objects, ObjectsError> {
        Ok(self.content.lock().clone())
    }
}

/// Probes whose results the test says.
struct FakeProbes {
    running: Mutex<BTreeMap<PodUid, Vec<Running>>>,
    results: Mutex<ProbeResults>,
    waker: Waker,
}

impl FakeProbes {
    /// The probe of the container that runs now finds this.
    fn find(&self, pod: &str, container: &str, kind: ProbeKind, verdict: Verdict) {
        let uid = uid(pod);
        let running = self.running.lock();
        let found =
            running[&uid].iter().find(|running| running.name == container).expect("a running container");
        self.results.lock().set(&found.id, kind, verdict);
        self.waker.wake(&uid);
    }
}

impl ProbeSource for FakeProbes {
    fn set(&self, pod: &Arc<Pod>, _: Option<std::net::IpAddr>, running: Vec<Running>) {
        self.running.lock().insert(pod.uid.clone(), running);
    }

    fn results(&self, _: &PodUid) -> ProbeResults {
        self.results.lock().clone()
    }

    fn forget(&self, pod: &PodUid) {
        self.running.lock().remove(pod);
    }
}

fn uid(name: &str) -> PodUid {
    PodUid(format!("uid-{name}"))
}

/// A node with an API server, both in memory.
struct Node {
    api: Arc<FakeApi>,
    objects: Arc<FakeObjects>,
    probes: Arc<FakeProbes>,
    runtime: Arc<dyn Runtime>,
    table: PodTable,
    fake: Option<Arc<FakeRuntime>>,
    dirs: PodDirs,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
    _scratch: Option<tempfile::TempDir>,
}

impl Node {
    /// A node whose runtime has the test's image.
    fn start() -> Self {
        let scratch = tempfile::tempdir().expect("a directory");
        let real = std::env::var("PAGURUS_TEST_RUNTIME").ok();
        let fake = real.is_none().then(|| Arc::new(FakeRuntime::with_images([IMAGE])));
        let runtime: Arc<dyn Runtime> = match (&fake, real) {
            (Some(fake), _) => fake.clone(),
            (None, endpoint) => {
                Arc::new(pagurus_cri_api::Client::new(&endpoint.unwrap_or_default()).expect("a runtime"))
            }
        };
        let dirs = PodDirs { root: scratch.path().join("root"), logs: scratch.path().join("logs") };
        let state = watch::Sender::new(State::default());
        Self::over(state, runtime, fake, dirs, Some(scratch))
    }

    fn over(
        state: watch::Sender<State>,
        runtime: Arc<dyn Runtime>,
        fake: Option<Arc<FakeRuntime>>,
        dirs: PodDirs,
        scratch: Option<tempfile::TempDir>,
    ) -> Self {
        let (send, receive) = mpsc::unbounded_channel();
        send.send(PodEvent::Reset).ok();
        for pod in state.borrow().pods.values() {
            send.send(PodEvent::Is(Box::new(Pod::decode(pod.clone()).expect("a pod")))).ok();
        }
        send.send(PodEvent::Complete).ok();
        let api = Arc::new(FakeApi { state, events: send });
        let (waker, wakeups) = wakeups();
        let objects = Arc::new(FakeObjects {
            content: Mutex::default(),
            changes: Mutex::default(),
            waker: waker.clone(),
            users: Mutex::default(),
        });
        let probes = Arc::new(FakeProbes { running: Mutex::default(), results: Mutex::default(), waker });
        let (recorder, _writer) = events::channel(&Metrics::default());
        let kubernetes = ServiceLink {
            name: "kubernetes".into(),
            ip: "10.96.0.1".into(),
            ports: vec![("https".into(), 443, "TCP".into())],
        };
        let table = PodTable::default();
        let host = Host {
            runtime: runtime.clone(),
            runtime_name: "containerd".into(),
            observer: Observer::new(runtime.clone()),
            api: api.clone(),
            objects: objects.clone(),
            links: ServiceLinks::fixed([("default".to_owned(), kubernetes)]),
            probes: probes.clone(),
            events: recorder,
            table: table.clone(),
            insight: super::Insight::default(),
            dirs: dirs.clone(),
            host_ips: vec!["192.0.2.1".parse().expect("an address")],
            cluster_dns: ClusterDns { servers: Vec::new(), domain: "cluster.local".into() },
            serves_dns: false,
            resolv_conf: "/etc/resolv.conf".into(),
            cgroups_per_qos: fake.is_none(),
            memory: 1 << 30,
            allocatable: BTreeMap::new(),
        };
        let cancel = CancellationToken::new();
        let stream =
            futures::stream::unfold(receive, |mut receive| async { Some((receive.recv().await?, receive)) });
        let task = tokio::spawn(super::run(Arc::new(host), stream, wakeups, cancel.clone()));
        Self { api, objects, probes, runtime, table, fake, dirs, cancel, task, _scratch: scratch }
    }

    /// Ends the agent, leaving the runtime and the API as they are, and starts another one.
    async fn restart(mut self) -> Self {
        self.cancel.cancel();
        (&mut self.task).await.expect("no panic").expect("no error");
        let scratch = self._scratch.take();
        let state = watch::Sender::new(self.api.state.borrow().clone());
        Self::over(state, self.runtime.clone(), self.fake.clone(), self.dirs.clone(), scratch)
    }

    fn fake(&self) -> &FakeRuntime {
        self.fake.as_deref().expect("a runtime in memory")
    }

    /// Creates a pod with this spec.
    fn create(&self, name: &str, mut spec: Value) {
        spec["hostNetwork"] = true.into();
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["image"] = container.get("image").cloned().unwrap_or_else(|| IMAGE.into());
            }
        }
        self.api.change(name, |pod| {
            pod["metadata"] = json!({"namespace": "default", "name": name, "uid": uid(name).0, "generation": 1,
                "creationTimestamp": Timestamp::now().to_string()});
            pod["spec"] = spec;
            pod["status"] = json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "True"}, {"type": "DisruptionTarget", "status": "False"}]});
        });
    }

    /// Asks for the end of a pod.
    fn delete(&self, name: &str, grace: i64) {
        self.api.change(name, |pod| {
            let end = Timestamp::now() + SignedDuration::from_secs(grace);
            pod["metadata"]["deletionTimestamp"] = end.to_string().into();
            pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        });
    }

    /// Waits until the pod's object (the last one, if it is gone) is so; answers it.
    async fn until(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut watch = self.api.state.subscribe();
        let now = |state: &State| state.pods.get(name).filter(|pod| is(pod)).cloned();
        let found = tokio::time::timeout(PATIENCE, watch.wait_for(|state| now(state).is_some())).await;
        match found {
            Ok(Ok(state)) => state.pods[name].clone(),
            _ => panic!("{name} did not become {what}: {:#?}", self.api.state.borrow().pods.get(name)),
        }
    }

    /// Waits until the pod is gone; answers its last object.
    async fn until_gone(&self, name: &str) -> Value {
        let mut watch = self.api.state.subscribe();
        let found =
            tokio::time::timeout(PATIENCE, watch.wait_for(|state| !state.pods.contains_key(name))).await;
        assert!(matches!(found, Ok(Ok(_))), "{name} stays: {:#?}", self.api.state.borrow().pods.get(name));
        self.api.state.borrow().deleted[name].clone()
    }

    /// Waits until this holds.
    async fn eventually(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds().await {
            assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Nothing of the pod is left on this node.
    async fn until_no_trace(&self, name: &str) {
        let uid = uid(name);
        let observer = Observer::new(self.runtime.clone());
        self.eventually("no trace in the runtime", async || {
            observer.observe(&uid).await.is_ok_and(|o| o.is_empty())
        })
        .await;
        let paths: [PathBuf; 2] =
            [self.dirs.pod(&uid), self.dirs.pod_logs(&PodName::new("default", name), &uid)];
        self.eventually("no trace on disk", async || paths.iter().all(|path| !path.exists())).await;
        self.eventually("no trace in the table", async || self.table.get(&uid).is_none()).await;
    }
}

const IMAGE: &str = "pagurus.test/busybox:1";

fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let all = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().find(|c| c["type"] == kind).and_then(|c| c["status"].as_str()).unwrap_or_default()
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let mut all = lists.iter().filter_map(|list| pod["status"][*list].as_array()).flatten();
    all.find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

fn is_ready(pod: &Value) -> bool {
    phase(pod) == "Running" && condition(pod, "Ready") == "True"
}
