//! Registers the Node and keeps its status true: looks at the machine, the runtime and the agent's parts, and writes what
//! changed at once, the rest now and then. It must not decide what the status is: `pagurus_agent_core::node` does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{GetParams, Patch, PatchParams, PostParams};
use pagurus_agent_core::node::{self, Facts, Image, PressureClock, RuntimeState};
use pagurus_controlplane_api::conditions;
use pagurus_cri_api::v1;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::NodeContext;
use crate::observe::machine;
use crate::report::events;

const NODES: &str = "/api/v1/nodes";
/// How often the node is looked at, and how often while it is not ready yet.
const LOOK: Duration = Duration::from_secs(10);
const LOOK_UNREADY: Duration = Duration::from_millis(250);
/// How often the list of images is fetched.
const LOOK_IMAGES: Duration = Duration::from_secs(60);
/// How long the runtime may take to answer.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(10);
/// A runtime that answered so lately is taken to be restarting: its containers run on, and the node stays ready.
const RUNTIME_RESTART: Duration = Duration::from_secs(30);
/// A node that was ready stays so while an agent starts, for its parts come up one after the other; but not for longer.
const START: Duration = Duration::from_secs(30);
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// A pressure is reported for so long after it was last seen.
const PRESSURE_TRANSITION: SignedDuration = SignedDuration::from_mins(5);

struct Reporter {
    context: Arc<NodeContext>,
    started: Instant,
    /// The node was ready once, or the time for that is over.
    settled: bool,
    /// The API server has the node as ready from before this agent, and that is left alone until it is settled.
    held: bool,
    pressure: PressureClock,
    /// The runtime as it answered last, and when.
    runtime: Option<(RuntimeState, Instant)>,
    image_dir: Option<PathBuf>,
    images: Vec<Image>,
    images_at: Option<Instant>,
    /// The facts that the API server has, and since when.
    told: Option<(Facts, Instant)>,
    failures: u32,
    written: Counter,
    /// For `/debug/state`.
    shown: Arc<Mutex<Value>>,
}

/// What the API server has been told.
enum Told {
    /// Nothing: what it says is kept until this agent has started.
    Held,
    /// All there is to tell. Before that it said the node to be ready, or not, or nothing of it.
    All { was_ready: Option<bool> },
}

