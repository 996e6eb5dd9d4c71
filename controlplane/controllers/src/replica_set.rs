//! ReplicaSet (and ReplicationController): keeps so many pods of a template alive.
//!
//! `plan` decides how many to create and which to delete, `status` what to report; this file watches and applies.

mod plan;
mod replicated;
mod status;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::serde::Serialize;
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::runtime::children::{follow, follow_self};
use crate::runtime::claim::{claim, live_orphans, settle};
use crate::runtime::object::{
    Object, ObjectKey, active, controller_of, controller_reference, deleting, key_of, now, uid,
};
use crate::runtime::outcome;
use crate::runtime::pods::{create_all, delete_all, from_template, per_node};
use crate::runtime::queue::Queue;
use crate::runtime::recorder::Recorder;
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;
use replicated::Replicated;
use status::Failure;

const WIDTH: usize = 8;

struct Controller<S> {
    sets: Arc<Store<S>>,
    pods: Arc<Store<Pod>>,
    set_writer: Writer<S>,
    pod_writer: Writer<Pod>,
    recorder: Recorder,
}

/// The controller of ReplicaSets.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    start_for::<ReplicaSet>(context)
}

/// The controller of ReplicationControllers.
pub(crate) fn start_replication(context: &Context) -> BoxFuture<'static, ()> {
    start_for::<ReplicationController>(context)
}

fn start_for<S>(context: &Context) -> BoxFuture<'static, ()>
where
    S: Replicated + Object<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned,
{
    let controller = Controller::<S> {
        sets: context.informers.all(),
        pods: context.informers.all(),
        set_writer: context.writer(S::IDENTITY),
        pod_writer: context.writer(S::IDENTITY),
        recorder: context.recorder(S::IDENTITY),
    };
    let queue = Arc::new(Queue::default());
    follow_self(&controller.sets, queue.clone());
    follow(&controller.pods, controller.sets.clone(), queue.clone(), S::matcher);
    let cancel = context.cancel.clone();
    async move {
        controller.sets.wait_synced().await;
        controller.pods.wait_synced().await;
        drive(S::IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

impl<S> Controller<S>
where
    S: Replicated + Object<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned,
{
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(set) = self.sets.get(&key) else { return Ok(None) };
        let meta = set.meta();
        let Some(selector) = set.matcher() else { return Ok(None) };
        let orphans = live_orphans(&self.pods, meta.namespace.as_deref().unwrap_or_default());
        let claim = claim(self.pods.owned_by(uid(meta)), orphans, &selector, deleting(meta));
        settle(&*set, claim, &self.pod_writer, || self.set_writer.lives(&set)).await?;

        let result = if deleting(meta) { Ok(()) } else { self.scale(&set).await };
        let failure = result.as_ref().err().filter(|e| !outcome::namespace_terminating(e)).map(|e| Failure {
            reason: if self.owned(&set).len() < plan::wanted(&*set) {
                "FailedCreate"
            } else {
                "FailedDelete"
            },
            message: outcome::message(e),
        });
        let again = self.report(&set, failure).await?;
        match result {
            Err(error) if outcome::namespace_terminating(&error) => Ok(again),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(again),
        }
    }

    /// The set's pods that are neither finished nor being deleted, as of our last write.
    fn owned(&self, set: &S) -> Vec<Arc<Pod>> {
        let selector = set.matcher();
        (self.pods.owned_by(uid(set.meta())).into_iter())
            .filter(|pod| active(pod) && selector.as_ref().is_some_and(|s| s.matches(&pod.metadata)))
            .collect()
    }

    async fn scale(&self, set: &S) -> Result<(), kube::Error> {
        let pods = self.owned(set);
        let plan = plan::plan(plan::wanted(set), &pods, &self.related(set, &pods), now());
        if plan.create > 0 {
            let Some(template) = set.template() else { return Ok(()) };
            let pod = from_template(set.meta(), controller_reference(set), template);
            create_all(set, vec![pod; plan.create], &self.pod_writer, &self.recorder).await?;
        }
        delete_all(set, plan.delete.iter().map(|p| &**p), &self.pod_writer, &self.recorder).await
    }

    /// Per node, the active pods of all sets that share this set's owner.
    fn related(&self, set: &S, pods: &[Arc<Pod>]) -> std::collections::BTreeMap<String, usize> {
        let Some(owner) = controller_of(set.meta()) else { return per_node(pods.iter().map(|p| &**p)) };
        let siblings = self.sets.owned_by(&owner.uid);
        let pods: Vec<Arc<Pod>> = (siblings.iter())
            .flat_map(|sibling| self.pods.owned_by(uid(sibling.meta())))
            .filter(|pod| active(pod))
            .collect();
        per_node(pods.iter().map(|p| &**p))
    }

    /// Writes the status if it differs; says when a ready pod will become available.
    async fn report(&self, set: &Arc<S>, failure: Option<Failure>) -> Result<Option<Duration>, kube::Error> {
        // The set may have been written to since; its status must not be planned from the older one.
        let set = self.sets.get(&key_of(set.meta())).unwrap_or_else(|| set.clone());
        let pods = self.pods.owned_by(uid(set.meta()));
        let (status, again) = status::status(&*set, &pods, failure, now());
        if status != status::tidy(set.status()) {
            outcome::gone_is_fine(self.set_writer.replace_status(&set.with_status(status)).await)?;
        }
        Ok(again)
    }
}

#[cfg(test)]
mod tests;
