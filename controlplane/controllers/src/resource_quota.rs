//! ResourceQuota: reports how much of each quota is used. The API server refuses by its own count of the same things.
//!
//! Changes of pods, services, claims and quotas are answered at once; what is counted of other kinds is asked for every
//! few seconds, in namespaces whose quotas name such kinds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kube::Client;
use pagurus_controlplane_api::quantity::{Format, Quantity};
use pagurus_controlplane_api::quota::{Usage, applies, count_name, resource_of, sum, usage};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::context::Context;
use crate::runtime::children::follow_self;
use crate::runtime::discovery::{Found, discover};
use crate::runtime::object::{Object, ObjectKey, deleting, key_of, namespace};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::store::{Change, Store};
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "resourcequota-controller";
const WIDTH: usize = 4;
/// How often kinds without a watch of ours are counted.
const EVERY: Duration = Duration::from_secs(10);
/// For a kind that is not served discovery is asked anew after this time.
const KINDS_FRESH: Duration = Duration::from_secs(60);
/// Changes within this time are answered together.
const GATHER: Duration = Duration::from_millis(100);

struct Controller {
    quotas: Arc<Store<ResourceQuota>>,
    pods: Arc<Store<Pod>>,
    services: Arc<Store<Service>>,
    claims: Arc<Store<PersistentVolumeClaim>>,
    writer: Writer<ResourceQuota>,
    client: Client,
    /// What is served, and when that was asked.
    kinds: Mutex<Option<(Instant, Vec<Found>)>>,
}

/// The controller of quotas.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        quotas: context.informers.all(),
        pods: context.informers.all(),
        services: context.informers.all(),
        claims: context.informers.all(),
        writer: context.writer(IDENTITY),
        client: context.client(IDENTITY),
        kinds: Mutex::default(),
    };
    let queue = Arc::new(Queue::default());
    follow_self(&controller.quotas, queue.clone());
    let ended = |pod: &Pod| crate::runtime::object::finished(pod);
    follow(&controller.pods, &controller.quotas, &queue, move |a, b| {
        a.spec == b.spec && ended(a) == ended(b)
    });
    follow(&controller.services, &controller.quotas, &queue, |a, b| a.spec == b.spec);
    follow(&controller.claims, &controller.quotas, &queue, |a, b| a.spec == b.spec);
    let cancel = context.cancel.clone();
    async move {
        controller.quotas.wait_synced().await;
        controller.pods.wait_synced().await;
        controller.services.wait_synced().await;
        controller.claims.wait_synced().await;
        drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

/// Queues the quotas of a namespace in which an object comes, goes, or counts differently.
fn follow<K: Object>(
    objects: &Store<K>,
    quotas: &Arc<Store<ResourceQuota>>,
    queue: &Arc<Queue<ObjectKey>>,
    alike: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
) {
    let (quotas, queue) = (quotas.clone(), queue.clone());
    objects.on_change(move |change| {
        if matches!(change, Change::Updated(old, new) if alike(old, new)) {
            return;
        }
        for quota in quotas.in_namespace(namespace(change.object().meta())) {
            queue.add_after(key_of(&quota.metadata), GATHER);
        }
    });
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(quota) = self.quotas.get(&key).filter(|q| !deleting(&q.metadata)) else { return Ok(None) };
        let place = namespace(&quota.metadata);
        let whole = serde_json::to_value(&*quota)?;
        let mut used = Usage::new();
        let mut again = None;
        for (group, resource) in resources(&quota) {
            match (group.as_str(), resource.as_str()) {
                ("", "pods") => count(&self.pods, place, &whole, "pods", &mut used)?,
                ("", "services") => count(&self.services, place, &whole, "services", &mut used)?,
                ("", "persistentvolumeclaims") => {
                    count(&self.claims, place, &whole, "persistentvolumeclaims", &mut used)?;
                }
                _ => {
                    again = Some(EVERY);
                    let number = match self.kind(&group, &resource).await? {
                        Some(found) => self.number(&found, place).await?,
                        // What is not served is not there.
                        None => 0,
                    };
                    let number = Quantity::from_value(number, Format::DecimalSi);
                    used.insert(count_name(&group, &resource), number);
                    if group.is_empty() {
                        used.insert(resource, number);
                    }
                }
            }
        }
        let status = status(&quota, &used);
        if quota.status.as_ref() != Some(&status) {
            let changed = ResourceQuota { status: Some(status), ..(*quota).clone() };
            outcome::gone_is_fine(self.writer.replace_status(&changed).await)?;
        }
        Ok(again)
    }

    /// The kind of that group and plural name, if it is served.
    async fn kind(&self, group: &str, resource: &str) -> Result<Option<Found>, kube::Error> {
        let mut kinds = self.kinds.lock().await;
        let known = |kinds: &[Found]| kinds.iter().find(|f| f.is(group, resource)).cloned();
        if let Some((asked, list)) = &*kinds
            && (known(list).is_some() || asked.elapsed() < KINDS_FRESH)
        {
            return Ok(known(list));
        }
        let list = discover(&self.client).await?;
        let found = known(&list);
        *kinds = Some((Instant::now(), list));
        Ok(found)
    }

    /// How many objects of a kind a namespace has: one is listed, the rest the server counts.
    async fn number(&self, found: &Found, place: &str) -> Result<i64, kube::Error> {
        let params = kube::api::ListParams::default().limit(1);
        let api = kube::Api::<kube::api::DynamicObject>::namespaced_with(
            self.client.clone(),
            place,
            &found.resource,
        );
        let list = api.list_metadata(&params).await?;
        let listed = i64::try_from(list.items.len()).unwrap_or(i64::MAX);
        Ok(listed.saturating_add(list.metadata.remaining_item_count.unwrap_or(0)))
    }
}

