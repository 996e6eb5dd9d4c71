//! Whom a claim belongs to, by the set's retention policy: nobody, the set, or a pod that is on its way out. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::identity::{first, ordinal};
use crate::runtime::object::{controller_of, controller_reference, deleting, uid};

/// Whether a claim is on its way out, so that a new pod of that name must not take hold of it: it is being deleted,
/// or it belongs to nobody but the pod before.
pub(super) fn on_its_way_out(claim: &PersistentVolumeClaim, pod_name: &str) -> bool {
    let by_pod = |o: &OwnerReference| o.api_version == "v1" && o.kind == "Pod" && o.name == pod_name;
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    deleting(&claim.metadata) || (!owners.is_empty() && owners.iter().all(by_pod))
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
    let last = first(set).saturating_add(set.spec.replicas.unwrap_or(1));
    let condemned = ordinal(set, pod).is_some_and(|o| o < first(set) || o >= last);
    let by_pod = when_scaled && condemned;
    let by_set = when_deleted && !by_pod;
    let ours = |owner: &OwnerReference| owner.uid == uid(&set.metadata) || owner.uid == uid(&pod.metadata);
    // Somebody else's claim is not ours to give away.
    if deleting(&claim.metadata) || controller_of(&claim.metadata).is_some_and(|o| !ours(o)) {
        return None;
    }
    let held = claim.metadata.owner_references.clone().unwrap_or_default();
    let mut owners: Vec<OwnerReference> = held.iter().filter(|o| !ours(o)).cloned().collect();
    if by_set {
        owners.push(controller_reference(set));
    }
    if by_pod {
        owners.push(controller_reference(pod));
    }
    if owners == held {
        return None;
    }
    let mut changed = claim.clone();
    changed.metadata.owner_references = Some(owners);
    Some(changed)
}
