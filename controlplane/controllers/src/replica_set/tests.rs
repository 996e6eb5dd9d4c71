//! The controller against an API server in memory: lagging watches, refused writes, deletions by others.

use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ControllersConfig;
use crate::runtime::fake::FakeApi;

struct World {
    api: Arc<FakeApi>,
    cancel: CancellationToken,
    controllers: JoinHandle<anyhow::Result<()>>,
}

fn start_world() -> World {
    let api = FakeApi::new();
    let cancel = CancellationToken::new();
    let (server, token) = (api.clone(), cancel.clone());
    let controllers = tokio::spawn(async move {
        let client_for = Arc::new(move |_: &str| server.client());
        let context = Context::new(client_for, ControllersConfig::default(), token);
        let controllers = vec![("replicaset", start(&context))];
        context.run(controllers).await
    });
    World { api, cancel, controllers }
}

impl World {
    async fn create_set(&self, replicas: i32) {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
                     "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}},
        }))
        .unwrap();
        let api = Api::<ReplicaSet>::namespaced(self.api.client(), "ns");
        api.create(&PostParams::default(), &set).await.unwrap();
    }

    fn scale(&self, replicas: i32) {
        self.api.change("apps/replicasets", "ns/web", |set| {
            set["spec"]["replicas"] = json!(replicas);
            set["metadata"]["generation"] = json!(set["metadata"]["generation"].as_i64().unwrap() + 1);
        });
    }

    fn pods(&self) -> Vec<Value> {
        self.api.objects("pods")
    }

    fn status(&self) -> Value {
        self.api.objects("apps/replicasets")[0]["status"].clone()
    }

    /// Waits for a state, and fails if it does not come.
    async fn until(&self, what: &str, test: impl Fn(&Self) -> bool) {
        for _ in 0..4000 {
            if test(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what} never came: {} pods, status {}", self.pods().len(), self.status());
    }

    async fn end(self) {
        self.cancel.cancel();
        self.controllers.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lagging_watch_makes_no_surplus() {
    let world = start_world();
    world.create_set(20).await;
    world.until("20 pods", |w| w.pods().len() == 20 && w.status()["replicas"] == 20).await;
    // From here on the controller sees nothing but its own writes, and the change of the set.
    world.scale(30);
    world.until("30 pods", |w| w.pods().len() == 30).await;
    world.api.hold_watches.store(true, Ordering::SeqCst);
    let gone = world.pods()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let pods = Api::<Pod>::namespaced(world.api.client(), "ns");
    pods.delete(&gone, &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.pods().len(), 29, "what it cannot see it does not replace");
    world.api.release_watches();
    world.until("30 pods again", |w| w.pods().len() == 30).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.pods().len(), 30);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn refused_creations_are_tried_again_and_told() {
    let world = start_world();
    world.api.refuse_every.store(7, Ordering::SeqCst);
    world.create_set(25).await;
    world.until("25 pods", |w| w.pods().len() == 25 && w.status()["replicas"] == 25).await;
    let told = |w: &World| w.api.objects("events").iter().any(|e| e["reason"] == "FailedCreate");
    world.until("an event", told).await;
    assert!(world.status()["conditions"].is_null(), "the failure is over: {}", world.status());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn scaling_down_to_nothing_and_up_again() {
    let world = start_world();
    world.create_set(5).await;
    for size in [0, 7, 2, 0, 3] {
        world.scale(size);
        let reached = |w: &World| {
            let generation = &w.api.objects("apps/replicasets")[0]["metadata"]["generation"];
            w.status()["observedGeneration"] == *generation && w.status()["replicas"] == size
        };
        world.until("the size", reached).await;
        assert_eq!(world.pods().len(), usize::try_from(size).unwrap());
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn others_pods_are_left_alone() {
    let world = start_world();
    let pods = Api::<Pod>::namespaced(world.api.client(), "ns");
    let foreign: Pod = serde_json::from_value(json!({
        "metadata": {"name": "foreign", "labels": {"a": "b"}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "o", "controller": true}]},
        "spec": {"containers": []},
    }))
    .unwrap();
    pods.create(&PostParams::default(), &foreign).await.unwrap();
    world.create_set(2).await;
    world.until("its own pods", |w| w.pods().len() == 3 && w.status()["replicas"] == 2).await;
    world.scale(0);
    world.until("the end", |w| w.pods().len() == 1).await;
    assert_eq!(world.pods()[0]["metadata"]["name"], "foreign");
    world.end().await;
}
