//! CronJob: starts Jobs at the times of a schedule.

mod plan;
mod schedule;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::DeleteParams;

use crate::context::Context;
use crate::runtime::children::{follow, follow_self};
use crate::runtime::object::{ObjectKey, controller_of, name, namespace, now, uid};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::recorder::{Note, Recorder};
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "cronjob-controller";
const WIDTH: usize = 4;

struct Controller {
    cron_jobs: Arc<Store<CronJob>>,
    jobs: Arc<Store<Job>>,
    writer: Writer<CronJob>,
    job_writer: Writer<Job>,
    recorder: Recorder,
}

/// The controller of CronJobs.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        cron_jobs: context.informers.all(),
        jobs: context.informers.all(),
        writer: context.writer(IDENTITY),
        job_writer: context.writer(IDENTITY),
        recorder: context.recorder(IDENTITY),
    };
    let queue = Arc::new(Queue::default());
    follow_self(&controller.cron_jobs, queue.clone());
    // A CronJob adopts nothing.
    follow(&controller.jobs, controller.cron_jobs.clone(), queue.clone(), |_| None);
    let cancel = context.cancel.clone();
    async move {
        controller.cron_jobs.wait_synced().await;
        controller.jobs.wait_synced().await;
        drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(cron_job) = self.cron_jobs.get(&key) else { return Ok(None) };
        let jobs = self.jobs.owned_by(uid(&cron_job.metadata));
        let mut plan = plan::plan(&cron_job, &jobs, now());
        for note in &plan.notes {
            self.recorder.note(&*cron_job, note);
        }
        for job in &plan.delete {
            self.delete(&cron_job, job).await?;
        }
        if let Some((job, at)) = plan.create.take()
            && let Some(made) = self.create(&cron_job, &job).await?
        {
            plan::started(&mut plan.status, &made, at);
        }
        if plan::tidy(cron_job.status.clone().unwrap_or_default()) != plan.status {
            let changed = CronJob { status: Some(plan.status), ..(*cron_job).clone() };
            outcome::gone_is_fine(self.writer.replace_status(&changed).await)?;
        }
        Ok(plan.again)
    }

    async fn delete(&self, cron_job: &CronJob, job: &Job) -> Result<(), kube::Error> {
        let job_name = name(&job.metadata);
        match self.job_writer.delete(job, &DeleteParams::background(), false).await {
            Ok(()) => {
                self.recorder
                    .note(cron_job, &Note::normal("SuccessfulDelete", format!("Deleted job {job_name}")));
                Ok(())
            }
            Err(error) => {
                let text = format!("Deleted job: {}", outcome::message(&error));
                self.recorder.note(cron_job, &Note::warning("FailedDelete", text));
                Err(error)
            }
        }
    }

    /// Creates a Job, or finds the one that an earlier pass has created for the same time.
    async fn create(&self, cron_job: &CronJob, job: &Job) -> Result<Option<Job>, kube::Error> {
        match self.job_writer.create(job).await {
            Ok(made) => {
                let text = format!("Created job {}", name(&made.metadata));
                self.recorder.note(cron_job, &Note::normal("SuccessfulCreate", text));
                Ok(Some(made))
            }
            Err(error) if outcome::namespace_terminating(&error) => Ok(None),
            Err(error) if outcome::already_exists(&error) => {
                let there = self.job_writer.get(namespace(&job.metadata), name(&job.metadata)).await?;
                let ours = |job: &Job| {
                    controller_of(&job.metadata).is_some_and(|o| o.uid == uid(&cron_job.metadata))
                };
                match there.filter(ours) {
                    Some(there) => Ok(Some(there)),
                    None => Err(error),
                }
            }
            Err(error) => {
                let text = format!("Error creating job: {}", outcome::message(&error));
                self.recorder.note(cron_job, &Note::warning("FailedCreate", text));
                Err(error)
            }
        }
    }
}
