//! StatefulSet: pods with names and storage of their own, started and stopped in order.

mod claims;
mod identity;
mod plan;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch};
use serde_json::json;

use crate::context::Context;
use crate::runtime::children::{follow, follow_self};
use crate::runtime::claim::{claim, settle};
use crate::runtime::object::{
    Matcher, ObjectKey, available_at, deleting, key_of, label, name, namespace, now, uid,
};
use crate::runtime::outcome;
use crate::runtime::pods::batches;
use crate::runtime::queue::Queue;
use crate::runtime::recorder::{Note, Recorder};
use crate::runtime::revisions::{Keeper, REVISION_HASH};
use crate::runtime::store::{Change, Store};
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;
use identity::ordinal;
use plan::{Observed, Plan};

const IDENTITY: &str = "statefulset-controller";
const WIDTH: usize = 4;
const HASH: &str = "controller.kubernetes.io/hash";

struct Controller {
    sets: Arc<Store<StatefulSet>>,
    pods: Arc<Store<Pod>>,
    claims: Arc<Store<PersistentVolumeClaim>>,
    revisions: Keeper<StatefulSet>,
    writer: Writer<StatefulSet>,
    pod_writer: Writer<Pod>,
    claim_writer: Writer<PersistentVolumeClaim>,
    recorder: Recorder,
}

fn selector(set: &StatefulSet) -> Option<Matcher> {
    Matcher::new(&set.spec.selector).filter(|m| !m.is_empty())
}

