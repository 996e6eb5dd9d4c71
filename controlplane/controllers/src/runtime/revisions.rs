//! ControllerRevisions: the past templates of DaemonSets and StatefulSets, so that they can be gone back to.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Resource;
use kube::api::DeleteParams;
use kube::core::NamespaceResourceScope;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::claim::{claim, settle as settle_claim};
use super::object::{
    Matcher, Object, annotation, controller_of, controller_reference, created, deleting, label, name,
    namespace, uid,
};
use super::outcome;
use super::store::Store;
use super::template::{hash_text, prune};
use super::writer::Writer;

/// The label with a revision's hash, on revisions of DaemonSets and on pods of both kinds.
pub const REVISION_HASH: &str = "controller-revision-hash";

/// The revision that stands for a template: as a patch that brings the template back.
fn revision<K>(
    owner: &K,
    template: &PodTemplateSpec,
    hash_label: &str,
    number: i64,
    collisions: i32,
) -> ControllerRevision
where
    K: Resource<DynamicType = ()>,
{
    let mut value = serde_json::to_value(template).unwrap_or_default();
    value["$patch"] = json!("replace");
    let data = json!({"spec": {"template": value}});
    let hash = hash_text(&canonical(&data), collisions);
    let meta = owner.meta();
    let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(hash_label.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name(meta))),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: annotation(meta, "kubernetes.io/change-cause")
                .map(|cause| [("kubernetes.io/change-cause".to_owned(), cause.to_owned())].into()),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: RawExtension(data),
        revision: Some(number),
    }
}

fn canonical(data: &Value) -> String {
    let mut data = data.clone();
    prune(&mut data);
    data.to_string()
}

/// Whether two revisions stand for the same template.
fn same(one: &ControllerRevision, other: &ControllerRevision) -> bool {
    canonical(&one.data.0) == canonical(&other.data.0)
}

/// A revision's number.
fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

/// Oldest first.
fn sort(history: &mut [Arc<ControllerRevision>]) {
    history.sort_by_key(|r| (r.revision, created(&r.metadata), name(&r.metadata).to_owned()));
}

/// What to do so that the newest revision is `wanted`.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// It is there already.
    Keep(Arc<ControllerRevision>),
    /// It is there under an older number.
    Renumber(Box<ControllerRevision>),
    /// It is not there.
    Create(Box<ControllerRevision>),
}

/// Compares the wanted revision with the history (oldest first).
fn step(history: &[Arc<ControllerRevision>], mut wanted: ControllerRevision) -> Step {
    let last = history.last().map_or(0, |r| number(r));
    match history.iter().rev().find(|r| same(r, &wanted)) {
        Some(held) if number(held) == last => Step::Keep(held.clone()),
        Some(held) => {
            let mut held = (**held).clone();
            held.revision = Some(last + 1);
            Step::Renumber(Box::new(held))
        }
        None => {
            wanted.revision = Some(last + 1);
            Step::Create(Box::new(wanted))
        }
    }
}

/// Whether a step came to its end.
#[derive(Debug)]
enum Settled {
    /// The newest revision.
    Newest(Arc<ControllerRevision>),
    /// The name is taken by another template: hash again with one more collision.
    Collision,
}

/// Carries out a step.
async fn settle<K>(owner: &K, step: Step, writer: &Writer<ControllerRevision>) -> Result<Settled, kube::Error>
where
    K: Resource<DynamicType = ()>,
{
    match step {
        Step::Keep(held) => Ok(Settled::Newest(held)),
        Step::Renumber(held) => Ok(Settled::Newest(Arc::new(writer.replace(&held).await?))),
        Step::Create(wanted) => match writer.create(&wanted).await {
            Ok(made) => Ok(Settled::Newest(Arc::new(made))),
            Err(error) if outcome::already_exists(&error) => {
                let there = writer.get(namespace(&wanted.metadata), name(&wanted.metadata)).await?;
                let ours = there.filter(|there| {
                    same(there, &wanted)
                        && controller_of(&there.metadata).is_some_and(|o| o.uid == uid(owner.meta()))
                });
                Ok(ours.map_or(Settled::Collision, |there| Settled::Newest(Arc::new(there))))
            }
            Err(error) => Err(error),
        },
    }
}

