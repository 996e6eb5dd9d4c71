//! Garbage collector: deletes what nobody owns any more, and carries out foreground and orphaning deletions.
//!
//! It watches the metadata of every kind that discovery shows, keeps a graph of owners and dependents, and decides
//! object by object. An owner that the graph does not show is looked up at the API server before anything is
//! deleted because of it.

mod graph;
mod kinds;
mod plan;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use anyhow::anyhow;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::context::Context;
use crate::runtime::object::{key_of, name, namespace, uid};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::worker::{Outcome, drive};
use graph::{Graph, Item};
use kinds::{Kind, Kinds};
use plan::Verdict;

const IDENTITY: &str = "generic-garbage-collector";
const WIDTH: usize = 16;
/// Owners known to be gone that are remembered; uids never come back.
const ABSENT: usize = 10_000;

/// An object of any kind, of which only the metadata is known.
type Meta = PartialObjectMeta<DynamicObject>;

struct Controller {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    kinds: Arc<Kinds>,
    absent: Mutex<HashSet<String>>,
    queue: Arc<Queue<String>>,
}

/// The garbage collector.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let client = context.client(IDENTITY);
    let graph = Arc::new(Mutex::new(Graph::default()));
    let queue = Arc::new(Queue::default());
    let kinds = Arc::new(Kinds::new(client.clone(), graph.clone(), queue.clone()));
    context.keep(kinds.clone().follow(context.cancel.clone()));
    let controller = Controller { client, graph, kinds, absent: Mutex::default(), queue: queue.clone() };
    let cancel = context.cancel.clone();
    async move {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = controller.kinds.wait_synced() => {}
        }
        drive(IDENTITY, queue, WIDTH, cancel, |uid| controller.reconcile(uid)).await;
    }
    .boxed()
}

impl Controller {
    async fn reconcile(&self, id: String) -> Outcome {
        // Owners looked up in this pass: whether they are there.
        let mut verified: BTreeMap<String, bool> = BTreeMap::new();
        loop {
            let verdict = {
                let known = |owner: &str| {
                    verified
                        .get(owner)
                        .copied()
                        .or_else(|| self.absent.lock().contains(owner).then_some(false))
                };
                plan::decide(&self.graph.lock(), &id, &known)
            };
            let Some((item, verdict)) = verdict else { return Ok(None) };
            if let Verdict::Verify(owner) = verdict {
                let there = self.exists(&item, &owner).await?;
                if !there {
                    let mut absent = self.absent.lock();
                    if absent.len() >= ABSENT {
                        absent.clear();
                    }
                    absent.insert(owner.uid.clone());
                }
                verified.insert(owner.uid, there);
                continue;
            }
            self.apply(&item, verdict).await?;
            return Ok(None);
        }
    }

    fn api(&self, kind: &Kind, object: &Meta) -> Api<Meta> {
        let place = Some(namespace(&object.metadata)).filter(|_| kind.found.namespaced);
        self.api_in(kind, place)
    }

    fn api_in(&self, kind: &Kind, place: Option<&str>) -> Api<Meta> {
        match place {
            Some(place) => Api::namespaced_with(self.client.clone(), place, &kind.found.resource),
            None => Api::all_with(self.client.clone(), &kind.found.resource),
        }
    }

    /// Asks the API server whether an owner is there: the same object, not a namesake.
    async fn exists(&self, item: &Item, owner: &OwnerReference) -> anyhow::Result<bool> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let Some(kind) = self.kinds.of(group, &owner.kind) else {
            let key = key_of(&item.object.metadata);
            return Err(anyhow!("owner of {key} is of unknown kind {} {}", owner.api_version, owner.kind));
        };
        let place = namespace(&item.object.metadata);
        let api = match (kind.found.namespaced, place) {
            // An owner in a namespace cannot be meant by an object outside of all; leave such objects alone.
            (true, "") => return Ok(true),
            (true, place) => self.api_in(&kind, Some(place)),
            (false, _) => self.api_in(&kind, None),
        };
        let found = api.get_opt(&owner.name).await?;
        Ok(found.is_some_and(|f| uid(&f.metadata) == owner.uid))
    }

    async fn apply(&self, item: &Item, verdict: Verdict) -> anyhow::Result<()> {
        let meta = &item.object.metadata;
        match verdict {
            Verdict::Nothing | Verdict::Verify(_) => {}
            Verdict::Wake(uids) => uids.into_iter().for_each(|uid| self.queue.add(uid)),
            Verdict::Delete(policy) => self.delete(item, policy).await?,
            Verdict::DropOwners(gone) => self.patch(item, without_owners(&item.object, &gone)).await?,
            Verdict::Unblock(dependents) => {
                for dependent in &dependents {
                    self.patch(dependent, unblocked(&dependent.object, uid(meta))).await?;
                }
                self.delete(item, PropagationPolicy::Foreground).await?;
            }
            Verdict::Orphan(dependents) => {
                let gone = [uid(meta).to_owned()];
                for dependent in &dependents {
                    self.patch(dependent, without_owners(&dependent.object, &gone)).await?;
                }
                self.patch(item, without_finalizer(&item.object, plan::ORPHAN)).await?;
            }
            Verdict::RemoveFinalizer(finalizer) => {
                self.patch(item, without_finalizer(&item.object, finalizer)).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, item: &Item, policy: PropagationPolicy) -> Result<(), kube::Error> {
        let meta = &item.object.metadata;
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: meta.uid.clone(),
                // Somebody may be adopting it at this moment.
                resource_version: meta.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let key = key_of(meta);
        let result = self.api(&item.kind, &item.object).delete(name(meta), &params).await;
        outcome::gone_is_fine(result)?;
        tracing::debug!(kind = %item.kind.found.resource.kind, %key, "deleted: its owners are gone");
        Ok(())
    }

    async fn patch(&self, item: &Item, patch: Value) -> Result<(), kube::Error> {
        let api = self.api(&item.kind, &item.object);
        let name = name(&item.object.metadata);
        let result = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        if let Some(written) = outcome::gone_is_fine(result)? {
            item.kind.store.written(kinds::trimmed(written));
        }
        Ok(())
    }
}

/// A patch of metadata that fails if the object has changed since.
fn metadata_patch(object: &Meta, mut change: Value) -> Value {
    change["uid"] = json!(object.metadata.uid);
    change["resourceVersion"] = json!(object.metadata.resource_version);
    json!({"metadata": change})
}

fn without_owners(object: &Meta, gone: &[String]) -> Value {
    let owners: Vec<&OwnerReference> =
        object.metadata.owner_references.iter().flatten().filter(|o| !gone.contains(&o.uid)).collect();
    metadata_patch(object, json!({"ownerReferences": owners}))
}

fn unblocked(object: &Meta, owner: &str) -> Value {
    let mut owners = object.metadata.owner_references.clone().unwrap_or_default();
    for reference in owners.iter_mut().filter(|o| o.uid == owner) {
        reference.block_owner_deletion = Some(false);
    }
    metadata_patch(object, json!({"ownerReferences": owners}))
}

fn without_finalizer(object: &Meta, finalizer: &str) -> Value {
    let finalizers: Vec<&String> =
        object.metadata.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
    metadata_patch(object, json!({"finalizers": finalizers}))
}
