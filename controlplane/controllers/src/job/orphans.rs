//! Lets go of pods whose Job is gone: nobody will count them, so nothing may hold them.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::{Controller, WIDTH};
use crate::runtime::children::owner_key;
use crate::runtime::object::{ObjectKey, controller_of, key_of, uid};
use crate::runtime::queue::Queue;
use crate::runtime::store::{Change, Store};
use crate::runtime::worker::{Outcome, drive};

use super::tracking::is_held;

/// The uid of the Job that a pod is held for.
fn holder(pod: &Pod) -> Option<&str> {
    let owner = controller_of(&pod.metadata).filter(|o| o.kind == "Job")?;
    (is_held(pod) && owner.api_version.starts_with("batch/")).then_some(owner.uid.as_str())
}

/// Queues held pods whose Job is not known.
pub(super) fn follow(jobs: &Arc<Store<Job>>, pods: &Arc<Store<Pod>>) -> Arc<Queue<ObjectKey>> {
    let queue = Arc::new(Queue::default());
    let (sink, known) = (queue.clone(), jobs.clone());
    pods.on_change(move |change| {
        let pod = change.object();
        if matches!(change, Change::Deleted(_)) {
            return;
        }
        let Some(id) = holder(pod) else { return };
        let job = owner_key::<Job, Pod>(pod).and_then(|key| known.get(&key));
        if job.is_none_or(|job| uid(&job.metadata) != id) {
            sink.add(key_of(&pod.metadata));
        }
    });
    let (sink, children) = (queue.clone(), pods.clone());
    jobs.on_change(move |change| {
        if let Change::Deleted(job) = change {
            let left = children.owned_by(uid(&job.metadata));
            left.iter().for_each(|pod| sink.add(key_of(&pod.metadata)));
        }
    });
    queue
}

/// Works through the queue until the controllers end.
pub(super) fn run(
    controller: Arc<Controller>,
    queue: Arc<Queue<ObjectKey>>,
    cancel: tokio_util::sync::CancellationToken,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        drive("job-controller (orphans)", queue, WIDTH, cancel, |key| controller.let_go(key)).await;
    })
}

impl Controller {
    async fn let_go(&self, key: ObjectKey) -> Outcome {
        let Some(pod) = self.pods.get(&key) else { return Ok(None) };
        let Some(id) = holder(&pod) else { return Ok(None) };
        let Some(job) = owner_key::<Job, Pod>(&pod) else { return Ok(None) };
        // The pod may have been seen before its Job: the server knows.
        let place = job.namespace.as_deref().unwrap_or_default();
        let there = self.writer.get(place, &job.name).await?;
        if there.is_none_or(|job| uid(&job.metadata) != id) {
            self.release(&pod).await?;
        }
        Ok(None)
    }
}
