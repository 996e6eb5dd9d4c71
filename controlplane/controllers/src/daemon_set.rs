//! DaemonSet: one pod on every node that it fits.
//!
//! The pods name their node in their affinity and go through the scheduler like others.

mod fit;
mod plan;
mod pods;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;

use crate::context::Context;
use crate::runtime::children::{follow, follow_self};
use crate::runtime::claim::{claim, settle};
use crate::runtime::object::{
    Matcher, ObjectKey, available_at, deleting, key_of, label, namespace, now, uid,
};
use crate::runtime::outcome;
use crate::runtime::pods::{create_all, delete_all};
use crate::runtime::queue::Queue;
use crate::runtime::recorder::Recorder;
use crate::runtime::revisions::{self, Keeper, REVISION_HASH};
use crate::runtime::store::{Change, Store};
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "daemon-set-controller";
const WIDTH: usize = 4;
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(900);
/// A failure so long ago counts no more.
const FORGOTTEN: Duration = Duration::from_secs(1800);

struct Controller {
    daemon_sets: Arc<Store<DaemonSet>>,
    pods: Arc<Store<Pod>>,
    nodes: Arc<Store<Node>>,
    revisions: Keeper<DaemonSet>,
    writer: Writer<DaemonSet>,
    pod_writer: Writer<Pod>,
    recorder: Recorder,
    /// How often and when last a failed pod was replaced, by DaemonSet and node.
    failures: Mutex<HashMap<(String, String), (u32, Instant)>>,
}

fn selector(set: &DaemonSet) -> Option<Matcher> {
    Matcher::new(&set.spec.selector).filter(|m| !m.is_empty())
}

