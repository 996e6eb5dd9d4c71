//! TTL after finished: deletes Jobs some time after they have ended, if they ask for it.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::api::DeleteParams;

use crate::context::Context;
use crate::runtime::children::follow_self;
use crate::runtime::object::{ObjectKey, after_seconds, deleting, now};
use crate::runtime::queue::Queue;
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "ttl-after-finished-controller";

struct Controller {
    jobs: Arc<Store<Job>>,
    writer: Writer<Job>,
}

/// The controller that deletes ended Jobs.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller { jobs: context.informers.all(), writer: context.writer(IDENTITY) };
    let queue = Arc::new(Queue::default());
    follow_self(&controller.jobs, queue.clone());
    let cancel = context.cancel.clone();
    async move {
        controller.jobs.wait_synced().await;
        drive(IDENTITY, queue, 4, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

/// When a Job is to be deleted; `None` if never, or not yet known.
fn due(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let ended = (job.status.as_ref()?.conditions.iter().flatten())
        .find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))?;
    Some(after_seconds(ended.last_transition_time.as_ref()?.0, i64::from(ttl)))
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(job) = self.jobs.get(&key).filter(|j| !deleting(&j.metadata)) else { return Ok(None) };
        let Some(due) = due(&job) else { return Ok(None) };
        if due > now() {
            return Ok(Some(Duration::try_from(due.duration_since(now())).unwrap_or_default()));
        }
        // The revision is part of the condition: a Job whose ttl was just raised stays.
        self.writer.delete(&job, &DeleteParams::foreground(), true).await?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn due_times() {
        let ended =
            json!([{"type": "Complete", "status": "True", "lastTransitionTime": "1970-01-01T00:01:00Z"}]);
        for (ttl, conditions, expected) in [
            (json!(30), ended.clone(), Some(90)),
            (json!(0), ended.clone(), Some(60)),
            (Value::Null, ended, None),
            (json!(30), json!([{"type": "Complete", "status": "False"}]), None),
            (json!(30), json!([]), None),
        ] {
            let job: Job = serde_json::from_value(json!({
                "metadata": {}, "status": {"conditions": conditions},
                "spec": {"template": {}, "ttlSecondsAfterFinished": ttl},
            }))
            .unwrap();
            assert_eq!(due(&job).map(|d| d.as_second()), expected);
        }
    }
}
