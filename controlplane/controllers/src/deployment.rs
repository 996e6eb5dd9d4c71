//! Deployment: rolls its pods from one template to the next by making and scaling ReplicaSets.
//!
//! `plan` decides everything; this file watches, and applies the actions in their order.

mod conditions;
mod history;
mod plan;
mod rollout;
mod scale;
mod status;
mod template;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;

use crate::context::Context;
use crate::runtime::children::{follow, follow_self, owner_key};
use crate::runtime::claim::{claim, settle};
use crate::runtime::object::{
    Matcher, ObjectKey, controller_of, deleting, finished, key_of, name, namespace, now, uid,
};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::recorder::{Note, Recorder};
use crate::runtime::store::{Change, Store};
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;
use plan::{Action, Observed};

const IDENTITY: &str = "deployment-controller";
const WIDTH: usize = 8;

struct Controller {
    deployments: Arc<Store<Deployment>>,
    sets: Arc<Store<ReplicaSet>>,
    pods: Arc<Store<Pod>>,
    deployment_writer: Writer<Deployment>,
    set_writer: Writer<ReplicaSet>,
    recorder: Recorder,
}

fn selector(deployment: &Deployment) -> Option<Matcher> {
    Matcher::new(&deployment.spec.selector)
}

/// The controller of Deployments.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        deployments: context.informers.all(),
        sets: context.informers.all(),
        pods: context.informers.all(),
        deployment_writer: context.writer(IDENTITY),
        set_writer: context.writer(IDENTITY),
        recorder: context.recorder(IDENTITY),
    };
    let queue = Arc::new(Queue::default());
    follow_self(&controller.deployments, queue.clone());
    follow(&controller.sets, controller.deployments.clone(), queue.clone(), selector);
    follow_last_pods(&controller, queue.clone());
    let cancel = context.cancel.clone();
    async move {
        controller.deployments.wait_synced().await;
        controller.sets.wait_synced().await;
        controller.pods.wait_synced().await;
        drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

/// A Deployment that recreates waits for its old pods to be gone: queue it when one goes.
fn follow_last_pods(controller: &Controller, queue: Arc<Queue<ObjectKey>>) {
    let (sets, deployments) = (controller.sets.clone(), controller.deployments.clone());
    controller.pods.on_change(move |change| {
        let gone = matches!(change, Change::Deleted(_)) || finished(change.object());
        let Some(set) = owner_key::<ReplicaSet, Pod>(change.object()).filter(|_| gone) else { return };
        let Some(set) = sets.get(&set) else { return };
        let Some(key) = owner_key::<Deployment, ReplicaSet>(&set) else { return };
        if deployments.get(&key).is_some_and(|d| rollout::recreates(&d)) {
            queue.add(key);
        }
    });
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(deployment) = self.deployments.get(&key) else { return Ok(None) };
        let meta = &deployment.metadata;
        let Some(selector) = selector(&deployment) else { return Ok(None) };
        if selector.is_empty() {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.note(&*deployment, &Note::warning("SelectingAll", text));
            return Ok(None);
        }
        let owned = self.sets.owned_by(uid(meta));
        let claim = claim(owned, self.sets.orphans(namespace(meta)), &selector, deleting(meta));
        let sets =
            settle(&*deployment, claim, &self.set_writer, || self.deployment_writer.lives(&deployment))
                .await?;
        let running =
            |set: &ReplicaSet| self.pods.owned_by(uid(&set.metadata)).iter().any(|pod| !finished(pod));
        let plan =
            plan::plan(&Observed { deployment: &deployment, sets: &sets, running: &running, now: now() });
        let mut latest = (*deployment).clone();
        for action in plan.actions {
            self.apply(&mut latest, action).await?;
        }
        Ok(plan.again)
    }

    async fn apply(&self, latest: &mut Deployment, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Create(set) => self.create(latest, *set).await?,
            Action::Update(set) => {
                self.set_writer.replace(&set).await?;
            }
            Action::Delete(set) => {
                self.set_writer.delete(&set, &DeleteParams::background(), true).await?;
            }
            Action::Report { status, annotations } => {
                latest.status = Some(*status);
                if annotations.is_some() {
                    latest.metadata.annotations = annotations;
                }
                if let Some(written) =
                    outcome::gone_is_fine(self.deployment_writer.replace_status(latest).await)?
                {
                    *latest = written;
                }
            }
            Action::Tell(note) => self.recorder.note(latest, &note),
        }
        Ok(())
    }

    /// Creates a ReplicaSet. If its name is taken by another template, the next try hashes differently.
    async fn create(&self, deployment: &mut Deployment, set: ReplicaSet) -> anyhow::Result<()> {
        let error = match self.set_writer.create(&set).await {
            Ok(_) => return Ok(()),
            Err(error) if outcome::namespace_terminating(&error) => return Ok(()),
            Err(error) => error,
        };
        if outcome::already_exists(&error) {
            let there = self.set_writer.get(namespace(&set.metadata), name(&set.metadata)).await?;
            let ours = there.is_some_and(|there| {
                controller_of(&there.metadata).is_some_and(|o| o.uid == uid(&deployment.metadata))
                    && template::same(there.spec.template.as_ref(), &deployment.spec.template)
            });
            if !ours {
                let status = deployment.status.get_or_insert_default();
                status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                *deployment = self.deployment_writer.replace_status(deployment).await?;
                tracing::debug!(deployment = %key_of(&deployment.metadata), "hash collision");
            }
            return Err(error.into());
        }
        let failed = conditions::failed_create(deployment, &outcome::message(&error), now());
        if let Some(status) = failed {
            deployment.status = Some(status);
            *deployment = self.deployment_writer.replace_status(deployment).await?;
        }
        let text = format!(
            "Failed to create new replica set {:?}: {}",
            name(&set.metadata),
            outcome::message(&error)
        );
        self.recorder.note(deployment, &Note::warning("ReplicaSetCreateError", text));
        Err(error.into())
    }
}

#[cfg(test)]
mod tests;
