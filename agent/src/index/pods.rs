//! The pods that were given to this node, as a stream of whole pods. Must not know what is done with them.

use futures::{Stream, StreamExt as _};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt as _, watcher};
use pagurus_agent_core::pods::Pod;

/// What the watch says.
#[derive(Debug)]
pub enum PodEvent {
    /// The pod is so now.
    Is(Box<Pod>),
    /// The pod was forgotten; this is the last that was known of it.
    Gone(Box<Pod>),
    /// All pods there are were named since the last `Reset`; others are gone.
    Complete,
    /// The watch begins anew.
    Reset,
}

/// The resource, without the weight of its typed form.
pub fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"))
}

/// The pods of this node, for ever. Errors of the watch are logged and the watch is tried again, slower each time.
pub fn pods(client: kube::Client, node_name: &str) -> impl Stream<Item = PodEvent> + Send + use<> {
    let api: Api<DynamicObject> = Api::all_with(client, &resource());
    let wanted = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
    watcher(api, wanted).default_backoff().filter_map(|event| async move {
        match event {
            Ok(watcher::Event::Init) => Some(PodEvent::Reset),
            Ok(watcher::Event::InitDone) => Some(PodEvent::Complete),
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                decode(object).map(PodEvent::Is)
            }
            Ok(watcher::Event::Delete(object)) => decode(object).map(PodEvent::Gone),
            Err(error) => {
                tracing::warn!(%error, "watch of this node's pods failed; trying again");
                None
            }
        }
    })
}

/// A pod that cannot be understood is stepped over: the others must not suffer.
fn decode(object: DynamicObject) -> Option<Box<Pod>> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let decoded = serde_json::to_value(object).map_err(anyhow::Error::from).and_then(|v| Ok(Pod::decode(v)?));
    match decoded {
        Ok(pod) => Some(Box::new(pod)),
        Err(error) => {
            tracing::error!(pod = name, %error, "a pod of this node cannot be understood; it is left alone");
            None
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::index::scripted::{Scripted, object};

    const PATH: &str = "/api/v1/pods";

    /// The next event in a word.
    async fn next(events: &mut (impl Stream<Item = PodEvent> + Unpin)) -> String {
        let event =
            tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("an event in time");
        match event.unwrap() {
            PodEvent::Is(pod) => format!("is {}@{}", pod.name.name, pod.resource_version),
            PodEvent::Gone(pod) => format!("gone {}", pod.name.name),
            PodEvent::Complete => "complete".into(),
            PodEvent::Reset => "reset".into(),
        }
    }

    #[tokio::test]
    async fn lists_then_follows() {
        let api = Scripted::default();
        let pod = |name: &str, revision: u64| {
            object(name, revision, json!({"spec": {"containers": [{"name": "c"}]}}))
        };
        // One that cannot be understood is stepped over.
        let broken = object("broken", 1, json!({"spec": {"containers": "none"}}));
        api.set(PATH, vec![pod("a", 1), broken, pod("b", 2)]);
        let mut events = std::pin::pin!(pods(api.client(), "n1"));
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != "complete") {
            seen.push(next(&mut events).await);
        }
        assert_eq!(seen, ["reset", "is a@1", "is b@2", "complete"]);
        assert!(api.count("fieldSelector=spec.nodeName%3Dn1") > 0, "only this node's pods are asked for");
        let feed = async {
            while !api.send(PATH, "MODIFIED", pod("a", 3)).await {
                tokio::task::yield_now().await;
            }
            assert!(api.send(PATH, "DELETED", pod("b", 4)).await);
        };
        let (first, ()) = tokio::join!(next(&mut events), feed);
        assert_eq!(first, "is a@3");
        assert_eq!(next(&mut events).await, "gone b");
        // The watch ends; it goes on where it was, without a new list.
        let lists = api.count("limit=");
        api.end_watch(PATH);
        let feed = async {
            while !api.send(PATH, "ADDED", pod("c", 5)).await {
                tokio::task::yield_now().await;
            }
        };
        let (first, ()) = tokio::join!(next(&mut events), feed);
        assert_eq!((first.as_str(), api.count("limit=")), ("is c@5", lists));
    }
}
