//! The prober with a runtime in memory and a real TCP port: what is probed, when a worker is woken.
#![allow(clippy::unwrap_used, reason = "tests")]

use pagurus_agent_core::pods::probes::Verdict;
use pagurus_cri_api::fake::FakeRuntime;
use pagurus_cri_api::v1;
use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::report::events;

struct Bench {
    prober: Prober,
    runtime: Arc<FakeRuntime>,
    verdicts: mpsc::UnboundedReceiver<PodUid>,
    _events: events::Writer,
    _end: tokio_util::sync::DropGuard,
}

fn bench() -> Bench {
    let runtime = Arc::new(FakeRuntime::with_images(["i"]));
    let metrics = Metrics::default();
    let (recorder, writer) = events::channel(&metrics);
    let (sender, verdicts) = mpsc::unbounded_channel();
    let prober = Prober::with(runtime.clone(), recorder, &metrics, move |pod: &PodUid| {
        let _ = sender.send(pod.clone());
    });
    let cancel = CancellationToken::new();
    tokio::spawn(prober.clone().run(cancel.clone()));
    Bench { prober, runtime, verdicts, _events: writer, _end: cancel.drop_guard() }
}

fn pod(container: serde_json::Value) -> Arc<Pod> {
    let mut container = container;
    container["name"] = "c".into();
    let pod = json!({
        "metadata": {"namespace": "ns", "name": "p", "uid": "u"},
        "spec": {"containers": [container]},
    });
    Arc::new(Pod::decode(pod).unwrap())
}

impl Bench {
    fn running(&self, pod: &Arc<Pod>, id: &str, before: Option<Health>) {
        let running = Running { name: "c".to_owned(), id: id.to_owned(), started: Timestamp::now(), before };
        self.prober.set(pod, Some("127.0.0.1".parse().unwrap()), vec![running]);
    }

    fn verdict(&self, id: &str, kind: ProbeKind) -> Option<Verdict> {
        self.prober.results(&PodUid("u".to_owned())).get(id, kind)
    }

    async fn woken(&mut self) {
        let woken = tokio::time::timeout(Duration::from_secs(20), self.verdicts.recv()).await;
        assert_eq!(woken.unwrap().unwrap(), PodUid("u".to_owned()));
    }
}

/// A container that runs; answers its id.
async fn container(runtime: &FakeRuntime) -> String {
    let sandbox = runtime.run_sandbox(v1::PodSandboxConfig::default(), "").await.unwrap();
    let image = Some(v1::ImageSpec { image: "i".to_owned(), ..v1::ImageSpec::default() });
    let config = v1::ContainerConfig { image, ..v1::ContainerConfig::default() };
    let id = runtime.create_container(&sandbox, config, v1::PodSandboxConfig::default()).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    id
}

fn exits(code: i32) -> v1::ExecSyncResponse {
    v1::ExecSyncResponse { exit_code: code, ..v1::ExecSyncResponse::default() }
}

#[tokio::test]
async fn a_ready_port_makes_the_container_ready() {
    let mut bench = bench();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let pod = pod(
        json!({"readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 1}}),
    );
    bench.running(&pod, "one", None);
    assert_eq!(bench.verdict("one", ProbeKind::Readiness), None);
    bench.woken().await;
    assert_eq!(bench.verdict("one", ProbeKind::Readiness), Some(Verdict::Success));
    drop(listener);
    bench.woken().await;
    assert_eq!(bench.verdict("one", ProbeKind::Readiness), Some(Verdict::Failure));
    bench.prober.forget(&pod.uid);
    assert_eq!(bench.verdict("one", ProbeKind::Readiness), None);
}

#[tokio::test]
async fn the_startup_probe_comes_first_and_a_new_container_starts_anew() {
    let mut bench = bench();
    bench.runtime.answer_exec("started", exits(0));
    bench.runtime.answer_exec("alive", exits(1));
    let pod = pod(json!({
        "startupProbe": {"exec": {"command": ["started"]}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1},
    }));
    let (one, two) = (container(&bench.runtime).await, container(&bench.runtime).await);
    bench.running(&pod, &one, None);
    bench.woken().await;
    assert_eq!(bench.verdict(&one, ProbeKind::Startup), Some(Verdict::Success));
    bench.woken().await;
    assert_eq!(bench.verdict(&one, ProbeKind::Liveness), Some(Verdict::Failure));
    bench.runtime.answer_exec("started", exits(1));
    bench.running(&pod, &two, None);
    assert_eq!(bench.verdict(&one, ProbeKind::Liveness), None, "the old container is forgotten");
    assert_eq!(bench.verdict(&two, ProbeKind::Startup), None);
}

#[tokio::test]
async fn what_was_reported_before_holds() {
    let bench = bench();
    let pod = pod(json!({"readinessProbe": {"tcpSocket": {"port": 1}, "initialDelaySeconds": 3600}}));
    bench.running(&pod, "one", Some(Health { started: true, ready: true, failed: None }));
    assert_eq!(bench.verdict("one", ProbeKind::Readiness), Some(Verdict::Success));
}
