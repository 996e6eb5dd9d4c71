//! Taint eviction: deletes pods that do not, or not for so long, tolerate a NoExecute taint of their node.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use kube::api::{DeleteParams, Patch};
use serde_json::json;

use super::{BY_NODE, index_by_node};
use crate::context::Context;
use crate::runtime::object::{
    ObjectKey, after_seconds, created, deleting, finished, key_of, name, node_name, now, pod_condition, uid,
};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::recorder::{Note, Recorder};
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "node-controller";
const WIDTH: usize = 8;

struct Controller {
    nodes: Arc<Store<Node>>,
    pods: Arc<Store<Pod>>,
    writer: Writer<Pod>,
    recorder: Recorder,
}

/// The controller of evictions by taints.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        nodes: context.informers.all(),
        pods: context.informers.all(),
        writer: context.writer(IDENTITY),
        recorder: context.recorder_as(IDENTITY, "taint-eviction-controller"),
    };
    index_by_node(&controller.pods);
    let queue = Arc::new(Queue::default());
    let sink = queue.clone();
    controller.pods.on_change(move |change| {
        if !node_name(change.object()).is_empty() {
            sink.add(key_of(&change.object().metadata));
        }
    });
    let (sink, pods) = (queue.clone(), controller.pods.clone());
    controller.nodes.on_change(move |change| {
        let before = change.before().map(|n| no_execute(n)).unwrap_or_default();
        let now = no_execute(change.object());
        if before != now {
            let here = pods.by_index(BY_NODE, name(&change.object().metadata));
            here.iter().for_each(|pod| sink.add(key_of(&pod.metadata)));
        }
    });
    let cancel = context.cancel.clone();
    async move {
        controller.nodes.wait_synced().await;
        controller.pods.wait_synced().await;
        drive("taint-eviction", queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.filter(|t| t.effect == "NoExecute").cloned().collect()
}

/// When a pod came to its node, as far as it tells.
fn bound_at(pod: &Pod) -> Timestamp {
    let scheduled = pod_condition(pod, "PodScheduled").filter(|c| c.status == "True");
    let since = scheduled.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    since.unwrap_or_else(|| created(&pod.metadata))
}

/// When a pod must go: `None` if it may stay.
pub(super) fn evict_at(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations: &[Toleration] =
        pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        let covering: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if covering.is_empty() {
            return Some(now);
        }
        // Of several tolerations of one taint the shortest counts; none means for ever.
        let Some(seconds) = covering.iter().filter_map(|t| t.toleration_seconds).min() else { continue };
        // A pod that came after the taint has its time from then on.
        let since = taint.time_added.as_ref().map_or(now, |t| t.0).max(bound_at(pod));
        let due = after_seconds(since, seconds.max(0));
        earliest = Some(earliest.map_or(due, |e| e.min(due)));
    }
    earliest
}

/// Whether a toleration covers a NoExecute taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let (effect, key) = (toleration.effect.as_deref().unwrap_or(""), toleration.key.as_deref().unwrap_or(""));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let (mine, theirs) = (toleration.value.as_deref().unwrap_or(""), taint.value.as_deref().unwrap_or(""));
    let numbers = || Some((mine.parse::<i64>().ok()?, theirs.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or("") {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && mine == theirs,
        "Lt" => numbers().is_some_and(|(mine, theirs)| theirs < mine),
        "Gt" => numbers().is_some_and(|(mine, theirs)| theirs > mine),
        _ => false,
    }
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(pod) = self.pods.get(&key) else { return Ok(None) };
        if deleting(&pod.metadata) || finished(&pod) {
            return Ok(None);
        }
        let Some(node) = self.nodes.get(&ObjectKey::cluster(node_name(&pod))) else { return Ok(None) };
        let taints = no_execute(&node);
        let Some(due) = evict_at(&pod, &taints, now()) else { return Ok(None) };
        if due > now() {
            return Ok(Some(Duration::try_from(due.duration_since(now())).unwrap_or_default()));
        }
        let text = format!("Marking for deletion Pod {key}");
        self.recorder.note(&*pod, &Note::normal("TaintManagerEviction", text));
        let patch = json!({
            "metadata": {"uid": uid(&pod.metadata)},
            "status": {"conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": now().to_string(),
            }]},
        });
        let result = self.writer.patch_status(&pod, &Patch::Strategic(patch)).await;
        if outcome::gone_is_fine(result)?.is_some() {
            self.writer.delete(&pod, &DeleteParams::default(), false).await?;
        }
        Ok(None)
    }
}