/// The controller of DaemonSets.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        daemon_sets: context.informers.all(),
        pods: context.informers.all(),
        nodes: context.informers.all(),
        revisions: Keeper::new(
            context.informers.all(),
            context.writer(IDENTITY),
            context.writer(IDENTITY),
            REVISION_HASH,
        ),
        writer: context.writer(IDENTITY),
        pod_writer: context.writer(IDENTITY),
        recorder: context.recorder_as(IDENTITY, "daemonset-controller"),
        failures: Mutex::default(),
    };
    let queue = Arc::new(Queue::default());
    follow_self(&controller.daemon_sets, queue.clone());
    follow(&controller.pods, controller.daemon_sets.clone(), queue.clone(), selector);
    follow(controller.revisions.store(), controller.daemon_sets.clone(), queue.clone(), selector);
    let (sink, sets) = (queue.clone(), controller.daemon_sets.clone());
    controller.nodes.on_change(move |change| {
        let same = |a: &Node, b: &Node| {
            a.metadata.labels == b.metadata.labels
                && a.spec.as_ref().and_then(|s| s.taints.as_ref())
                    == b.spec.as_ref().and_then(|s| s.taints.as_ref())
        };
        if let Change::Updated(old, new) = change
            && same(old, new)
        {
            return;
        }
        sets.list().iter().for_each(|set| sink.add(key_of(&set.metadata)));
    });
    let cancel = context.cancel.clone();
    async move {
        controller.daemon_sets.wait_synced().await;
        controller.pods.wait_synced().await;
        controller.nodes.wait_synced().await;
        controller.revisions.store().wait_synced().await;
        drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(set) = self.daemon_sets.get(&key) else { return Ok(None) };
        let Some(selector) = selector(&set) else { return Ok(None) };
        if deleting(&set.metadata) {
            return Ok(None);
        }
        let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let newest = self.revisions.newest(&set, &selector, &set.spec.template, collisions);
        let Some(current) = newest.await? else {
            return self.count_collision(&set).await;
        };
        let hash = revisions::hash_of(&current, REVISION_HASH).to_owned();
        let id = uid(&set.metadata);
        let orphans = self.pods.orphans(namespace(&set.metadata));
        let owned = claim(self.pods.owned_by(id), orphans, &selector, false);
        let pods = settle(&*set, owned, &self.pod_writer, || self.writer.lives(&set)).await?;
        let nodes = self.nodes.list();
        let plan = plan::plan(&plan::Observed {
            set: &set,
            nodes: &nodes,
            pods: &pods,
            hash: &hash,
            rest: &|node| self.rest_left(id, node),
            now: now(),
        });
        self.apply(&set, &hash, &plan).await?;
        self.clean_up(&set, &current, &pods).await?;
        self.report(&set, &selector, &nodes, &hash, plan.again).await
    }

    async fn count_collision(&self, set: &DaemonSet) -> Outcome {
        let mut set = set.clone();
        let status = set.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.writer.replace_status(&set).await?;
        Ok(Some(Duration::from_millis(1)))
    }

    async fn apply(&self, set: &DaemonSet, hash: &str, plan: &plan::Plan) -> Result<(), kube::Error> {
        for note in &plan.notes {
            self.recorder.note(set, note);
        }
        for node in &plan.failed_on {
            let mut failures = self.failures.lock();
            failures.retain(|_, (_, last)| last.elapsed() <= FORGOTTEN);
            let entry =
                failures.entry((uid(&set.metadata).to_owned(), node.clone())).or_insert((0, Instant::now()));
            *entry = (entry.0 + 1, Instant::now());
        }
        let doomed = plan.delete.iter().map(|pod| &**pod);
        let deleted = delete_all(set, doomed, &self.pod_writer, &self.recorder).await;
        let new = plan.create.iter().map(|node| pods::pod(set, node, hash)).collect();
        match create_all(set, new, &self.pod_writer, &self.recorder).await {
            Err(error) if outcome::namespace_terminating(&error) => deleted,
            other => deleted.and(other),
        }
    }

    /// How long a node must still wait after its failed pod was replaced.
    fn rest_left(&self, set: &str, node: &str) -> Option<Duration> {
        let mut failures = self.failures.lock();
        let key = (set.to_owned(), node.to_owned());
        let (count, last) = *failures.get(&key)?;
        let rest = FIRST_REST.saturating_mul(1 << (count - 1).min(16)).min(LONGEST_REST);
        if last.elapsed() > FORGOTTEN {
            failures.remove(&key);
            return None;
        }
        rest.checked_sub(last.elapsed()).filter(|left| !left.is_zero())
    }

    async fn clean_up(
        &self,
        set: &DaemonSet,
        current: &ControllerRevision,
        pods: &[Arc<Pod>],
    ) -> Result<(), kube::Error> {
        let in_use = |revision: &ControllerRevision| {
            let hash = revisions::hash_of(revision, REVISION_HASH);
            revision.metadata.uid == current.metadata.uid
                || pods.iter().any(|pod| label(&pod.metadata, REVISION_HASH) == Some(hash))
        };
        self.revisions.forget(set, set.spec.revision_history_limit.unwrap_or(10), in_use).await
    }

    async fn report(
        &self,
        set: &Arc<DaemonSet>,
        selector: &Matcher,
        nodes: &[Arc<Node>],
        hash: &str,
        again: Option<Duration>,
    ) -> Outcome {
        let set = self.daemon_sets.get(&key_of(&set.metadata)).unwrap_or_else(|| set.clone());
        let pods: Vec<Arc<Pod>> = (self.pods.owned_by(uid(&set.metadata)).into_iter())
            .filter(|pod| selector.matches(&pod.metadata))
            .collect();
        let status = status::status(&set, nodes, &pods, hash, now());
        if set.status.clone().map(status::tidy).as_ref() != Some(&status) {
            let changed = DaemonSet { status: Some(status), ..(*set).clone() };
            outcome::gone_is_fine(self.writer.replace_status(&changed).await)?;
        }
        let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
        let later = (pods.iter())
            .filter_map(|pod| available_at(pod, min_ready))
            .filter(|at| *at > now())
            .map(|at| Duration::try_from(at.duration_since(now())).unwrap_or_default());
        Ok(later.chain(again).min())
    }
}

#[cfg(test)]
mod tests;
