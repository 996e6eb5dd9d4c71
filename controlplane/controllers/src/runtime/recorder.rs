//! Events: what a controller tells the users about an object.
//!
//! `Recorder::note` never waits: a bounded queue leads to one task that writes. The same event about the same
//! object within the hour is counted up instead of written again; and of many about one object, only the first few
//! and then one in five minutes are written, as upstream's clients do.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::object::{after_seconds, name, namespace, now, seconds_since, uid};
use super::outcome;

const CAPACITY: usize = 1024;
/// Events that are remembered for counting up.
const REMEMBERED: usize = 4096;
const REMEMBERED_SECONDS: i64 = 3600;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// So many events about one object are written at once, and then one in this time.
const BURST: i64 = 25;
const REFILL_SECONDS: i64 = 300;

/// The two types of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// All is as it should be.
    Normal,
    /// Something to look at.
    Warning,
}

/// An event to be told, without the object it is about. What plans return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its type.
    pub kind: EventType,
    /// One word in camel case.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Note {
    /// A normal event.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventType::Normal, reason, message: message.into() }
    }

    /// A warning.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventType::Warning, reason, message: message.into() }
    }
}

/// A reference to an object, for events.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// Tells events under one component's name. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Event>,
    component: &'static str,
}

impl Recorder {
    /// Tells an event about an object. If too many are waiting it is dropped: events are best effort.
    pub fn note<K: Resource<DynamicType = ()>>(&self, object: &K, note: &Note) {
        let at = now();
        let about = reference(object);
        let place = Some(namespace(object.meta())).filter(|n| !n.is_empty()).unwrap_or("default");
        let stamp = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{stamp:x}", name(object.meta()))),
                namespace: Some(place.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: about,
            reason: Some(note.reason.to_owned()),
            message: Some(note.message.clone()),
            type_: Some(match note.kind {
                EventType::Normal => "Normal".to_owned(),
                EventType::Warning => "Warning".to_owned(),
            }),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            first_timestamp: Some(Time(at)),
            last_timestamp: Some(Time(at)),
            count: Some(1),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: Some(String::new()),
            ..Event::default()
        };
        if self.sender.try_send(event).is_err() {
            tracing::debug!(
                object = uid(object.meta()),
                reason = note.reason,
                "event dropped: queue is full"
            );
        }
    }
}

/// Makes a recorder for `component` and the task that writes its events through `client`.
pub fn recorder(
    client: Client,
    component: &'static str,
    cancel: CancellationToken,
) -> (Recorder, impl Future<Output = ()> + Send + use<>) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (Recorder { sender, component }, write_all(client, receiver, cancel))
}

#[derive(Hash, PartialEq, Eq)]
struct Identity {
    object: String,
    type_: Option<String>,
    reason: Option<String>,
    message: Option<String>,
}

/// How much may still be said about each object.
#[derive(Default)]
struct Allowance {
    /// Events left, and since when.
    left: HashMap<String, (i64, Timestamp)>,
}

impl Allowance {
    fn admits(&mut self, object: &str, now: Timestamp) -> bool {
        if self.left.len() >= REMEMBERED {
            // Those that are full again are as good as new.
            self.left.retain(|_, (left, since)| *left + seconds_since(*since, now) / REFILL_SECONDS < BURST);
        }
        let (left, since) = self.left.entry(object.to_owned()).or_insert((BURST, now));
        let refilled = seconds_since(*since, now) / REFILL_SECONDS;
        if *left + refilled >= BURST {
            (*left, *since) = (BURST, now);
        } else if refilled > 0 {
            (*left, *since) = (*left + refilled, after_seconds(*since, refilled * REFILL_SECONDS));
        }
        let admitted = *left > 0;
        *left -= i64::from(admitted);
        admitted
    }
}

async fn write_all(client: Client, mut receiver: mpsc::Receiver<Event>, cancel: CancellationToken) {
    let mut told: HashMap<Identity, Event> = HashMap::new();
    let mut allowance = Allowance::default();
    loop {
        let event = tokio::select! {
            () = cancel.cancelled() => return,
            event = receiver.recv() => match event {
                Some(event) => event,
                None => return,
            },
        };
        let identity = Identity {
            object: format!(
                "{}/{}",
                event.involved_object.kind.as_deref().unwrap_or_default(),
                event.involved_object.uid.as_deref().unwrap_or_default()
            ),
            type_: event.type_.clone(),
            reason: event.reason.clone(),
            message: event.message.clone(),
        };
        if !allowance.admits(&identity.object, now()) {
            continue;
        }
        let before = told.remove(&identity).filter(fresh);
        match tokio::time::timeout(WRITE_TIMEOUT, write(&client, event, before)).await {
            Ok(Ok(written)) => {
                if told.len() >= REMEMBERED {
                    told.retain(|_, event| fresh(event));
                    if told.len() >= REMEMBERED {
                        told.clear();
                    }
                }
                told.insert(identity, written);
            }
            Ok(Err(error)) if outcome::namespace_terminating(&error) || outcome::not_found(&error) => {}
            Ok(Err(error)) => tracing::warn!("event not written: {error}"),
            Err(_) => tracing::debug!("event not written: timed out"),
        }
    }
}

fn fresh(event: &Event) -> bool {
    event.last_timestamp.as_ref().is_some_and(|t| seconds_since(t.0, now()) < REMEMBERED_SECONDS)
}

async fn write(client: &Client, event: Event, before: Option<Event>) -> Result<Event, kube::Error> {
    let api = Api::<Event>::namespaced(client.clone(), namespace(&event.metadata));
    if let Some(before) = before {
        let patch = json!({
            "count": before.count.unwrap_or(1) + 1,
            "lastTimestamp": event.last_timestamp,
        });
        match api.patch(name(&before.metadata), &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if outcome::not_found(&error) => {}
            other => return other,
        }
    }
    api.create(&PostParams::default(), &event).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_in_five_minutes() {
        let mut allowance = Allowance::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let count = |allowance: &mut Allowance, object: &str, from: i64, to: i64| {
            (from..to).filter(|second| allowance.admits(object, at(*second))).count()
        };
        assert_eq!(count(&mut allowance, "a", 0, 300), 25);
        assert_eq!(count(&mut allowance, "b", 0, 10), 10, "each object has its own");
        assert_eq!(count(&mut allowance, "a", 300, 1500), 4);
        // After a long rest all is as new.
        assert_eq!(count(&mut allowance, "a", 100_000, 100_100), 25);
    }
}
