//! Workload controllers that are killed at every step of their work: each write in turn is the last that arrives, or
//! the first that does not. A successor that knows nothing must bring the work to its end, and at no moment may there be
//! more pods than there should be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::ControllersConfig;
use crate::context::Context;
use crate::runtime::fake::{FakeApi, Life};

type Start = fn(&Context) -> BoxFuture<'static, ()>;

/// What is killed, on what, and what must hold.
struct Scenario {
    controllers: &'static [Start],
    /// Collection and object, made before all begins.
    given: Vec<(&'static str, Value)>,
    /// What users do when the first state is reached.
    change: fn(&FakeApi),
    /// Must hold at every moment.
    always: fn(&World),
    /// The states to be reached before and after the change.
    before: fn(&World) -> bool,
    after: fn(&World) -> bool,
}

struct World {
    api: Arc<FakeApi>,
    changed: bool,
}

const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn key(object: &Value) -> String {
    format!("{}/{}", text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

fn deleted(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

fn ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

impl World {
    fn active(&self) -> Vec<Value> {
        self.api.objects("pods").into_iter().filter(|p| !deleted(p) && !ended(p)).collect()
    }

    fn ready(&self) -> usize {
        self.active().iter().filter(|p| text(p, "/status/phase") == "Running").count()
    }

    fn only(&self, collection: &str) -> Value {
        self.api.objects(collection).into_iter().next().unwrap_or_default()
    }

    /// The nodes' turn: pods are bound, run, end if they are made to, and go when they are told to.
    fn nodes(&self) {
        for pod in self.api.objects("pods") {
            let of_job = text(&pod, "/metadata/ownerReferences/0/kind") == "Job";
            let held = pod["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
            match text(&pod, "/status/phase") {
                _ if deleted(&pod) && !held => self.api.let_go("pods", &key(&pod)),
                "Running" if deleted(&pod) => self.phase(&pod, "Failed"),
                "" => self.phase(&pod, "Running"),
                "Running" if of_job => self.phase(&pod, "Succeeded"),
                _ => {}
            }
        }
    }

    fn phase(&self, pod: &Value, phase: &str) {
        let wanted = pod.pointer(
            "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/\
             matchFields/0/values/0",
        );
        let node = wanted.cloned().unwrap_or_else(|| json!("n1"));
        self.api.change("pods", &key(pod), |pod| {
            pod["spec"]["nodeName"] = node;
            pod["status"] = json!({"phase": phase, "conditions": [{"type": "Ready",
                "status": if phase == "Running" { "True" } else { "False" },
                "lastTransitionTime": "2024-01-01T00:00:00Z"}]});
        });
    }
}

async fn start(scenario: &Scenario, api: &Arc<FakeApi>, life: &Arc<Life>) -> tokio::task::JoinHandle<()> {
    let (api, life, starts) = (api.clone(), life.clone(), scenario.controllers);
    tokio::spawn(async move {
        let client_for = Arc::new(move |_: &str| api.mortal_client(&life));
        let context = Context::new(client_for, ControllersConfig::default(), CancellationToken::new());
        let controllers = starts.iter().map(|start| ("killed", start(&context))).collect();
        // It never ends by itself.
        let _ = context.run(controllers).await;
    })
}

/// Lets the world go on until a state is reached or the controllers are dead. True if it is reached.
async fn go_on(scenario: &Scenario, world: &World, life: &Life, state: fn(&World) -> bool) -> bool {
    for _ in 0..3000 {
        (scenario.always)(world);
        if state(world) {
            return true;
        }
        if life.is_over() {
            return false;
        }
        world.nodes();
        tokio::select! {
            () = life.over() => {}
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    panic!(
        "the state is never reached: {} pods, {:#}",
        world.api.objects("pods").len(),
        world.only(scenario.given.last().map_or("", |(collection, _)| collection))
    );
}

/// One run with controllers that die after so many writes, and again with their successors. True if they did die.
async fn run(scenario: &Scenario, writes: i64, last_arrives: bool) -> bool {
    let api = FakeApi::new();
    api.graceful.store(true, Ordering::SeqCst);
    for (path, object) in &scenario.given {
        let request = http::Request::post(*path).body(object.to_string().into_bytes()).unwrap();
        api.client().request::<Value>(request).await.unwrap();
    }
    let mut world = World { api: api.clone(), changed: false };
    let mut life = Life::of(writes, last_arrives);
    let mut controllers = start(scenario, &api, &life).await;
    let mut died = false;
    loop {
        let state = if world.changed { scenario.after } else { scenario.before };
        if go_on(scenario, &world, &life, state).await {
            if world.changed {
                break;
            }
            world.changed = true;
            (scenario.change)(&api);
            continue;
        }
        died = true;
        controllers.abort();
        let _ = controllers.await;
        life = Life::of(i64::MAX, true);
        controllers = start(scenario, &api, &life).await;
    }
    // What is reached must last.
    for _ in 0..20 {
        world.nodes();
        tokio::time::sleep(Duration::from_millis(100)).await;
        (scenario.always)(&world);
    }
    assert!((scenario.after)(&world), "killed after {writes} writes: the state does not last");
    controllers.abort();
    let _ = controllers.await;
    died
}

/// Kills at the first write, at the second, and so on until there is nothing left to kill.
async fn endure(scenario: Scenario, at_least: i64) {
    let mut writes = 1;
    loop {
        let lost = run(&scenario, writes, false).await;
        let arrived = run(&scenario, writes, true).await;
        if !lost && !arrived {
            break;
        }
        writes += 1;
    }
    assert!(writes > at_least, "only {writes} writes were ever made");
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}})
}

fn object(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

fn change_spec(api: &FakeApi, collection: &str, change: impl FnOnce(&mut Value)) {
    api.change(collection, "ns/w", |object| {
        change(&mut object["spec"]);
        object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
    });
}

fn observed(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

#[tokio::test(start_paused = true)]
async fn replica_set() {
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template()});
    endure(
        Scenario {
            controllers: &[crate::replica_set::start],
            given: vec![("/apis/apps/v1/namespaces/ns/replicasets", object("w", spec))],
            change: |api| change_spec(api, "apps/replicasets", |spec| spec["replicas"] = json!(1)),
            always: |w| assert!(w.active().len() <= 3),
            before: |w| w.ready() == 3 && w.only("apps/replicasets")["status"]["readyReplicas"] == 3,
            after: |w| {
                let set = w.only("apps/replicasets");
                w.api.objects("pods").len() == 1 && set["status"]["replicas"] == 1 && observed(&set)
            },
        },
        6,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn deployment() {
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template(),
        "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
    endure(
        Scenario {
            controllers: &[crate::deployment::start, crate::replica_set::start],
            given: vec![("/apis/apps/v1/namespaces/ns/deployments", object("w", spec))],
            change: |api| {
                change_spec(api, "apps/deployments", |spec| {
                    spec["template"]["spec"]["containers"][0]["image"] = json!("v2");
                });
            },
            always: |w| {
                assert!(w.active().len() <= 3, "surge of one");
                assert!(!w.changed || w.ready() >= 2, "never less than two serve");
                assert!(w.api.objects("apps/replicasets").len() <= 2, "a template has one set");
            },
            before: |w| w.ready() == 2 && w.only("apps/deployments")["status"]["availableReplicas"] == 2,
            after: |w| {
                let (pods, deployment) = (w.api.objects("pods"), w.only("apps/deployments"));
                let status = &deployment["status"];
                pods.len() == 2
                    && pods.iter().all(|p| text(p, "/spec/containers/0/image") == "v2")
                    && (status["updatedReplicas"] == 2 && status["replicas"] == 2 && observed(&deployment))
            },
        },
        15,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn stateful_set() {
    let spec = json!({"replicas": 3, "serviceName": "s", "selector": {"matchLabels": {"a": "b"}}, "template": template(),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}});
    endure(
        Scenario {
            controllers: &[crate::stateful_set::start],
            given: vec![("/apis/apps/v1/namespaces/ns/statefulsets", object("w", spec))],
            change: |api| {
                change_spec(api, "apps/statefulsets", |spec| {
                    spec["replicas"] = json!(2);
                    spec["template"]["spec"]["containers"][0]["image"] = json!("v2");
                });
            },
            always: |w| {
                let pods = w.api.objects("pods");
                let down =
                    pods.iter().filter(|p| deleted(p) || text(p, "/status/phase") != "Running").count();
                assert!(down <= 1, "one after the other");
            },
            before: |w| w.ready() == 3 && w.only("apps/statefulsets")["status"]["readyReplicas"] == 3,
            after: |w| {
                let (pods, set) = (w.api.objects("pods"), w.only("apps/statefulsets"));
                let names: Vec<&str> = pods.iter().map(|p| text(p, "/metadata/name")).collect();
                names == ["w-0", "w-1"]
                    && pods.iter().all(|p| text(p, "/spec/containers/0/image") == "v2" && !deleted(p))
                    && set["status"]["readyReplicas"] == 2
                    && set["status"]["currentRevision"] == set["status"]["updateRevision"]
                    && observed(&set)
            },
        },
        10,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn daemon_set() {
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template(),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}});
    let node = |name: &str| ("/api/v1/nodes", object(name, json!({})));
    let mut given: Vec<_> = NODES.iter().map(|name| node(name)).collect();
    given.push(("/apis/apps/v1/namespaces/ns/daemonsets", object("w", spec)));
    endure(
        Scenario {
            controllers: &[crate::daemon_set::start],
            given,
            change: |api| {
                change_spec(api, "apps/daemonsets", |spec| {
                    spec["template"]["spec"]["containers"][0]["image"] = json!("v2");
                });
            },
            always: |w| {
                let places: Vec<String> = (w.active().iter())
                    .map(|p| text(p, "/spec/nodeName").to_owned())
                    .filter(|n| !n.is_empty())
                    .collect();
                assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len(), "one on each node");
                assert!(w.active().len() <= NODES.len());
                assert!(!w.changed || w.ready() >= NODES.len() - 1, "one is down at most");
            },
            before: |w| w.ready() == 3 && w.only("apps/daemonsets")["status"]["numberReady"] == 3,
            after: |w| {
                let (pods, set) = (w.api.objects("pods"), w.only("apps/daemonsets"));
                pods.len() == 3
                    && pods.iter().all(|p| text(p, "/spec/containers/0/image") == "v2")
                    && set["status"]["updatedNumberScheduled"] == 3
                    && set["status"]["numberAvailable"] == 3
                    && observed(&set)
            },
        },
        10,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn job() {
    for mode in ["NonIndexed", "Indexed"] {
        let spec = json!({"completions": 5, "parallelism": 2, "backoffLimit": 6, "completionMode": mode,
            "selector": {"matchLabels": {"a": "b"}}, "template": template()});
        endure(
            Scenario {
                controllers: &[crate::job::start],
                given: vec![("/apis/batch/v1/namespaces/ns/jobs", object("w", spec))],
                change: |_| {},
                always: |w| {
                    assert!(w.active().len() <= 2);
                    assert!(w.api.created("pods") <= 5, "each success counts once");
                },
                before: |w| w.api.created("pods") > 0,
                after: |w| {
                    let status = &w.only("batch/jobs")["status"];
                    let complete = status["conditions"].as_array().into_iter().flatten();
                    let held =
                        |p: &Value| p["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
                    complete.filter(|c| c["type"] == "Complete").count() == 1
                        && status["succeeded"] == 5
                        && status["failed"].is_null()
                        && w.api.created("pods") == 5
                        && !w.api.objects("pods").iter().any(held)
                },
            },
            12,
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn cron_job() {
    let job = json!({"spec": {"template": template(), "completions": 1, "parallelism": 1}});
    let spec = json!({"schedule": "0 0 1 1 *", "concurrencyPolicy": "Allow", "jobTemplate": job,
        "successfulJobsHistoryLimit": 3});
    endure(
        Scenario {
            controllers: &[crate::cron_job::start],
            given: vec![("/apis/batch/v1/namespaces/ns/cronjobs", object("w", spec))],
            change: |api| {
                for job in api.objects("batch/jobs") {
                    api.change("batch/jobs", &key(&job), |job| {
                        job["status"] = json!({"completionTime": "2024-01-01T00:01:00Z",
                            "conditions": [{"type": "Complete", "status": "True"}]});
                    });
                }
            },
            always: |w| assert!(w.api.created("batch/jobs") <= 1, "one Job for one time"),
            before: |w| {
                let status = &w.only("batch/cronjobs")["status"];
                status["active"].as_array().is_some_and(|a| a.len() == 1)
                    && status["lastScheduleTime"].is_string()
            },
            after: |w| {
                let status = &w.only("batch/cronjobs")["status"];
                status["active"].as_array().is_none_or(Vec::is_empty)
                    && status["lastSuccessfulTime"].is_string()
                    && w.api.objects("batch/jobs").len() == 1
            },
        },
        2,
    )
    .await;
}
