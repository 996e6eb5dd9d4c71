//! Revisions: the numbers on ReplicaSets and on their Deployment, the annotations carried along, and which old
//! ReplicaSets may go. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::runtime::object::{annotation, created, deleting, name, set_annotation};

/// The revision of a Deployment or ReplicaSet.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many pods the Deployment wanted when it last scaled this ReplicaSet.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// How many pods all its ReplicaSets might have had then.
pub(super) const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn carried(name: &str) -> bool {
    !matches!(name, REVISION | HISTORY | DESIRED | MAXIMUM | ROLLBACK_TO | LAST_APPLIED)
}

/// The revision of an object; 0 if it has none.
pub(super) fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Gives the newest ReplicaSet the Deployment's annotations and its revision.
pub(super) fn annotate(set: &mut ReplicaSet, deployment: &Deployment, number: i64, exists: bool) {
    for (key, value) in deployment.metadata.annotations.iter().flatten().filter(|(k, _)| carried(k)) {
        if annotation(&set.metadata, key) != Some(value) {
            set_annotation(&mut set.metadata, key, value.clone());
        }
    }
    let old = revision(&set.metadata);
    if old >= number {
        return;
    }
    if exists && old > 0 {
        let mut past: Vec<String> = annotation(&set.metadata, HISTORY)
            .map(|h| h.split(',').filter(|p| !p.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default();
        past.push(old.to_string());
        set_annotation(&mut set.metadata, HISTORY, past.join(","));
    }
    set_annotation(&mut set.metadata, REVISION, number.to_string());
}

/// The Deployment's annotations with the revision of its newest ReplicaSet, if that is a change.
pub(super) fn deployment_annotations(
    deployment: &Deployment,
    newest: &ReplicaSet,
) -> Option<BTreeMap<String, String>> {
    let number = annotation(&newest.metadata, REVISION)?;
    if annotation(&deployment.metadata, REVISION) == Some(number) {
        return None;
    }
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(REVISION.to_owned(), number.to_owned());
    Some(annotations)
}

/// Old ReplicaSets beyond the history limit that stand for no pod any more.
pub(super) fn surplus<'s>(
    deployment: &Deployment,
    old: impl Iterator<Item = &'s ReplicaSet>,
) -> Vec<&'s ReplicaSet> {
    let Some(limit) = deployment.spec.revision_history_limit else { return Vec::new() };
    let mut alive: Vec<&ReplicaSet> = old.filter(|set| !deleting(&set.metadata)).collect();
    let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    alive.sort_by_key(|set| (revision(&set.metadata), created(&set.metadata), name(&set.metadata)));
    alive.truncate(surplus);
    alive.retain(|set| {
        let status = set.status.clone().unwrap_or_default();
        status.replicas == 0
            && set.spec.replicas.unwrap_or(1) == 0
            && set.metadata.generation.unwrap_or(0) <= status.observed_generation.unwrap_or(0)
    });
    alive
}
