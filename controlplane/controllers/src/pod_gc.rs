//! Pod garbage collector: removes pods that no node will ever take care of: those of nodes that are gone, those
//! deleted before they were bound, and the oldest finished ones when there are too many.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::runtime::object::{
    ObjectKey, created, deleting, finished, name, node_name, now, pod_condition, uid,
};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::store::{Change, Store};
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "pod-garbage-collector";
/// Finished pods beyond this number go.
const FINISHED: usize = 12_500;
/// A node must be gone for so long before its pods go: it may be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);
const EVERY: Duration = Duration::from_secs(20);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

struct Controller {
    pods: Arc<Store<Pod>>,
    nodes: Arc<Store<Node>>,
    api: Api<Node>,
    writer: Writer<Pod>,
    /// Since when nodes that pods name have been missing.
    missing: Mutex<HashMap<String, Instant>>,
}

/// The garbage collector of pods.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        pods: context.informers.all(),
        nodes: context.informers.all(),
        api: Api::all(context.client(IDENTITY)),
        writer: context.writer(IDENTITY),
        missing: Mutex::default(),
    };
    let queue = Arc::new(Queue::default());
    queue.add("pods");
    let sink = queue.clone();
    controller.pods.on_change(move |change| {
        let pod = change.object();
        // Nobody else will end a pod that is deleted before it has a node.
        if !matches!(change, Change::Deleted(_)) && deleting(&pod.metadata) && node_name(pod).is_empty() {
            sink.add("pods");
        }
    });
    let sink = queue.clone();
    controller.nodes.on_change(move |change| {
        if matches!(change, Change::Deleted(_)) {
            sink.add("pods");
        }
    });
    let cancel = context.cancel.clone();
    async move {
        controller.pods.wait_synced().await;
        controller.nodes.wait_synced().await;
        drive(IDENTITY, queue, 1, cancel, |_| controller.reconcile()).await;
    }
    .boxed()
}

/// Why a pod goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Too many finished pods.
    TooMany,
    /// Its node is gone.
    Orphaned,
    /// Deleted without ever having had a node.
    Unscheduled,
    /// Deleted on a node that was declared out of service.
    OutOfService,
}

/// Which pods go. `gone` says whether a node is gone for certain.
fn plan<'p>(
    pods: &'p [Arc<Pod>],
    limit: usize,
    out_of_service: &BTreeSet<String>,
    gone: &dyn Fn(&str) -> bool,
) -> Vec<(&'p Arc<Pod>, Cause)> {
    let mut plan = Vec::new();
    let mut done = Vec::new();
    for pod in pods {
        let node = node_name(pod);
        let cause = match (node.is_empty(), deleting(&pod.metadata)) {
            (true, true) => Some(Cause::Unscheduled),
            (false, _) if gone(node) => Some(Cause::Orphaned),
            (false, true) if out_of_service.contains(node) => Some(Cause::OutOfService),
            _ => None,
        };
        match cause {
            Some(cause) => plan.push((pod, cause)),
            None if finished(pod) && !deleting(&pod.metadata) => done.push(pod),
            None => {}
        }
    }
    if done.len() > limit {
        done.sort_by_key(|pod| (created(&pod.metadata), name(&pod.metadata)));
        done.truncate(done.len() - limit);
        plan.extend(done.into_iter().map(|pod| (pod, Cause::TooMany)));
    }
    plan
}

impl Controller {
    async fn reconcile(&self) -> Outcome {
        let pods = self.pods.list();
        let gone = self.gone_nodes(&pods).await?;
        let plan = plan(&pods, FINISHED, &self.out_of_service(), &|node| gone.contains(node));
        let mut failed = None;
        for (pod, cause) in plan {
            if let Err(error) = self.remove(pod, cause).await {
                failed = Some(error);
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(Some(EVERY)),
        }
    }

    /// Nodes that pods name and that have been missing for long enough, at the API server too.
    async fn gone_nodes(&self, pods: &[Arc<Pod>]) -> Result<BTreeSet<String>, kube::Error> {
        let named: BTreeSet<&str> = pods.iter().map(|p| node_name(p)).filter(|n| !n.is_empty()).collect();
        let absent: BTreeSet<String> = (named.into_iter())
            .filter(|node| self.nodes.get(&ObjectKey::cluster(*node)).is_none())
            .map(str::to_owned)
            .collect();
        let candidates: Vec<String> = {
            let mut missing = self.missing.lock();
            missing.retain(|node, _| absent.contains(node));
            let now = Instant::now();
            (absent.into_iter())
                .filter(|node| now - *missing.entry(node.clone()).or_insert(now) >= QUARANTINE)
                .collect()
        };
        let mut gone = BTreeSet::new();
        for node in candidates {
            if self.api.get_metadata_opt(&node).await?.is_none() {
                gone.insert(node);
            }
        }
        Ok(gone)
    }

    /// Nodes that are not ready and that somebody has declared out of service.
    fn out_of_service(&self) -> BTreeSet<String> {
        let out = |node: &Node| {
            let ready = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let mut ready = ready.filter(|c| c.type_ == "Ready");
            let mut taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
            ready.all(|c| c.status != "True") && taints.any(|t| t.key == OUT_OF_SERVICE)
        };
        self.nodes.list().iter().filter(|n| out(n)).map(|n| name(&n.metadata).to_owned()).collect()
    }

    async fn remove(&self, pod: &Pod, cause: Cause) -> Result<(), kube::Error> {
        if cause != Cause::TooMany && !finished(pod) {
            let mut status = json!({"phase": "Failed"});
            if cause == Cause::Orphaned && pod_condition(pod, "DisruptionTarget").is_none() {
                status["conditions"] = json!([{
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists", "lastTransitionTime": now().to_string(),
                }]);
            }
            let patch = json!({"metadata": {"uid": uid(&pod.metadata)}, "status": status});
            let result = self.writer.patch_status(pod, &Patch::Strategic(patch)).await;
            if outcome::gone_is_fine(result)?.is_none() {
                return Ok(());
            }
        }
        tracing::debug!(pod = name(&pod.metadata), ?cause, "pod removed");
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.writer.delete(pod, &params, false).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name node phase d|-`
    fn pod(text: &str) -> Arc<Pod> {
        let field: Vec<&str> = text.split_whitespace().collect();
        let mut value = json!({
            "metadata": {"name": field[0], "uid": field[0]},
            "spec": {"containers": [], "nodeName": field[1].replace('-', "")},
            "status": {"phase": field[2]},
        });
        if field[3] == "d" {
            value["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn who_goes() {
        let pods: Vec<_> = [
            "a here Running -",
            "b gone Running -",
            "c - Pending d",
            "d - Pending -",
            "e broken Running d",
            "f broken Running -",
            "g here Succeeded -",
            "h here Failed -",
        ]
        .map(pod)
        .to_vec();
        let broken = BTreeSet::from(["broken".to_owned()]);
        let plan = plan(&pods, 1, &broken, &|node| node == "gone");
        let shown: Vec<_> = plan.iter().map(|(p, cause)| (name(&p.metadata), *cause)).collect();
        assert_eq!(
            shown,
            [
                ("b", Cause::Orphaned),
                ("c", Cause::Unscheduled),
                ("e", Cause::OutOfService),
                ("g", Cause::TooMany)
            ]
        );
    }
}
