//! VolumeBinding, as far as it goes without binding: a pod's claims must be bound, and their volumes reachable from
//! the node.

use k8s_openapi::api::core::v1::{NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, Pod};
use pagurus_controlplane_api::key::ObjectKey;

use super::{Candidate, Reason, node_affinity};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// A claim that a pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimRef {
    name: String,
    /// It is made for this pod from a template in its spec.
    ephemeral: bool,
}

/// What is known of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimInfo {
    volume: Option<String>,
    deleting: bool,
}

/// Where a volume can be reached from: one of these terms, or everywhere.
pub(crate) type Reach = Option<Vec<NodeSelectorTerm>>;

/// The claims of a pod.
pub(crate) fn claims(pod: &Pod) -> Vec<ClaimRef> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let own_name = pod.metadata.name.as_deref().unwrap_or_default();
    volumes
        .filter_map(|volume| {
            if let Some(claim) = &volume.persistent_volume_claim {
                return Some(ClaimRef { name: claim.claim_name.clone(), ephemeral: false });
            }
            volume.ephemeral.as_ref()?;
            Some(ClaimRef { name: format!("{own_name}-{}", volume.name), ephemeral: true })
        })
        .collect()
}

/// A claim as the API shows it.
pub(crate) fn claim(claim: &PersistentVolumeClaim) -> ClaimInfo {
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|v| !v.is_empty() && bound);
    ClaimInfo { volume, deleting: claim.metadata.deletion_timestamp.is_some() }
}

/// A volume as the API shows it.
pub(crate) fn reach(volume: &PersistentVolume) -> Reach {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    Some(affinity.required.as_ref()?.node_selector_terms.clone())
}

/// Where the pod's volumes can be reached from, or why the pod can go nowhere.
pub(crate) fn prepare(pod: &PodInfo, snapshot: &Snapshot) -> Result<Vec<Vec<NodeSelectorTerm>>, String> {
    let mut reaches = Vec::new();
    for claim in &pod.claims {
        let name = &claim.name;
        let key = ObjectKey { namespace: pod.key.namespace.clone(), name: name.clone() };
        let Some(info) = snapshot.claims.get(&key) else {
            return Err(if claim.ephemeral {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                )
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            });
        };
        if info.deleting {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        let Some(volume) = &info.volume else {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        };
        match snapshot.volumes.get(volume) {
            Some(reach) => reaches.extend(reach.clone()),
            None => return Err(format!("persistentvolume {volume:?} not found")),
        }
    }
    Ok(reaches)
}

pub(crate) fn filter(reaches: &[Vec<NodeSelectorTerm>], candidate: Candidate<'_>, reasons: &mut Vec<Reason>) {
    let labels = &candidate.facts.labels;
    let reached = |terms: &Vec<NodeSelectorTerm>| {
        terms.iter().any(|t| node_affinity::matches(t, &candidate.node.name, labels))
    };
    if !reaches.iter().all(reached) {
        reasons.push(Reason::lasting("node(s) had volume node affinity conflict"));
    }
}
