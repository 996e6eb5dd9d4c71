//! Protection of claims: a claim that is being deleted stays until no pod uses it. The API puts the finalizer on
//! each new claim; this takes it off.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, Client};

use crate::context::Context;
use crate::runtime::children::follow_self;
use crate::runtime::object::{ObjectKey, deleting, finished, name, namespace, node_name};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::store::{Change, Store};
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "pvc-protection-controller";
const FINALIZER: &str = "kubernetes.io/pvc-protection";

struct Controller {
    claims: Arc<Store<PersistentVolumeClaim>>,
    pods: Arc<Store<Pod>>,
    writer: Writer<PersistentVolumeClaim>,
    client: Client,
}

/// The controller that lets claims go.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        claims: context.informers.all(),
        pods: context.informers.all(),
        writer: context.writer(IDENTITY),
        client: context.client(IDENTITY),
    };
    let queue = Arc::new(Queue::default());
    follow_self(&controller.claims, queue.clone());
    let (sink, claims) = (queue.clone(), controller.claims.clone());
    controller.pods.on_change(move |change| {
        let pod = change.object();
        if !matches!(change, Change::Deleted(_)) && !finished(pod) {
            return;
        }
        let waits = |claim: &PersistentVolumeClaim| deleting(&claim.metadata);
        for claim in claims_of(pod) {
            let key = ObjectKey { namespace: pod.metadata.namespace.clone(), name: claim };
            if claims.get(&key).is_some_and(|claim| waits(&claim)) {
                sink.add(key);
            }
        }
    });
    let cancel = context.cancel.clone();
    async move {
        controller.claims.wait_synced().await;
        controller.pods.wait_synced().await;
        drive(IDENTITY, queue, 4, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

/// The claims that a pod names, and those made for its ephemeral volumes.
fn claims_of(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
        let made = || volume.ephemeral.as_ref().map(|_| format!("{}-{}", name(&pod.metadata), volume.name));
        named.or_else(made)
    })
}

/// Whether a pod uses a claim. One without a node does not: no node starts a pod whose claim is being deleted.
fn uses(pod: &Pod, claim: &str) -> bool {
    !node_name(pod).is_empty() && !finished(pod) && claims_of(pod).any(|used| used == claim)
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(claim) = self.claims.get(&key) else { return Ok(None) };
        let held = claim.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        if !held || !deleting(&claim.metadata) || self.in_use(&claim).await? {
            return Ok(None);
        }
        let mut free = (*claim).clone();
        free.metadata.finalizers.iter_mut().for_each(|list| list.retain(|f| f != FINALIZER));
        outcome::gone_is_fine(self.writer.replace(&free).await)?;
        Ok(None)
    }

    /// Asks the API server too before it says no: what is let go is gone.
    async fn in_use(&self, claim: &PersistentVolumeClaim) -> Result<bool, kube::Error> {
        let (place, claim) = (namespace(&claim.metadata), name(&claim.metadata));
        if self.pods.in_namespace(place).iter().any(|pod| uses(pod, claim)) {
            return Ok(true);
        }
        let pods = Api::<Pod>::namespaced(self.client.clone(), place).list(&ListParams::default()).await?;
        Ok(pods.items.iter().any(|pod| uses(pod, claim)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn who_uses_what() {
        let named = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
        let made = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
        for (volumes, node, phase, claim, expected) in [
            (&named, "n", "Running", "data", true),
            (&named, "n", "Pending", "data", true),
            (&named, "n", "Running", "other", false),
            (&named, "", "Pending", "data", false),
            (&named, "n", "Succeeded", "data", false),
            (&named, "n", "Failed", "data", false),
            (&made, "n", "Running", "p-v", true),
            (&made, "n", "Running", "data", false),
            (&Value::Null, "n", "Running", "data", false),
        ] {
            let pod = json!({
                "metadata": {"name": "p"}, "status": {"phase": phase},
                "spec": {"containers": [], "nodeName": node, "volumes": volumes},
            });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(uses(&pod, claim), expected, "{volumes} on {node:?}, {phase}: {claim}");
        }
    }
}
