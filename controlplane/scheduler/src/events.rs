//! Events of the scheduler, in the `events.k8s.io` form: told without waiting, written by one task.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use crate::pod::PodInfo;

const CAPACITY: usize = 2048;
const REMEMBERED: usize = 4096;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells events.
#[derive(Clone)]
pub(crate) struct Recorder {
    sender: mpsc::Sender<Event>,
    component: String,
    instance: String,
}

/// What an event says.
pub(crate) struct Note<'a> {
    pub(crate) type_: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) action: &'static str,
    pub(crate) text: &'a str,
}

impl Recorder {
    /// Tells an event about a pod; dropped if too many are waiting.
    pub(crate) fn note(&self, pod: &PodInfo, note: &Note<'_>) {
        let now = Timestamp::now();
        let stamp = u64::try_from(now.as_nanosecond()).unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{stamp:x}", pod.key.name)),
                namespace: pod.key.namespace.clone(),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            regarding: Some(pod.reference()),
            reason: Some(note.reason.to_owned()),
            action: Some(note.action.to_owned()),
            note: Some(note.text.to_owned()),
            type_: Some(note.type_.to_owned()),
            reporting_controller: Some(self.component.clone()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        if self.sender.try_send(event).is_err() {
            tracing::debug!(pod = %pod.key, reason = note.reason, "event dropped: queue is full");
        }
    }
}

/// A recorder and the task behind it, which ends with the last recorder.
pub(crate) fn recorder(
    client: Client,
    component: &str,
) -> (Recorder, impl Future<Output = ()> + Send + use<>) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let instance = format!("{component}-{}", std::process::id());
    (Recorder { sender, component: component.to_owned(), instance }, write_all(client, receiver))
}

type Identity = (Option<String>, Option<String>, Option<String>);

fn identity(event: &Event) -> Identity {
    let uid = |r: &ObjectReference| r.uid.clone();
    (event.regarding.as_ref().and_then(uid), event.reason.clone(), event.note.clone())
}

async fn write_all(client: Client, mut receiver: mpsc::Receiver<Event>) {
    let mut told: HashMap<Identity, (Event, i32)> = HashMap::new();
    while let Some(event) = receiver.recv().await {
        let identity = identity(&event);
        let before = told.remove(&identity);
        match tokio::time::timeout(WRITE_TIMEOUT, write(&client, event, before)).await {
            Ok(Ok(written)) => {
                if told.len() >= REMEMBERED {
                    told.clear();
                }
                told.insert(identity, written);
            }
            Ok(Err(error)) => tracing::debug!("event not written: {error}"),
            Err(_) => tracing::debug!("event not written: timed out"),
        }
    }
}

/// Creates an event, or continues the series of the same one.
async fn write(
    client: &Client,
    event: Event,
    before: Option<(Event, i32)>,
) -> Result<(Event, i32), kube::Error> {
    let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
    let api = Api::<Event>::namespaced(client.clone(), namespace);
    if let Some((before, count)) = before {
        let count = count + 1;
        let patch = json!({"series": {"count": count, "lastObservedTime": event.event_time}});
        let name = before.metadata.name.as_deref().unwrap_or_default();
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => return Ok((other?, count)),
        }
    }
    Ok((api.create(&PostParams::default(), &event).await?, 1))
}