/// The kinds that must be counted for a quota.
fn resources(quota: &ResourceQuota) -> BTreeSet<(String, String)> {
    let hard = quota.spec.iter().flat_map(|s| s.hard.iter().flatten());
    hard.map(|(name, _)| resource_of(name)).collect()
}

fn count<K: Object + Serialize>(
    store: &Store<K>,
    place: &str,
    quota: &Value,
    resource: &str,
    used: &mut Usage,
) -> anyhow::Result<()> {
    for object in store.in_namespace(place) {
        let object = serde_json::to_value(&*object)?;
        if applies(quota, "", resource, &object) {
            sum(used, &usage("", resource, &object));
        }
    }
    Ok(())
}

/// What is allowed and used of each resource that the quota names.
fn status(quota: &ResourceQuota, used: &Usage) -> ResourceQuotaStatus {
    let hard = quota.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default();
    let used: BTreeMap<String, ApiQuantity> = (hard.iter())
        .map(|(name, limit)| {
            let amount = used.get(name).copied().unwrap_or_else(|| {
                // Nothing, written as the limit is.
                let format = limit.0.parse::<Quantity>().map_or(Format::DecimalSi, |l| l.format());
                Quantity::from_value(0, format)
            });
            (name.clone(), ApiQuantity(amount.to_string()))
        })
        .collect();
    ResourceQuotaStatus { hard: Some(hard), used: Some(used) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_that_is_named_is_reported() {
        let quota: ResourceQuota = serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": {"hard":
            {"pods": "4", "requests.memory": "1Gi", "count/deployments.apps": "2"}}}))
        .unwrap();
        assert_eq!(
            resources(&quota).into_iter().map(|(g, r)| format!("{g}/{r}")).collect::<Vec<_>>(),
            ["/pods", "apps/deployments"]
        );
        let pods = Store::<Pod>::default();
        let pod = |name: &str, phase: &str| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"name": name, "namespace": "ns", "resourceVersion": "1"},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": "256Mi"}}}]},
                "status": {"phase": phase}}),
            )
            .unwrap()
        };
        pods.replace(vec![pod("a", "Running"), pod("b", "Pending"), pod("c", "Succeeded")], 1);
        let mut used = Usage::new();
        count(&pods, "ns", &json!({}), "pods", &mut used).unwrap();
        let status = status(&quota, &used);
        assert_eq!(
            serde_json::to_value(status).unwrap(),
            json!({"hard": {"pods": "4", "requests.memory": "1Gi", "count/deployments.apps": "2"},
                   "used": {"pods": "2", "requests.memory": "512Mi", "count/deployments.apps": "0"}})
        );
    }
}