/// Keeps the Node true until cancelled. An API server that is away is tried again; nothing else stops it.
pub async fn run(context: Arc<NodeContext>, cancel: CancellationToken) -> anyhow::Result<()> {
    let written = Counter::default();
    context.metrics.register("node_status", |registry| {
        registry.register("patches", "Patches of the node's status", written.clone());
    });
    let shown = Arc::new(Mutex::new(Value::Null));
    context.debug.register("node", {
        let shown = shown.clone();
        move || shown.lock().clone()
    });
    let mut changes = context.readiness.changes();
    let mut reporter = Reporter {
        started: Instant::now(),
        settled: false,
        held: false,
        pressure: PressureClock::default(),
        runtime: None,
        image_dir: None,
        images: Vec::new(),
        images_at: None,
        told: None,
        failures: 0,
        written,
        shown,
        context,
    };
    reporter.context.events.normal(&reporter.about(), "Starting", "Starting kubelet.");
    loop {
        changes.mark_unchanged();
        let pass = reporter.pass();
        let wait = tokio::select! {
            wait = pass => wait,
            () = cancel.cancelled() => return Ok(()),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = changes.changed() => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

impl Reporter {
    /// Looks, writes if there is something to write, and says when to look again.
    async fn pass(&mut self) -> Duration {
        let facts = self.look().await;
        self.show(&facts);
        let ready = facts.runtime.problems.is_empty() && facts.missing.is_empty();
        let look = if ready { LOOK } else { LOOK_UNREADY };
        self.settled |= ready || self.started.elapsed() >= START;
        if self.held && !self.settled {
            return look;
        }
        // The server's own view is read now and then, for somebody else may have written; not at every look.
        if self.told.as_ref().is_some_and(|(told, at)| *told == facts && at.elapsed() < LOOK) {
            return look;
        }
        let tell = tokio::time::timeout(WRITE_PATIENCE, self.tell(&facts));
        match tell.await.context("no answer in time").flatten() {
            Ok(told) => {
                if self.failures > 0 {
                    tracing::info!(failures = self.failures, "the node's status is written again");
                }
                self.failures = 0;
                match told {
                    Told::Held => self.held = true,
                    Told::All { was_ready } => {
                        let before = self.told.replace((facts, Instant::now())).map(|(facts, _)| facts);
                        self.announce(before.as_ref(), was_ready);
                    }
                }
                look
            }
            Err(error) => {
                if self.failures == 0 {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the node's status is not written; trying again"
                    );
                }
                self.failures += 1;
                Duration::from_millis(250).saturating_mul(1 << self.failures.min(5)).min(LOOK)
            }
        }
    }

    fn show(&self, facts: &Facts) {
        let told = self.told.as_ref().map(|(told, _)| told);
        *self.shown.lock() = json!({
            "observed": {
                "runtime": facts.runtime.version,
                "notReady": facts.runtime.problems.iter().chain(&facts.missing).collect::<Vec<_>>(),
                "pressure": {"memory": facts.pressure.memory, "disk": facts.pressure.disk, "pids": facts.pressure.pids},
                "images": facts.images.len(),
            },
            "pending": if told == Some(facts) { 0 } else { 1 },
            "failedWrites": self.failures,
        });
    }

    async fn look(&mut self) -> Facts {
        let context = self.context.clone();
        let config = &context.config;
        let runtime = self.look_at_runtime().await;
        let resources = machine::resources(config);
        let usage = machine::usage(config, self.image_dir.as_deref());
        let thresholds = config.eviction_hard.clone();
        let parts = context.readiness.parts();
        Facts {
            identity: machine::identity(config, &context.node_ips),
            resources,
            pressure: self.pressure.observe(&thresholds, &usage, Timestamp::now(), PRESSURE_TRANSITION),
            thresholds,
            runtime,
            missing: parts
                .into_iter()
                .filter_map(|(name, state)| Some(format!("{name} is not ready: {}", state.err()?)))
                .collect(),
            images: self.images.clone(),
        }
    }

    async fn look_at_runtime(&mut self) -> RuntimeState {
        let runtime = self.context.runtime.clone();
        let looked = tokio::time::timeout(RUNTIME_PATIENCE, async {
            let version = runtime.version().await?;
            let status = runtime.status(false).await?;
            if self.images_at.is_none_or(|at| at.elapsed() >= LOOK_IMAGES) {
                self.images = runtime.list_images().await?.into_iter().map(image).collect();
                self.image_dir = machine::image_directory(&runtime.image_fs_info().await?);
                self.images_at = Some(Instant::now());
            }
            pagurus_cri_api::Result::Ok((version, status))
        });
        let problem = match looked.await {
            Ok(Ok((version, status))) => {
                let state = runtime_state(&version, status);
                self.runtime = Some((state.clone(), Instant::now()));
                return state;
            }
            Ok(Err(error)) => format!("container runtime is down: {error}"),
            Err(_) => {
                format!(
                    "container runtime is down: it did not answer within {} s",
                    RUNTIME_PATIENCE.as_secs()
                )
            }
        };
        silent_runtime(self.runtime.as_ref(), problem, Instant::now())
    }

    /// Makes the Node in the API server say these facts.
    async fn tell(&self, facts: &Facts) -> anyhow::Result<Told> {
        let client = &self.context.client;
        let name = &self.context.node_name;
        let requests = kube::core::Request::new(NODES);
        let found = client.request::<Value>(requests.get(name, &GetParams::default())?).await;
        let node = match found {
            Ok(node) => node,
            // The status of a Node that is created now is as told, and nothing was said before.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let node = self.registration(facts);
                let request = requests.create(&PostParams::default(), serde_json::to_vec(&node)?)?;
                let node = client.request::<Value>(request).await.context("create node")?;
                tracing::info!(node = name, "node registered");
                node
            }
            Err(error) => return Err(error).context("get node"),
        };
        if let Some(patch) = label_patch(&node, facts) {
            let request = requests.patch(name, &PatchParams::default(), &Patch::Merge(patch))?;
            client.request::<Value>(request).await.context("patch labels of node")?;
        }
        let now = Timestamp::now();
        let before = node.get("status").unwrap_or(&Value::Null);
        let was_ready = conditions::status(&node, "Ready").map(|status| status == "True");
        if was_ready == Some(true) && !self.settled {
            return Ok(Told::Held);
        }
        let wanted = node::status(facts, before, now);
        let interval = SignedDuration::try_from(self.context.config.status_report_interval)?;
        if let Some(patch) = node::patch(before, &wanted, now, interval) {
            let patch = Patch::Strategic(patch);
            let request = requests.patch_subresource("status", name, &PatchParams::default(), &patch)?;
            client.request::<Value>(request).await.context("patch status of node")?;
            self.written.inc();
        }
        Ok(Told::All { was_ready })
    }

    /// The Node as it is created.
    fn registration(&self, facts: &Facts) -> Value {
        let config = &self.context.config;
        let mut labels: serde_json::Map<String, Value> = node::labels(&facts.identity)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect();
        labels.extend(config.node_labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())));
        let taint = |taint: &crate::config::Taint| {
            let mut object = json!({"key": taint.key, "effect": taint.effect});
            if !taint.value.is_empty() {
                object["value"] = taint.value.as_str().into();
            }
            object
        };
        let taints: Vec<Value> = config.taints.iter().map(taint).collect();
        let spec = if taints.is_empty() { json!({}) } else { json!({"taints": taints}) };
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": facts.identity.name,
                "labels": labels,
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": spec,
            "status": node::status(facts, &Value::Null, Timestamp::now()),
        })
    }

    /// Tells by events what has changed for the node.
    fn announce(&self, before: Option<&Facts>, was_ready: Option<bool>) {
        let Some((now, _)) = &self.told else { return };
        let ready = |facts: &Facts| facts.runtime.problems.is_empty() && facts.missing.is_empty();
        let say = |reason: &str| {
            let text = format!("Node {} status is now: {reason}", self.context.node_name);
            tracing::info!("{text}");
            self.context.events.normal(&self.about(), reason, text);
        };
        if before.map(ready).or(was_ready) != Some(ready(now)) {
            say(if ready(now) { "NodeReady" } else { "NodeNotReady" });
        }
        let was = before.map(|before| before.pressure).unwrap_or_default();
        let is = now.pressure;
        for (was, is, bad, good) in [
            (was.memory, is.memory, "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
            (was.disk, is.disk, "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
            (was.pids, is.pids, "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ] {
            if was != is {
                say(if is { bad } else { good });
            }
        }
    }

    fn about(&self) -> ObjectReference {
        events::about_node(&self.context.node_name)
    }
}

/// The labels that are not as they should be.
fn label_patch(node: &Value, facts: &Facts) -> Option<Value> {
    let labels = node::labels(&facts.identity);
    let wrong: serde_json::Map<String, Value> = labels
        .into_iter()
        .filter(|(key, value)| node["metadata"]["labels"][*key] != value.as_str())
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    (!wrong.is_empty()).then(|| json!({"metadata": {"labels": wrong}}))
}

/// The runtime that does not answer: as it was, if that was lately; after that, and if it never answered, with this problem.
fn silent_runtime(last: Option<&(RuntimeState, Instant)>, problem: String, now: Instant) -> RuntimeState {
    match last {
        Some((state, at)) if now.duration_since(*at) < RUNTIME_RESTART => state.clone(),
        Some((state, _)) => RuntimeState { problems: vec![problem], ..state.clone() },
        None => RuntimeState { problems: vec![problem], ..RuntimeState::default() },
    }
}

fn image(image: v1::Image) -> Image {
    let mut names = image.repo_digests;
    names.extend(image.repo_tags);
    Image { names, size: image.size }
}

fn runtime_state(version: &v1::VersionResponse, status: v1::StatusResponse) -> RuntimeState {
    let conditions = status.status.map(|status| status.conditions).unwrap_or_default();
    let problem = |kind: &str, what: &str| match conditions.iter().find(|condition| condition.r#type == kind)
    {
        None => Some(format!("{what} status unknown")),
        Some(condition) if condition.status => None,
        Some(condition) => Some(format!(
            "{what} not ready: {kind}=false reason:{} message:{}",
            condition.reason, condition.message
        )),
    };
    let handlers = status.runtime_handlers.iter().map(|handler| {
        let mut object = json!({"name": handler.name});
        if let Some(features) = &handler.features {
            object["features"] = json!({
                "recursiveReadOnlyMounts": features.recursive_read_only_mounts,
                "userNamespaces": features.user_namespaces,
            });
        }
        object
    });
    RuntimeState {
        version: format!("{}://{}", version.runtime_name, version.runtime_version),
        problems: [
            problem("RuntimeReady", "container runtime"),
            problem("NetworkReady", "container runtime network"),
        ]
        .into_iter()
        .flatten()
        .collect(),
        handlers: handlers.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runtime_says() {
        let version = v1::VersionResponse {
            runtime_name: "containerd".to_owned(),
            runtime_version: "1.6.20".to_owned(),
            ..v1::VersionResponse::default()
        };
        let condition = |kind: &str, status| v1::RuntimeCondition {
            r#type: kind.to_owned(),
            status,
            reason: "R".to_owned(),
            message: "m".to_owned(),
        };
        let check = |conditions: Vec<v1::RuntimeCondition>, expected: &[&str]| {
            let status = Some(v1::RuntimeStatus { conditions });
            let state =
                runtime_state(&version, v1::StatusResponse { status, ..v1::StatusResponse::default() });
            assert_eq!(state.version, "containerd://1.6.20");
            assert_eq!(state.problems, expected);
        };
        check(vec![condition("RuntimeReady", true), condition("NetworkReady", true)], &[]);
        check(
            vec![condition("RuntimeReady", true), condition("NetworkReady", false)],
            &["container runtime network not ready: NetworkReady=false reason:R message:m"],
        );
        check(vec![condition("NetworkReady", true)], &["container runtime status unknown"]);
    }

    #[test]
    fn a_runtime_may_restart() {
        let good = RuntimeState { version: "containerd://1".to_owned(), ..RuntimeState::default() };
        let start = Instant::now();
        let check = |last: Option<&RuntimeState>, seconds: u64, version: &str, problems: &[&str]| {
            let last = last.map(|state| (state.clone(), start));
            let state =
                silent_runtime(last.as_ref(), "down".to_owned(), start + Duration::from_secs(seconds));
            assert_eq!(state.version, version, "{seconds} s");
            assert_eq!(state.problems, problems, "{seconds} s");
        };
        check(None, 0, "", &["down"]);
        check(Some(&good), 1, "containerd://1", &[]);
        check(Some(&good), 29, "containerd://1", &[]);
        check(Some(&good), 30, "containerd://1", &["down"]);
        // What it said of itself holds, too.
        let bad = RuntimeState { problems: vec!["network".to_owned()], ..good.clone() };
        check(Some(&bad), 1, "containerd://1", &["network"]);
    }
}