/// The controller of StatefulSets.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        sets: context.informers.all(),
        pods: context.informers.all(),
        claims: context.informers.all(),
        revisions: Keeper::new(
            context.informers.all(),
            context.writer(IDENTITY),
            context.writer(IDENTITY),
            HASH,
        ),
        writer: context.writer(IDENTITY),
        pod_writer: context.writer(IDENTITY),
        claim_writer: context.writer(IDENTITY),
        recorder: context.recorder(IDENTITY),
    };
    let queue = Arc::new(Queue::default());
    follow_self(&controller.sets, queue.clone());
    follow(&controller.pods, controller.sets.clone(), queue.clone(), selector);
    follow(controller.revisions.store(), controller.sets.clone(), queue.clone(), selector);
    follow_claims(&controller, queue.clone());
    let cancel = context.cancel.clone();
    async move {
        controller.sets.wait_synced().await;
        controller.pods.wait_synced().await;
        controller.claims.wait_synced().await;
        controller.revisions.store().wait_synced().await;
        drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

/// Queues the sets that a claim may belong to when it comes or goes: it may be what a pod waits for.
fn follow_claims(controller: &Controller, queue: Arc<Queue<ObjectKey>>) {
    let sets = controller.sets.clone();
    controller.claims.on_change(move |change| {
        if matches!(change, Change::Updated(old, new) if deleting(&old.metadata) == deleting(&new.metadata)) {
            return;
        }
        let meta = &change.object().metadata;
        for set in sets.in_namespace(namespace(meta)) {
            if identity::may_claim(&set, name(meta)) {
                queue.add(key_of(&set.metadata));
            }
        }
    });
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(set) = self.sets.get(&key) else { return Ok(None) };
        let Some(selector) = selector(&set) else { return Ok(None) };
        let place = namespace(&set.metadata);
        let (id, dying) = (uid(&set.metadata), deleting(&set.metadata));

        // Only pods whose names say so can be its own.
        let mut orphans = self.pods.orphans(place);
        orphans.retain(|pod| ordinal(&set, pod).is_some());
        let owned = claim(self.pods.owned_by(id), orphans, &selector, dying);
        let mut pods = settle(&*set, owned, &self.pod_writer, || self.writer.lives(&set)).await?;
        pods.retain(|pod| ordinal(&set, pod).is_some());

        let Some((current, update)) = self.revision_pair(&set, &selector).await? else {
            return self.count_collision(&set).await;
        };
        let plan = plan::plan(&Observed {
            set: &set,
            pods: &pods,
            current: name(&current.metadata),
            update: name(&update.metadata),
            blocked: &|ordinal| self.blocked(&set, ordinal),
            now: now(),
        });
        if !dying {
            self.claim_owners(&set, &pods).await?;
            self.apply(&set, &plan, &current, &update).await?;
            self.clean_up(&set, &pods, &current, &update).await?;
        }
        self.report(&set, &current, &update).await
    }

    /// The revision that pods have by default and the one they are updated to; `None` after a collision of names.
    async fn revision_pair(
        &self,
        set: &StatefulSet,
        selector: &Matcher,
    ) -> Result<Option<(Arc<ControllerRevision>, Arc<ControllerRevision>)>, kube::Error> {
        let status = set.status.clone().unwrap_or_default();
        let collisions = status.collision_count.unwrap_or(0);
        let newest = self.revisions.newest(set, selector, &set.spec.template, collisions);
        let Some(update) = newest.await? else { return Ok(None) };
        let named = status.current_revision.unwrap_or_default();
        let current = self.revisions.history(set).into_iter().find(|r| name(&r.metadata) == named);
        Ok(Some((current.unwrap_or_else(|| update.clone()), update)))
    }

    async fn count_collision(&self, set: &StatefulSet) -> Outcome {
        let mut set = set.clone();
        let status = set.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.writer.replace_status(&set).await?;
        Ok(Some(Duration::from_millis(1)))
    }

    async fn apply(
        &self,
        set: &StatefulSet,
        plan: &Plan,
        current: &ControllerRevision,
        update: &ControllerRevision,
    ) -> anyhow::Result<()> {
        for note in &plan.notes {
            self.recorder.note(set, note);
        }
        for pod in &plan.relabel {
            self.relabel(set, pod).await?;
        }
        for pod in &plan.claims_for {
            self.ensure_claims(set, pod).await?;
        }
        let mut new = Vec::new();
        for (ordinal, revision) in &plan.create {
            let source = if revision == name(&current.metadata) { current } else { update };
            let template = identity::template_of(source)
                .with_context(|| format!("controller revision {revision} holds no pod template"))?;
            new.push(identity::pod(set, &template, *ordinal, revision));
        }
        let mut rest = new.iter();
        for batch in batches(new.len()) {
            let tries = rest.by_ref().take(batch).map(|pod| self.create(set, pod));
            for result in futures::future::join_all(tries).await {
                match result {
                    Err(error) if outcome::namespace_terminating(&error) => return Ok(()),
                    other => other?,
                }
            }
        }
        for pod in &plan.delete {
            self.delete(set, pod).await?;
        }
        Ok(())
    }

    /// Whether a claim of an ordinal is about to be deleted.
    fn blocked(&self, set: &StatefulSet, ordinal: i32) -> bool {
        let pod_name = identity::pod_name(set, ordinal);
        let held = |claim: &PersistentVolumeClaim| self.claims.get(&key_of(&claim.metadata));
        let mut claims = identity::claims(set, ordinal).into_iter();
        claims.any(|claim| held(&claim).is_some_and(|c| claims::on_its_way_out(&c, &pod_name)))
    }

    async fn relabel(&self, set: &StatefulSet, pod: &Pod) -> Result<(), kube::Error> {
        let labels: BTreeMap<_, _> = identity::missing_labels(set, pod).into_iter().collect();
        let patch = json!({"metadata": {"uid": uid(&pod.metadata), "labels": labels}});
        let result = self.pod_writer.patch(pod, &Patch::Merge(patch)).await;
        let result = outcome::gone_is_fine(result).map(drop);
        self.tell(set, "update", &pod_text(pod), &result);
        result
    }

    async fn create(&self, set: &StatefulSet, pod: &Pod) -> Result<(), kube::Error> {
        self.ensure_claims(set, pod).await?;
        let result = self.pod_writer.create(pod).await.map(drop);
        if !result.as_ref().is_err_and(outcome::already_exists) {
            self.tell(set, "create", &pod_text(pod), &result);
        }
        result
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), kube::Error> {
        let result = self.pod_writer.delete(pod, &DeleteParams::default(), false).await;
        self.tell(set, "delete", &pod_text(pod), &result);
        result
    }

    fn tell(&self, set: &StatefulSet, verb: &str, what: &str, result: &Result<(), kube::Error>) {
        let set_name = name(&set.metadata);
        let [done, failed] = match verb {
            "create" => ["SuccessfulCreate", "FailedCreate"],
            "update" => ["SuccessfulUpdate", "FailedUpdate"],
            _ => ["SuccessfulDelete", "FailedDelete"],
        };
        let note = match result {
            Ok(()) => Note::normal(done, format!("{verb} {what} in StatefulSet {set_name} successful")),
            Err(error) if outcome::namespace_terminating(error) => return,
            Err(error) => {
                let error = outcome::message(error);
                Note::warning(
                    failed,
                    format!("{verb} {what} in StatefulSet {set_name} failed error: {error}"),
                )
            }
        };
        self.recorder.note(set, &note);
    }

    async fn ensure_claims(&self, set: &StatefulSet, pod: &Pod) -> Result<(), kube::Error> {
        let Some(ordinal) = ordinal(set, pod) else { return Ok(()) };
        for wanted in identity::claims(set, ordinal) {
            if self.claims.get(&key_of(&wanted.metadata)).is_some() {
                continue;
            }
            let result = match self.claim_writer.create(&wanted).await {
                Err(error) if outcome::already_exists(&error) => continue,
                other => other.map(drop),
            };
            self.tell_claim(set, &wanted, pod, &result);
            result?;
        }
        Ok(())
    }

    fn tell_claim(
        &self,
        set: &StatefulSet,
        claim: &PersistentVolumeClaim,
        pod: &Pod,
        result: &Result<(), kube::Error>,
    ) {
        let [claim, pod, set_name] = [&claim.metadata, &pod.metadata, &set.metadata].map(name);
        let note = match result {
            Ok(()) => Note::normal(
                "SuccessfulCreate",
                format!("create Claim {claim} Pod {pod} in StatefulSet {set_name} success"),
            ),
            Err(error) if outcome::namespace_terminating(error) => return,
            Err(error) => {
                let error = outcome::message(error);
                let text = format!(
                    "create Claim {claim} for Pod {pod} in StatefulSet {set_name} failed error: {error}"
                );
                Note::warning("FailedCreate", text)
            }
        };
        self.recorder.note(set, &note);
    }

    /// Gives the claims the owners that the retention policy asks for; before pods go, since then it is too late.
    async fn claim_owners(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
        for pod in pods {
            let Some(ordinal) = ordinal(set, pod) else { continue };
            for wanted in identity::claims(set, ordinal) {
                let Some(held) = self.claims.get(&key_of(&wanted.metadata)) else { continue };
                if let Some(changed) = claims::with_owners(set, pod, &held) {
                    outcome::gone_is_fine(self.claim_writer.replace(&changed).await)?;
                }
            }
        }
        Ok(())
    }

    async fn clean_up(
        &self,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
        current: &ControllerRevision,
        update: &ControllerRevision,
    ) -> Result<(), kube::Error> {
        let in_use = |revision: &ControllerRevision| {
            let revision_name = name(&revision.metadata);
            [current, update].iter().any(|r| name(&r.metadata) == revision_name)
                || pods.iter().any(|pod| label(&pod.metadata, REVISION_HASH) == Some(revision_name))
        };
        self.revisions.forget(set, set.spec.revision_history_limit.unwrap_or(10), in_use).await
    }

    async fn report(
        &self,
        set: &Arc<StatefulSet>,
        current: &ControllerRevision,
        update: &ControllerRevision,
    ) -> Outcome {
        let set = self.sets.get(&key_of(&set.metadata)).unwrap_or_else(|| set.clone());
        let mut pods = self.pods.owned_by(uid(&set.metadata));
        pods.retain(|pod| ordinal(&set, pod).is_some());
        let status = status::status(&set, &pods, name(&current.metadata), name(&update.metadata), now());
        if set.status.clone().map(status::tidy).as_ref() != Some(&status) {
            let changed = StatefulSet { status: Some(status), ..(*set).clone() };
            outcome::gone_is_fine(self.writer.replace_status(&changed).await)?;
        }
        let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
        let later = (pods.iter())
            .filter_map(|pod| available_at(pod, min_ready))
            .filter(|at| *at > now())
            .map(|at| Duration::try_from(at.duration_since(now())).unwrap_or_default());
        Ok(later.min())
    }
}

fn pod_text(pod: &Pod) -> String {
    format!("Pod {}", name(&pod.metadata))
}

#[cfg(test)]
mod tests;
