//! Whom a claim belongs to, by the set's retention policy: nobody, the set, or a pod that is on its way out. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;

use super::identity::{first, ordinal};
use crate::runtime::object::{deleting, name, uid};

fn reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: name(owner.meta()).to_owned(),
        uid: uid(owner.meta()).to_owned(),
        controller: None,
        block_owner_deletion: None,
    }
}

/// The claim with the owners it shall have; `None` if it has them.
pub(super) fn with_owners(
    set: &StatefulSet,
    pod: &Pod,
    claim: &PersistentVolumeClaim,
) -> Option<PersistentVolumeClaim> {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref()?;
    let deletes = |when: &Option<String>| when.as_deref() == Some("Delete");
    let (when_deleted, when_scaled) = (deletes(&policy.when_deleted), deletes(&policy.when_scaled));
    let last = first(set) + set.spec.replicas.unwrap_or(1);
    let condemned = ordinal(set, pod).is_some_and(|o| o < first(set) || o >= last);
    let by_pod = when_scaled && condemned;
    let by_set = when_deleted && !by_pod;
    let held = claim.metadata.owner_references.clone().unwrap_or_default();
    // Somebody else's claim is not ours to give away.
    if deleting(&claim.metadata) || held.iter().any(|o| o.controller == Some(true)) {
        return None;
    }
    let mut owners: Vec<OwnerReference> = held.clone();
    owners.retain(|o| o.uid != uid(&set.metadata) && o.uid != uid(&pod.metadata));
    if by_set {
        owners.push(reference(set));
    }
    if by_pod {
        owners.push(reference(pod));
    }
    let ids = |list: &[OwnerReference]| {
        let mut ids: Vec<String> = list.iter().map(|o| o.uid.clone()).collect();
        ids.sort();
        ids
    };
    if ids(&owners) == ids(&held) {
        return None;
    }
    let mut changed = claim.clone();
    changed.metadata.owner_references = Some(owners);
    Some(changed)
}
