//! Namespace: empties a namespace that is being deleted, then lets it go.
//!
//! Pods go first, the rest when no pod is left. Which kinds there are is asked anew in every pass, so that nothing
//! of a kind that came late is left behind.

mod content;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::context::Context;
use crate::runtime::object::{ObjectKey, deleting, key_of, name, now, seconds_since};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};

const IDENTITY: &str = "namespace-controller";
const WIDTH: usize = 10;
/// The finalizer in a namespace's spec that stands for this controller.
const FINALIZER: &str = "kubernetes";

struct Controller {
    namespaces: Arc<Store<Namespace>>,
    client: Client,
    api: Api<Namespace>,
}

/// Whether things can be created in a namespace.
pub(crate) fn active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    !deleting(&namespace.metadata) && phase != Some("Terminating")
}

/// The controller of namespaces' ends.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let client = context.client(IDENTITY);
    let controller =
        Controller { namespaces: context.informers.all(), api: Api::all(client.clone()), client };
    let queue = Arc::new(Queue::default());
    let sink = queue.clone();
    controller.namespaces.on_change(move |change| {
        if deleting(&change.object().metadata) {
            sink.add(key_of(&change.object().metadata));
        }
    });
    let cancel = context.cancel.clone();
    async move {
        controller.namespaces.wait_synced().await;
        drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(held) = self.namespaces.get(&key).filter(|n| deleting(&n.metadata)) else { return Ok(None) };
        let ours = held.spec.iter().flat_map(|s| s.finalizers.iter().flatten()).any(|f| f == FINALIZER);
        if !ours {
            return Ok(None);
        }
        let found = content::empty(&self.client, &key.name).await;
        let mut namespace = (*held).clone();
        let status = plan::status(&namespace, &found, now());
        if namespace.status.as_ref() != Some(&status) {
            namespace.status = Some(status);
            let result = self.api.replace_status(&key.name, &PostParams::default(), &namespace).await;
            let Some(written) = outcome::gone_is_fine(result)? else { return Ok(None) };
            self.namespaces.written(written.clone());
            namespace = written;
        }
        if found.is_empty() {
            return self.finalize(namespace).await;
        }
        Ok(Some(plan::wait(&namespace, now())))
    }

    async fn finalize(&self, mut namespace: Namespace) -> Outcome {
        for finalizers in namespace.spec.iter_mut().flat_map(|s| s.finalizers.iter_mut()) {
            finalizers.retain(|f| f != FINALIZER);
        }
        let name = name(&namespace.metadata);
        let result = self.api.replace_subresource("finalize", name, &PostParams::default(), &namespace).await;
        outcome::gone_is_fine(result)?;
        let took = namespace.metadata.deletion_timestamp.as_ref().map(|t| seconds_since(t.0, now()));
        tracing::debug!(namespace = name, seconds = took, "namespace is empty and finalized");
        Ok(None)
    }
}

/// The shortest and longest time between two looks at a namespace that is not yet empty.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
