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
