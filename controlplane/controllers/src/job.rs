//! Job: runs pods until so many have succeeded.
//!
//! Each finished pod is counted exactly once: its uid goes into the status, then its finalizer is removed, then the
//! uid becomes a number. So no crash in between counts a pod twice or never.

mod backoff;
mod conditions;
mod failure_policy;
mod indexes;
mod orphans;
mod plan;
mod pods;
mod scale;
mod success_policy;
mod tracking;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Patch;
use serde_json::json;

use crate::context::Context;
use crate::runtime::children::{follow, follow_self};
use crate::runtime::claim::{claim, settle};
use crate::runtime::object::{Matcher, ObjectKey, deleting, namespace, now, uid};
use crate::runtime::outcome;
use crate::runtime::pods::{create_all, delete_all};
use crate::runtime::queue::Queue;
use crate::runtime::recorder::Recorder;
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;
use plan::Plan;

const IDENTITY: &str = "job-controller";
const WIDTH: usize = 8;
/// Other controllers may manage Jobs that name them.
const MANAGER: &str = "kubernetes.io/job-controller";

struct Controller {
    jobs: Arc<Store<Job>>,
    pods: Arc<Store<Pod>>,
    writer: Writer<Job>,
    pod_writer: Writer<Pod>,
    recorder: Recorder,
}

fn selector(job: &Job) -> Option<Matcher> {
    Matcher::new(job.spec.as_ref()?.selector.as_ref()?).filter(|m| !m.is_empty())
}

/// The controller of Jobs.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Arc::new(Controller {
        jobs: context.informers.all(),
        pods: context.informers.all(),
        writer: context.writer(IDENTITY),
        pod_writer: context.writer(IDENTITY),
        recorder: context.recorder(IDENTITY),
    });
    let queue = Arc::new(Queue::default());
    follow_self(&controller.jobs, queue.clone());
    follow(&controller.pods, controller.jobs.clone(), queue.clone(), selector);
    let orphans = orphans::follow(&controller.jobs, &controller.pods);
    let cancel = context.cancel.clone();
    async move {
        controller.jobs.wait_synced().await;
        controller.pods.wait_synced().await;
        let orphans = orphans::run(controller.clone(), orphans, cancel.clone());
        futures::join!(drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)), orphans);
    }
    .boxed()
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(job) = self.jobs.get(&key) else { return Ok(None) };
        let manager = job.spec.as_ref().and_then(|s| s.managed_by.as_deref());
        if manager.is_some_and(|m| m != MANAGER) {
            return Ok(None);
        }
        let Some(selector) = selector(&job) else { return Ok(None) };
        let orphans = self.pods.orphans(namespace(&job.metadata));
        let claim =
            claim(self.pods.owned_by(uid(&job.metadata)), orphans, &selector, deleting(&job.metadata));
        for pod in &claim.release {
            self.release(pod).await?;
        }
        let pods = settle(&*job, claim, &self.pod_writer, || self.writer.lives(&job)).await?;
        let plan = plan::plan(&job, &pods, now());
        self.apply(&job, plan).await
    }

    /// Removes the finalizer with which we hold a pod.
    async fn release(&self, pod: &Pod) -> Result<(), kube::Error> {
        if !tracking::is_held(pod) {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "uid": uid(&pod.metadata),
            "$deleteFromPrimitiveList/finalizers": [tracking::FINALIZER],
        }});
        outcome::gone_is_fine(self.pod_writer.patch(pod, &Patch::Strategic(patch)).await)?;
        Ok(())
    }

    async fn apply(&self, job: &Arc<Job>, plan: Plan) -> Outcome {
        for result in join_all(plan.retire.iter().map(|pod| self.release(pod))).await {
            result?;
        }
        let retired = plan.retire.iter().map(|p| &**p);
        delete_all(&**job, retired, &self.pod_writer, &self.recorder).await?;
        delete_all(&**job, plan.stop.iter().map(|p| &**p), &self.pod_writer, &self.recorder).await?;
        let new = plan.create.iter().map(|new| pods::pod(job, *new)).collect();
        let created = create_all(&**job, new, &self.pod_writer, &self.recorder).await;
        let mut status = plan.status;
        if !plan.create.is_empty() {
            plan::count_active(&mut status, &self.pods.owned_by(uid(&job.metadata)));
        }
        if tracking::tidy(job.status.clone().unwrap_or_default()) != status {
            let changed = Job { status: Some(status), ..(**job).clone() };
            if outcome::gone_is_fine(self.writer.replace_status(&changed).await)?.is_none() {
                return Ok(None);
            }
        }
        for note in &plan.notes {
            self.recorder.note(&**job, note);
        }
        // The status knows them now: they may go.
        for result in join_all(plan.counted.iter().map(|pod| self.release(pod))).await {
            result?;
        }
        match created {
            Err(error) if !outcome::namespace_terminating(&error) => Err(error.into()),
            _ => Ok(plan.again),
        }
    }
}

#[cfg(test)]
mod tests;