/// Old revisions beyond the limit that no pod is of. `history` is oldest first.
fn surplus(
    history: &[Arc<ControllerRevision>],
    limit: i32,
    in_use: impl Fn(&ControllerRevision) -> bool,
) -> Vec<Arc<ControllerRevision>> {
    let idle: Vec<_> = history.iter().filter(|r| !in_use(r)).cloned().collect();
    let count = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    idle.into_iter().take(count).collect()
}

/// The revisions of all owners of a kind.
pub struct Keeper<O> {
    store: Arc<Store<ControllerRevision>>,
    writer: Writer<ControllerRevision>,
    owners: Writer<O>,
    hash_label: &'static str,
}

impl<O> Keeper<O>
where
    O: Object<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned,
{
    /// Keeps revisions whose hash is in that label.
    pub fn new(
        store: Arc<Store<ControllerRevision>>,
        writer: Writer<ControllerRevision>,
        owners: Writer<O>,
        hash_label: &'static str,
    ) -> Self {
        Self { store, writer, owners, hash_label }
    }

    /// Where revisions are seen.
    pub fn store(&self) -> &Arc<Store<ControllerRevision>> {
        &self.store
    }

    /// An owner's revisions, oldest first.
    pub fn history(&self, owner: &O) -> Vec<Arc<ControllerRevision>> {
        let mut history = self.store.owned_by(uid(owner.meta()));
        sort(&mut history);
        history
    }

    /// Adopts what belongs to the owner and makes its present template the newest revision; `None` if the name for it is
    /// taken by another template.
    pub async fn newest(
        &self,
        owner: &O,
        selector: &Matcher,
        template: &PodTemplateSpec,
        collisions: i32,
    ) -> Result<Option<Arc<ControllerRevision>>, kube::Error> {
        let meta = owner.meta();
        let orphans = self.store.orphans(namespace(meta));
        let owned = claim(self.store.owned_by(uid(meta)), orphans, selector, deleting(meta));
        settle_claim(owner, owned, &self.writer, || self.owners.lives(owner)).await?;
        let wanted = revision(owner, template, self.hash_label, 0, collisions);
        match settle(owner, step(&self.history(owner), wanted), &self.writer).await? {
            Settled::Newest(revision) => Ok(Some(revision)),
            Settled::Collision => Ok(None),
        }
    }

    /// Deletes old revisions beyond the limit that are not in use.
    pub async fn forget(
        &self,
        owner: &O,
        limit: i32,
        in_use: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), kube::Error> {
        for revision in surplus(&self.history(owner), limit, in_use) {
            self.writer.delete(&revision, &DeleteParams::default(), false).await?;
        }
        Ok(())
    }
}

/// The hash that pods of a revision carry.
pub fn hash_of<'r>(revision: &'r ControllerRevision, hash_label: &str) -> &'r str {
    label(&revision.metadata, hash_label).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::DaemonSet;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}))
            .unwrap()
    }

    fn of(image: &str, number: i64) -> ControllerRevision {
        let owner: DaemonSet = serde_json::from_value(json!({"metadata": {"name": "d", "uid": "D"},
            "spec": {"selector": {}, "template": {}}}))
        .unwrap();
        revision(&owner, &template(image), REVISION_HASH, number, 0)
    }

    #[test]
    fn steps() {
        let history: Vec<_> = [of("v1", 1), of("v2", 2)].map(Arc::new).to_vec();
        assert_eq!(step(&history, of("v2", 0)), Step::Keep(history[1].clone()));
        let Step::Renumber(back) = step(&history, of("v1", 0)) else { panic!("v1 is there") };
        assert_eq!((number(&back), &back.metadata.name), (3, &history[0].metadata.name));
        let Step::Create(new) = step(&history, of("v3", 0)) else { panic!("v3 is new") };
        assert_eq!(number(&new), 3);
        assert_eq!(step(&[], of("v1", 0)), Step::Create(Box::new(of("v1", 1))));
    }

    #[test]
    fn limits() {
        let history: Vec<_> = [of("v1", 1), of("v2", 2), of("v3", 3)].map(Arc::new).to_vec();
        let gone = surplus(&history, 1, |r| number(r) == 3);
        assert_eq!(gone.iter().map(|r| number(r)).collect::<Vec<_>>(), [1]);
    }
}
