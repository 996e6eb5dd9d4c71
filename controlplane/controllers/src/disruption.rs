//! PodDisruptionBudget: counts how many pods of a budget may be evicted now. Evictions read that count.

mod plan;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::context::Context;
use crate::runtime::children::follow_self;
use crate::runtime::object::{ObjectKey, controller_of, key_of, namespace, now};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::recorder::{Note, Recorder};
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "disruption-controller";

struct Controller {
    budgets: Arc<Store<PodDisruptionBudget>>,
    pods: Arc<Store<Pod>>,
    deployments: Arc<Store<Deployment>>,
    sets: Arc<Store<ReplicaSet>>,
    stateful_sets: Arc<Store<StatefulSet>>,
    controllers: Arc<Store<ReplicationController>>,
    writer: Writer<PodDisruptionBudget>,
    recorder: Recorder,
}

/// The controller of disruption budgets.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        budgets: context.informers.all(),
        pods: context.informers.all(),
        deployments: context.informers.all(),
        sets: context.informers.all(),
        stateful_sets: context.informers.all(),
        controllers: context.informers.all(),
        writer: context.writer(IDENTITY),
        recorder: context.recorder_as(IDENTITY, "controllermanager"),
    };
    let queue = Arc::new(Queue::default());
    follow_self(&controller.budgets, queue.clone());
    let (sink, budgets) = (queue.clone(), controller.budgets.clone());
    controller.pods.on_change(move |change| {
        let (pod, before) = (change.object(), change.before());
        if before.is_some_and(|before| plan::alike(before, pod)) {
            return;
        }
        for budget in budgets.in_namespace(namespace(&pod.metadata)) {
            let Some(selector) = plan::selector(&budget) else { continue };
            let now = selector.matches(&pod.metadata);
            if now || before.is_some_and(|before| selector.matches(&before.metadata)) {
                sink.add(key_of(&budget.metadata));
            }
        }
    });
    let cancel = context.cancel.clone();
    async move {
        controller.budgets.wait_synced().await;
        controller.pods.wait_synced().await;
        controller.deployments.wait_synced().await;
        controller.sets.wait_synced().await;
        controller.stateful_sets.wait_synced().await;
        controller.controllers.wait_synced().await;
        drive(IDENTITY, queue, 4, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(budget) = self.budgets.get(&key) else { return Ok(None) };
        let pods: Vec<Arc<Pod>> = match plan::selector(&budget) {
            Some(selector) => (self.pods.in_namespace(namespace(&budget.metadata)).into_iter())
                .filter(|pod| selector.matches(&pod.metadata))
                .collect(),
            None => Vec::new(),
        };
        let plan = plan::plan(&budget, &pods, &|pod| self.scale_of(pod), now());
        if let Some(error) = &plan.error {
            self.recorder.note(&*budget, &Note::warning("CalculateExpectedPodCountFailed", error.clone()));
        }
        if plan::tidy(budget.status.clone().unwrap_or_default()) != plan.status {
            let changed = PodDisruptionBudget { status: Some(plan.status), ..(*budget).clone() };
            outcome::gone_is_fine(self.writer.replace_status(&changed).await)?;
        }
        Ok(plan.again)
    }

    /// The uid of what stands behind a pod, and how many pods it wants.
    fn scale_of(&self, pod: &Pod) -> Option<(String, i32)> {
        let owner = controller_of(&pod.metadata)?;
        let key = ObjectKey { namespace: pod.metadata.namespace.clone(), name: owner.name.clone() };
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let set = self.sets.get(&key)?;
                if let Some(above) = controller_of(&set.metadata).filter(|o| o.kind == "Deployment") {
                    let key = ObjectKey { name: above.name.clone(), ..key };
                    let deployment = self.deployments.get(&key)?;
                    return Some((above.uid.clone(), deployment.spec.replicas.unwrap_or(1)));
                }
                Some((owner.uid.clone(), set.spec.replicas.unwrap_or(1)))
            }
            "StatefulSet" => {
                Some((owner.uid.clone(), self.stateful_sets.get(&key)?.spec.replicas.unwrap_or(1)))
            }
            "ReplicationController" => {
                let spec = self.controllers.get(&key)?.spec.clone()?;
                Some((owner.uid.clone(), spec.replicas.unwrap_or(1)))
            }
            _ => None,
        }
    }
}
