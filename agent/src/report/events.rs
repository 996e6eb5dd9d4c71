//! Events: what happened to a pod or to the node, for people to read. Recording never blocks and never fails; one task
//! writes, repeated events become a count. It must not decide what is worth an event.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::correlate::{Correlator, Decision};
use crate::process::metrics::Metrics;

mod correlate;

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Things go as they should.
    Normal,
    /// Somebody may have to look.
    Warning,
}

impl Severity {
    /// The API's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Happening {
    about: ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Events waiting to be written; more than these are dropped and counted.
const QUEUE: usize = 512;
/// The API refuses longer messages.
const MAX_MESSAGE: usize = 1024;
/// How often an event is tried while the API server does not answer, and how long between tries.
const TRIES: u32 = 12;
const RETRY: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The end that records. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Happening>,
    dropped: Counter,
}

/// The end that writes; [`Writer::run`] is one task of the agent.
pub struct Writer {
    queue: mpsc::Receiver<Happening>,
    written: Counter,
    failed: Counter,
}

/// Makes the two ends.
pub fn channel(metrics: &Metrics) -> (Recorder, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (dropped, written, failed) = (Counter::default(), Counter::default(), Counter::default());
    metrics.register("events", |registry| {
        registry.register("dropped", "Events dropped because the queue was full", dropped.clone());
        registry.register("written", "Events created or counted up", written.clone());
        registry.register("failed", "Events given up after errors", failed.clone());
    });
    (Recorder { queue: sender, dropped }, Writer { queue: receiver, written, failed })
}

/// Whom events about this node are about. They carry the name as uid, as the kubelet's do: `kubectl describe node` looks for
/// both.
pub fn about_node(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        uid: Some(name.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

impl Recorder {
    /// Records a normal event about an object (`kube::ResourceExt`'s `object_ref`, with `field_path` for a container).
    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, Severity::Normal, reason, message.into());
    }

    /// Records a warning about an object.
    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, Severity::Warning, reason, message.into());
    }

    /// Records an event. Never blocks: with the queue full the event is dropped and counted.
    pub fn record(&self, about: &ObjectReference, severity: Severity, reason: &str, mut message: String) {
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE - 4));
            message.push_str(" ...");
        }
        let at = Timestamp::now();
        let happening = Happening { about: about.clone(), severity, reason: reason.to_owned(), message, at };
        if self.queue.try_send(happening).is_err() {
            self.dropped.inc();
        }
    }
}

impl Writer {
    /// Writes events until cancelled, then those already queued, for as long as the API server takes them at once.
    pub async fn run(
        mut self,
        client: kube::Client,
        node_name: Arc<str>,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut correlator = Correlator::default();
        loop {
            let next = tokio::select! {
                next = self.queue.recv() => next,
                () = cancel.cancelled() => self.queue.try_recv().ok(),
            };
            let Some(happening) = next else { return Ok(()) };
            self.write(&client, &node_name, &mut correlator, happening, &cancel).await;
        }
    }

    async fn write(
        &self,
        client: &kube::Client,
        node_name: &str,
        correlator: &mut Correlator,
        happening: Happening,
        cancel: &CancellationToken,
    ) {
        let mut decision = correlator.decide(happening, Timestamp::now());
        if decision == Decision::Drop {
            return;
        }
        for _ in 0..TRIES {
            let outcome = tokio::time::timeout(WRITE_TIMEOUT, apply(client, node_name, &decision)).await;
            match outcome {
                Ok(Ok(())) => {
                    self.written.inc();
                    return;
                }
                // The event we counted up has expired or was deleted: start it anew.
                Ok(Err(kube::Error::Api(status)))
                    if status.code == 404 && matches!(decision, Decision::Count(_)) =>
                {
                    decision = decision.anew();
                    continue;
                }
                Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
                    tracing::debug!(code = status.code, message = %status.message, "event refused");
                    break;
                }
                Ok(Err(error)) => tracing::debug!(%error, "event not written, trying again"),
                Err(_) => tracing::debug!("event not written in time, trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = cancel.cancelled() => break,
            }
        }
        self.failed.inc();
    }
}

async fn apply(client: &kube::Client, node_name: &str, decision: &Decision) -> Result<(), kube::Error> {
    let record = match decision {
        Decision::Drop => return Ok(()),
        Decision::Create(record) | Decision::Count(record) => record,
    };
    let namespace = record.namespace();
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    if let Decision::Count(_) = decision {
        let patch = json!({
            "count": record.count,
            "lastTimestamp": Time(record.last),
            "message": record.message,
        });
        return api.patch(&record.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop);
    }
    let event = Event {
        metadata: ObjectMeta {
            name: Some(record.name.clone()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: record.about.clone(),
        type_: Some(record.severity.as_str().to_owned()),
        reason: Some(record.reason.clone()),
        message: Some(record.message.clone()),
        count: Some(record.count),
        first_timestamp: Some(Time(record.first)),
        last_timestamp: Some(Time(record.last)),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node_name.to_owned()) }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node_name.to_owned()),
        ..Event::default()
    };
    api.create(&PostParams::default(), &event).await.map(drop)
}
