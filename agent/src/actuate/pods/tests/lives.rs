//! Whole lives of pods.

use super::*;

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "command": ["sh", "-c", script]})
}

const SLEEP: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_and_ends() {
    let node = Node::start();
    let begun = std::time::Instant::now();
    node.create("a", json!({"containers": [shell("c", SLEEP)], "terminationGracePeriodSeconds": 5}));
    let pod = node.until("a", "ready", is_ready).await;
    println!("ready after {:?}", begun.elapsed());
    assert_eq!(container(&pod, "c")["restartCount"], 0);
    assert_eq!(pod["status"]["podIP"], "192.0.2.1");
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    assert_eq!(condition(&pod, "DisruptionTarget"), "False", "the conditions of others stay");
    for kind in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&pod, kind), "True", "{kind}");
    }
    let begun = std::time::Instant::now();
    node.delete("a", 5);
    let last = node.until_gone("a").await;
    println!("gone after {:?}", begun.elapsed());
    assert!(container(&last, "c")["state"]["terminated"].is_object(), "{last:#}");
    assert!(matches!(phase(&last), "Succeeded" | "Failed"), "{last:#}");
    node.until_no_trace("a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_restart_restarts_nothing() {
    let node = Node::start();
    node.create("r", json!({"containers": [shell("c", SLEEP)], "terminationGracePeriodSeconds": 1}));
    let before = node.until("r", "ready", is_ready).await;
    let node = node.restart().await;
    node.eventually("the new agent sees the pod", async || {
        node.table.get(&uid("r")).is_some_and(|view| view.container("c").is_some())
    })
    .await;
    node.api.change("r", |pod| pod["metadata"]["annotations"] = json!({"x": "y"}));
    node.eventually("the new agent sees the annotation", async || {
        node.table.get(&uid("r")).is_some_and(|view| view.pod.annotations.contains_key("x"))
    })
    .await;
    let after = node.until("r", "ready", is_ready).await;
    assert_eq!(container(&before, "c"), container(&after, "c"));
    node.delete("r", 1);
    node.until_gone("r").await;
    node.until_no_trace("r").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_forgotten_meanwhile_is_ended() {
    let node = Node::start();
    node.create("f", json!({"containers": [shell("c", SLEEP)], "terminationGracePeriodSeconds": 1}));
    node.until("f", "ready", is_ready).await;
    node.api.state.send_modify(|state| state.pods.clear());
    let node = node.restart().await;
    node.until_no_trace("f").await;
}

/// Has the container exit on the fake runtime; a real one runs the script.
fn exit(node: &Node, name: &str, code: i32) {
    if let Some(fake) = &node.fake {
        assert!(fake.exit_container(name, code), "{name} does not run");
    }
}

/// A script that ends at once on a real runtime and, on the fake one, when the test says so.
fn ends(name: &str, code: i32) -> Value {
    shell(name, &format!("exit {code}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_containers_run_in_order_then_the_others() {
    let node = Node::start();
    node.create(
        "i",
        json!({
            "restartPolicy": "Never",
            "initContainers": [ends("one", 0), ends("two", 0)],
            "containers": [ends("app", 0)],
        }),
    );
    for name in ["one", "two"] {
        if node.fake.is_some() {
            let pod = node
                .until("i", "initializing", |pod| container(pod, name)["state"]["running"].is_object())
                .await;
            assert_eq!(phase(&pod), "Pending");
            assert_eq!(condition(&pod, "Initialized"), "False");
            assert_eq!(container(&pod, "app")["state"]["waiting"]["reason"], "PodInitializing");
        }
        if node.fake.is_some() {
            exit(&node, name, 0);
        }
    }
    if node.fake.is_some() {
        node.until("i", "running", |pod| container(pod, "app")["state"]["running"].is_object()).await;
        exit(&node, "app", 0);
    }
    let pod = node.until("i", "succeeded", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(container(&pod, "app")["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(&pod, "Initialized"), "True");
    assert_eq!(condition(&pod, "Ready"), "False");
    let ends =
        |name: &str| container(&pod, name)["state"]["terminated"]["finishedAt"].as_str().unwrap().to_owned();
    assert!(ends("one") <= ends("two") && ends("two") <= ends("app"));
    node.delete("i", 0);
    node.until_gone("i").await;
    node.until_no_trace("i").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_init_container_fails_the_pod() {
    let node = Node::start();
    node.create(
        "x",
        json!({
            "restartPolicy": "Never", "initContainers": [ends("one", 3)], "containers": [ends("app", 0)],
        }),
    );
    if node.fake.is_some() {
        node.until("x", "initializing", |pod| container(pod, "one")["state"]["running"].is_object()).await;
        exit(&node, "one", 3);
    }
    let pod = node.until("x", "failed", |pod| phase(pod) == "Failed").await;
    assert_eq!(container(&pod, "one")["state"]["terminated"]["exitCode"], 3);
    assert_eq!(container(&pod, "app")["state"]["waiting"]["reason"], "PodInitializing");
    node.delete("x", 0);
    node.until_gone("x").await;
    node.until_no_trace("x").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_restarts_at_once_and_then_waits() {
    let node = Node::start();
    node.create("c", json!({"containers": [ends("app", 1)], "terminationGracePeriodSeconds": 1}));
    for restarts in 0..2 {
        if node.fake.is_some() {
            node.until("c", "running", |pod| {
                container(pod, "app")["restartCount"] == restarts
                    && container(pod, "app")["state"]["running"].is_object()
            })
            .await;
            exit(&node, "app", 1);
        }
    }
    let pod = node
        .until("c", "backing off", |pod| {
            container(pod, "app")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    assert_eq!(phase(&pod), "Running");
    assert_eq!(container(&pod, "app")["restartCount"], 1);
    assert_eq!(container(&pod, "app")["lastState"]["terminated"]["exitCode"], 1);
    let message = container(&pod, "app")["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!(message, "back-off 10s restarting failed container=app pod=c_default(uid-c)");
    // The back-off is not the agent's memory: a new one waits on.
    let node = node.restart().await;
    node.api.change("c", |pod| pod["metadata"]["annotations"] = json!({"x": "y"}));
    let pod = node
        .until("c", "still backing off", |pod| {
            container(pod, "app")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    assert_eq!(container(&pod, "app")["restartCount"], 1);
    node.delete("c", 0);
    node.until_gone("c").await;
    node.until_no_trace("c").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_liveness_probe_restarts() {
    let node = Node::start();
    let mut app = shell("app", SLEEP);
    app["livenessProbe"] = json!({"exec": {"command": ["true"]}});
    app["readinessProbe"] = json!({"exec": {"command": ["true"]}});
    node.create("l", json!({"containers": [app], "terminationGracePeriodSeconds": 1}));
    let pod = node.until("l", "running", |pod| phase(pod) == "Running").await;
    assert_eq!(condition(&pod, "Ready"), "False", "no probe has said so");
    node.probes.find("l", "app", ProbeKind::Readiness, Verdict::Success);
    node.until("l", "ready", is_ready).await;
    node.probes.find("l", "app", ProbeKind::Readiness, Verdict::Failure);
    node.until("l", "unready", |pod| condition(pod, "Ready") == "False").await;
    node.probes.find("l", "app", ProbeKind::Liveness, Verdict::Failure);
    let pod = node.until("l", "restarted", |pod| container(pod, "app")["restartCount"] == 1).await;
    assert!(container(&pod, "app")["lastState"]["terminated"].is_object(), "{pod:#}");
    node.delete("l", 1);
    node.until_gone("l").await;
    node.until_no_trace("l").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_objects_are_waited_for() {
    let node = Node::start();
    let mut app = shell("app", &format!("test \"$K\" = v && test \"$(cat /v/k)\" = v && {SLEEP}"));
    app["env"] = json!([{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]);
    node.create("m", json!({"containers": [app.clone()], "terminationGracePeriodSeconds": 1}));
    let pod = node
        .until("m", "waiting", |pod| {
            container(pod, "app")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    assert_eq!(container(&pod, "app")["state"]["waiting"]["message"], "configmap \"cm\" not found");
    assert_eq!(phase(&pod), "Pending");
    app["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    let volumes = json!([{"name": "v", "configMap": {"name": "cm"}}]);
    node.create("n", json!({"containers": [app], "volumes": volumes, "terminationGracePeriodSeconds": 1}));
    node.until("n", "waiting", |pod| {
        container(pod, "app")["state"]["waiting"]["reason"] == "ContainerCreating"
    })
    .await;
    node.objects.config_map("cm", &[("k", "v")]);
    for name in ["m", "n"] {
        node.until(name, "ready", is_ready).await;
    }
    let file = node.dirs.pod(&uid("n")).join("volumes/kubernetes.io~configmap/v/k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "v");
    node.objects.config_map("cm", &[("k", "w"), ("l", "x")]);
    node.eventually("the file follows the object", async || {
        std::fs::read_to_string(&file).is_ok_and(|text| text == "w")
    })
    .await;
    for name in ["m", "n"] {
        node.delete(name, 1);
        node.until_gone(name).await;
        node.until_no_trace(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_that_cannot_be_had() {
    let node = Node::start();
    if let Some(fake) = &node.fake {
        fake.fail("PullImage", tonic::Code::NotFound, "no such image");
    }
    let image = "pagurus.invalid/none:1";
    let app = |policy: &str| json!({"name": "app", "image": image, "imagePullPolicy": policy});
    node.create("never", json!({"containers": [app("Never")]}));
    node.create("always", json!({"containers": [app("Always")]}));
    let reason = |pod: &Value| {
        container(pod, "app")["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_owned()
    };
    let pod = node.until("never", "waiting", |pod| reason(pod) == "ErrImageNeverPull").await;
    assert_eq!(phase(&pod), "Pending");
    node.until("always", "failed to pull", |pod| reason(pod) == "ErrImagePull").await;
    let pod = node.until("always", "backing off", |pod| reason(pod) == "ImagePullBackOff").await;
    let message =
        container(&pod, "app")["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.starts_with(&format!("Back-off pulling image \"{image}\": ErrImagePull: ")), "{message}");
    if let Some(fake) = &node.fake {
        let why = "failed to parse image reference \"X::\": invalid reference format";
        fake.fail("PullImage", tonic::Code::Unknown, why);
    }
    node.create("invalid", json!({"containers": [{"name": "app", "image": "X::"}]}));
    node.until("invalid", "told so", |pod| reason(pod) == "InvalidImageName").await;
    for name in ["never", "always", "invalid"] {
        node.delete(name, 30);
        node.until_gone(name).await;
        node.until_no_trace(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused() {
    let node = Node::start();
    let with_port = || {
        let mut app = shell("app", SLEEP);
        app["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
        json!({"containers": [app], "terminationGracePeriodSeconds": 1})
    };
    node.create("one", with_port());
    node.until("one", "ready", is_ready).await;
    node.create("two", with_port());
    let pod = node.until("two", "refused", |pod| phase(pod) == "Failed").await;
    assert_eq!(pod["status"]["reason"], "NodePorts");
    // The one that was taken stays so, for a new agent too.
    let node = node.restart().await;
    node.api.change("one", |pod| pod["metadata"]["annotations"] = json!({"x": "y"}));
    node.eventually("the new agent sees the annotation", async || {
        node.table.get(&uid("one")).is_some_and(|view| view.pod.annotations.contains_key("x"))
    })
    .await;
    assert!(is_ready(&node.until("one", "ready", is_ready).await));
    // Labels that this node does not have, or has.
    let on = |disk: &str| json!({"containers": [shell("app", SLEEP)], "nodeSelector": {"disk": disk}, "terminationGracePeriodSeconds": 1});
    node.create("elsewhere", on("slow"));
    let pod = node.until("elsewhere", "refused", |pod| phase(pod) == "Failed").await;
    assert_eq!(pod["status"]["reason"], "NodeAffinity");
    node.create("here", on("fast"));
    node.until("here", "ready", is_ready).await;
    for name in ["one", "two", "elsewhere", "here"] {
        node.delete(name, 1);
        node.until_gone(name).await;
        node.until_no_trace(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_ends_a_pod() {
    let node = Node::start();
    node.create("d", json!({
        "containers": [shell("app", SLEEP)], "activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 1,
    }));
    let pod = node.until("d", "overdue", |pod| phase(pod) == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    // On a slow machine the deadline may be over before the container runs.
    node.until("d", "stopped", |pod| container(pod, "app")["state"]["running"].is_null()).await;
    node.delete("d", 0);
    node.until_gone("d").await;
    node.until_no_trace("d").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_sandbox_is_made_again() {
    let node = Node::start();
    node.create("s", json!({"containers": [shell("app", SLEEP)], "terminationGracePeriodSeconds": 1}));
    node.until("s", "ready", is_ready).await;
    let id = node.table.get(&uid("s")).unwrap().sandbox_id().unwrap().to_owned();
    node.runtime.stop_sandbox(&id).await.unwrap();
    let pod =
        node.until("s", "restarted", |pod| container(pod, "app")["restartCount"] == 1 && is_ready(pod)).await;
    assert_eq!(phase(&pod), "Running");
    node.delete("s", 1);
    node.until_gone("s").await;
    node.until_no_trace("s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecars_start_first_and_end_last() {
    let node = Node::start();
    let mut sidecar = shell("side", SLEEP);
    sidecar["restartPolicy"] = "Always".into();
    sidecar["startupProbe"] = json!({"exec": {"command": ["true"]}});
    node.create(
        "p",
        json!({
            "restartPolicy": "Never", "initContainers": [sidecar], "containers": [ends("app", 0)],
            "terminationGracePeriodSeconds": 2,
        }),
    );
    let pod = node.until("p", "starting", |pod| container(pod, "side")["state"]["running"].is_object()).await;
    assert_eq!(container(&pod, "side")["started"], false);
    assert_eq!(container(&pod, "app")["state"]["waiting"]["reason"], "PodInitializing");
    node.probes.find("p", "side", ProbeKind::Startup, Verdict::Success);
    if node.fake.is_some() {
        node.until("p", "running", |pod| container(pod, "app")["state"]["running"].is_object()).await;
        exit(&node, "app", 0);
    }
    let pod = node.until("p", "succeeded", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(container(&pod, "app")["state"]["terminated"]["exitCode"], 0);
    node.until("p", "all stopped", |pod| container(pod, "side")["state"]["terminated"].is_object()).await;
    node.delete("p", 0);
    node.until_gone("p").await;
    node.until_no_trace("p").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_run_and_a_failed_one_ends_the_container() {
    let node = Node::start();
    if let Some(fake) = &node.fake {
        fake.answer_exec(
            "false",
            pagurus_cri_api::v1::ExecSyncResponse { exit_code: 1, ..Default::default() },
        );
    }
    let mut app = shell("app", SLEEP);
    app["lifecycle"] = json!({
        "postStart": {"exec": {"command": ["touch", "/tmp/started"]}},
        "preStop": {"exec": {"command": ["touch", "/tmp/stopped"]}},
    });
    node.create("h", json!({"containers": [app], "terminationGracePeriodSeconds": 5}));
    node.until("h", "ready", is_ready).await;
    node.delete("h", 5);
    node.until_gone("h").await;
    if node.fake.is_some() {
        let calls = node.fake().calls();
        let place = |call: &str| {
            calls
                .iter()
                .position(|made| made.starts_with(call))
                .unwrap_or_else(|| panic!("{call}: {calls:?}"))
        };
        assert!(place("StartContainer app") < place("ExecSync touch /tmp/started"));
        assert!(place("ExecSync touch /tmp/stopped") < place("StopContainer app"));
    }
    let mut app = shell("app", SLEEP);
    app["lifecycle"] = json!({"postStart": {"exec": {"command": ["false"]}}});
    node.create(
        "g",
        json!({"containers": [app], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}),
    );
    let pod = node.until("g", "failed", |pod| matches!(phase(pod), "Failed" | "Succeeded")).await;
    assert!(container(&pod, "app")["state"]["terminated"].is_object());
    for name in ["h", "g"] {
        if name == "g" {
            node.delete(name, 1);
            node.until_gone(name).await;
        }
        node.until_no_trace(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shorter_grace_cuts_a_longer_one_short() {
    let node = Node::start();
    // Ignores the stop signal.
    node.create("k", json!({"containers": [shell("app", "trap '' TERM; while :; do sleep 0.1; done")], "terminationGracePeriodSeconds": 600}));
    node.until("k", "ready", is_ready).await;
    node.delete("k", 600);
    if node.fake.is_none() {
        node.delete("k", 1);
    }
    let begun = std::time::Instant::now();
    let last = node.until_gone("k").await;
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_ne!(container(&last, "app")["state"]["terminated"]["exitCode"], 0);
    node.until_no_trace("k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_runs_once_though_the_stop_begins_anew() {
    let node = Node::start();
    let mut app = shell("app", SLEEP);
    app["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 600}}});
    node.create("o", json!({"containers": [app], "terminationGracePeriodSeconds": 600}));
    node.until("o", "ready", is_ready).await;
    node.delete("o", 600);
    node.eventually("the stop is under way", async || {
        node.table
            .get(&uid("o"))
            .is_some_and(|view| view.pod.is_terminating() && view.pending.to_string().contains("Stop"))
    })
    .await;
    let begun = std::time::Instant::now();
    node.delete("o", 2);
    node.until_gone("o").await;
    assert!(begun.elapsed() < Duration::from_secs(10), "the hook was not run again");
    node.until_no_trace("o").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_while_it_starts() {
    let node = Node::start();
    for round in 0..8 {
        let name = format!("q{round}");
        node.create(&name, json!({"containers": [shell("app", SLEEP)], "terminationGracePeriodSeconds": 1}));
        // At another point of the start each time.
        tokio::time::sleep(Duration::from_millis(20 * round)).await;
        node.delete(&name, 1);
    }
    for round in 0..8 {
        let name = format!("q{round}");
        node.until_gone(&name).await;
        node.until_no_trace(&name).await;
    }
}
