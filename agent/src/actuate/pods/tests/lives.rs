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
