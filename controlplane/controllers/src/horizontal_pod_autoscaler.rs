//! HorizontalPodAutoscaler: keeps its target between minimum and maximum, and says why it does no more.
//!
//! What pods use is told by the metrics APIs, which are other people's servers. This API server does not yet lead to
//! such servers, so each autoscaler says what one in a cluster without a metrics server says.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::ReplicationController;
use kube::api::{Api, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::runtime::children::follow_self;
use crate::runtime::object::{Object, ObjectKey, deleting, key_of, namespace, now};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::recorder::Recorder;
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;
use plan::Target;

const IDENTITY: &str = "horizontal-pod-autoscaler";
const WIDTH: usize = 5;
/// How often metrics are asked for.
const EVERY: Duration = Duration::from_secs(15);

struct Controller {
    autoscalers: Arc<Store<HorizontalPodAutoscaler>>,
    deployments: Arc<Store<Deployment>>,
    replica_sets: Arc<Store<ReplicaSet>>,
    stateful_sets: Arc<Store<StatefulSet>>,
    replication_controllers: Arc<Store<ReplicationController>>,
    writer: Writer<HorizontalPodAutoscaler>,
    client: Client,
    recorder: Recorder,
}

/// The controller of autoscalers.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        autoscalers: context.informers.all(),
        deployments: context.informers.all(),
        replica_sets: context.informers.all(),
        stateful_sets: context.informers.all(),
        replication_controllers: context.informers.all(),
        writer: context.writer(IDENTITY),
        client: context.client(IDENTITY),
        recorder: context.recorder(IDENTITY),
    };
    let queue = Arc::new(Queue::default());
    follow_self(&controller.autoscalers, queue.clone());
    let cancel = context.cancel.clone();
    async move {
        controller.autoscalers.wait_synced().await;
        controller.deployments.wait_synced().await;
        controller.replica_sets.wait_synced().await;
        controller.stateful_sets.wait_synced().await;
        controller.replication_controllers.wait_synced().await;
        drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

/// Where a scale is written: group and plural name.
type Place = (&'static str, &'static str);

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(autoscaler) = self.autoscalers.get(&key).filter(|a| !deleting(&a.metadata)) else {
            return Ok(None);
        };
        let target = self.target(&autoscaler);
        let mut plan =
            plan::plan(&autoscaler, target.as_ref().map(|(_, t)| *t).map_err(String::as_str), now());
        if plan.wants_metrics {
            let answers = self.metrics(&autoscaler).await;
            plan::without_metrics(&autoscaler, &answers, now(), &mut plan);
        }
        if let (Some(size), Ok((place, _))) = (plan.resize, &target) {
            let result = self.resize(&autoscaler, *place, size).await;
            let failure = result.as_ref().err().map(outcome::message);
            plan::resized(size, failure.as_deref(), now(), &mut plan);
        }
        for note in &plan.notes {
            self.recorder.note(&*autoscaler, note);
        }
        if autoscaler.status.as_ref() != Some(&plan.status) {
            let changed = HorizontalPodAutoscaler { status: Some(plan.status), ..(*autoscaler).clone() };
            outcome::gone_is_fine(self.writer.replace_status(&changed).await)?;
        }
        Ok(Some(EVERY))
    }

    /// The target's sizes and where to change them, or why there is none.
    fn target(&self, autoscaler: &HorizontalPodAutoscaler) -> Result<(Place, Target), String> {
        let wanted = &autoscaler.spec.scale_target_ref;
        let group = wanted.api_version.as_deref().unwrap_or_default();
        let group = group.split_once('/').map_or("", |(group, _)| group);
        let key = ObjectKey { namespace: autoscaler.metadata.namespace.clone(), name: wanted.name.clone() };
        let name = &wanted.name;
        match (group, wanted.kind.as_str()) {
            ("apps", "Deployment") => {
                found("deployments", "apps", name, &self.deployments, &key, |d| Target {
                    wanted: d.spec.replicas.unwrap_or(1),
                    actual: d.status.as_ref().and_then(|s| s.replicas).unwrap_or(0),
                })
            }
            ("apps", "ReplicaSet") => {
                found("replicasets", "apps", name, &self.replica_sets, &key, |s| Target {
                    wanted: s.spec.replicas.unwrap_or(1),
                    actual: s.status.as_ref().map_or(0, |s| s.replicas),
                })
            }
            ("apps", "StatefulSet") => {
                found("statefulsets", "apps", name, &self.stateful_sets, &key, |s| Target {
                    wanted: s.spec.replicas.unwrap_or(1),
                    actual: s.status.as_ref().map_or(0, |s| s.replicas),
                })
            }
            ("", "ReplicationController") => {
                found("replicationcontrollers", "", name, &self.replication_controllers, &key, |c| Target {
                    wanted: c.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1),
                    actual: c.status.as_ref().map_or(0, |s| s.replicas),
                })
            }
            (_, kind) => Err(format!(
                "unable to determine resource for scale target reference: no matches for kind {kind:?} in group {group:?}"
            )),
        }
    }

    async fn resize(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        (_, plural): Place,
        size: i32,
    ) -> Result<(), kube::Error> {
        let place = namespace(&autoscaler.metadata);
        let name = autoscaler.spec.scale_target_ref.name.as_str();
        match plural {
            "deployments" => set_scale::<Deployment>(&self.client, place, name, size).await,
            "replicasets" => set_scale::<ReplicaSet>(&self.client, place, name, size).await,
            "statefulsets" => set_scale::<StatefulSet>(&self.client, place, name, size).await,
            _ => set_scale::<ReplicationController>(&self.client, place, name, size).await,
        }
    }

    /// What the metrics APIs say, one answer per metric: an error, since what they would say is not used yet.
    async fn metrics(&self, autoscaler: &HorizontalPodAutoscaler) -> Vec<String> {
        let mut answers = Vec::new();
        for metric in autoscaler.spec.metrics.iter().flatten() {
            let path = plan::metrics_path(metric, namespace(&autoscaler.metadata));
            let request = http::Request::get(path).body(Vec::new());
            let result = match request {
                Ok(request) => self.client.request::<serde_json::Value>(request).await,
                Err(error) => Err(kube::Error::HttpError(error)),
            };
            answers.push(match result {
                Ok(_) => "scaling by metrics is not there yet".to_owned(),
                Err(error) if outcome::not_found(&error) => {
                    "the server could not find the requested resource".to_owned()
                }
                Err(error) => outcome::message(&error),
            });
        }
        answers
    }
}

fn found<K: Object>(
    plural: &'static str,
    group: &'static str,
    name: &str,
    store: &Store<K>,
    key: &ObjectKey,
    sizes: impl FnOnce(&K) -> Target,
) -> Result<(Place, Target), String> {
    let held = store.get(key).filter(|held| key_of(held.meta()) == *key);
    let dotted = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    let held = held.ok_or_else(|| format!("{dotted} {name:?} not found"))?;
    Ok(((group, plural), sizes(&held)))
}

async fn set_scale<K>(client: &Client, place: &str, name: &str, size: i32) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), place);
    let mut scale = api.get_scale(name).await?;
    scale.spec.get_or_insert_default().replicas = Some(size);
    api.replace_scale(name, &PostParams::default(), &scale).await.map(drop)
}
