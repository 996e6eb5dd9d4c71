//! Which objects belong to an owner: those it controls and whose labels match; orphans that match are adopted,
//! those that match no more are released.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::Patch;
use kube::core::NamespaceResourceScope;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::object::{Matcher, Object, active, controller_reference, deleting, uid};
use super::outcome;
use super::store::Store;
use super::writer::Writer;

/// What an owner has, and which references are to be changed.
#[derive(Debug)]
pub struct Claim<K> {
    /// Belong to it already.
    pub owned: Vec<Arc<K>>,
    /// Match, and belong to nobody.
    pub adopt: Vec<Arc<K>>,
    /// Belong to it, and match no more.
    pub release: Vec<Arc<K>>,
}

/// Sorts the candidates of an owner. An owner that is being deleted adopts and releases nothing.
pub fn claim<K: Object>(
    owned: Vec<Arc<K>>,
    orphans: Vec<Arc<K>>,
    selector: &Matcher,
    owner_deleting: bool,
) -> Claim<K> {
    let (keep, drop): (Vec<_>, Vec<_>) =
        owned.into_iter().partition(|object| selector.matches(object.meta()));
    let mut claim = Claim { owned: keep, adopt: Vec::new(), release: Vec::new() };
    if owner_deleting {
        return claim;
    }
    claim.release = drop.into_iter().filter(|object| !deleting(object.meta())).collect();
    if !selector.is_empty() {
        claim.adopt = (orphans.into_iter())
            .filter(|object| !deleting(object.meta()) && selector.matches(object.meta()))
            .collect();
    }
    claim
}

/// Pods worth adopting: those that are still alive.
pub fn live_orphans(pods: &Store<Pod>, namespace: &str) -> Vec<Arc<Pod>> {
    pods.orphans(namespace).into_iter().filter(|pod| active(pod)).collect()
}

/// Writes the references of a claim and returns all that the owner has now.
///
/// `alive` asks the API server whether the owner is really there and not being deleted; it is called only before an
/// adoption, since a stale cache must not give children to the dead.
pub async fn settle<O, K, A>(
    owner: &O,
    claim: Claim<K>,
    writer: &Writer<K>,
    alive: A,
) -> Result<Vec<Arc<K>>, kube::Error>
where
    O: Resource<DynamicType = ()>,
    K: Object<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned,
    A: AsyncFnOnce() -> Result<bool, kube::Error>,
{
    let mut owned = claim.owned;
    for object in &claim.release {
        let patch = json!({"metadata": {
            "uid": uid(object.meta()),
            "ownerReferences": [{"$patch": "delete", "uid": uid(owner.meta())}],
        }});
        match writer.patch(object, &Patch::Strategic(patch)).await {
            Ok(_) => {}
            Err(error) if outcome::not_found(&error) || outcome::invalid(&error) => {}
            Err(error) => return Err(error),
        }
    }
    if claim.adopt.is_empty() || !alive().await? {
        return Ok(owned);
    }
    for object in &claim.adopt {
        let patch = json!({"metadata": {
            "uid": uid(object.meta()),
            "ownerReferences": [controller_reference(owner)],
        }});
        match writer.patch(object, &Patch::Strategic(patch)).await {
            Ok(adopted) => owned.push(Arc::new(adopted)),
            Err(error) if outcome::not_found(&error) || outcome::invalid(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(owned)
}
