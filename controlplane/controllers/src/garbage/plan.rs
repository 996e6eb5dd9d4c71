//! What becomes of one object, by its owners and dependents. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PropagationPolicy;

use super::graph::{Graph, Item, has_finalizer};
use crate::runtime::object::{deleting, namespace, uid};

/// The object goes after those that block it.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The object goes, its dependents stay.
pub(super) const ORPHAN: &str = "orphan";

/// What to do.
pub(super) enum Verdict {
    Nothing,
    /// It must be known whether this owner is there.
    Verify(OwnerReference),
    Delete(PropagationPolicy),
    /// Owners with these uids are gone or going; others remain.
    DropOwners(Vec<String>),
    /// These dependents are waited for by it and wait for it: they must block no more; then it goes.
    Unblock(Vec<Item>),
    /// These dependents lose it as an owner; then it goes.
    Orphan(Vec<Item>),
    RemoveFinalizer(&'static str),
    /// Its deletion waits for these.
    Wake(Vec<String>),
}

/// Decides about the object with a uid. `known` says of owners that were looked up whether they are there.
pub(super) fn decide(
    graph: &Graph,
    id: &str,
    known: &dyn Fn(&str) -> Option<bool>,
) -> Option<(Item, Verdict)> {
    let item = graph.get(id)?;
    let meta = &item.object.metadata;
    let verdict = if deleting(meta) {
        if has_finalizer(meta, ORPHAN) {
            Verdict::Orphan(graph.dependents(id).cloned().collect())
        } else if item.waits_for_dependents() {
            foreground(graph, id)
        } else {
            Verdict::Nothing
        }
    } else {
        by_owners(graph, item, known)
    };
    Some((item.clone(), verdict))
}

/// A foreground deletion waits for the dependents that block it.
fn foreground(graph: &Graph, id: &str) -> Verdict {
    let blocking: Vec<String> = (graph.dependents(id))
        .filter(|d| d.owners().iter().any(|o| o.uid == id && o.block_owner_deletion == Some(true)))
        .filter_map(|d| d.object.metadata.uid.clone())
        .collect();
    if blocking.is_empty() {
        return Verdict::RemoveFinalizer(FOREGROUND);
    }
    let idle = |d: &String| graph.get(d).is_some_and(|item| !deleting(&item.object.metadata));
    Verdict::Wake(blocking.into_iter().filter(idle).collect())
}

fn by_owners(graph: &Graph, item: &Item, known: &dyn Fn(&str) -> Option<bool>) -> Verdict {
    let owners = item.owners();
    if owners.is_empty() {
        return Verdict::Nothing;
    }
    let place = namespace(&item.object.metadata);
    let (mut solid, mut going, mut gone) = (0, Vec::new(), Vec::new());
    for owner in owners {
        let seen = graph.get(&owner.uid).filter(|o| {
            let theirs = namespace(&o.object.metadata);
            theirs.is_empty() || theirs == place
        });
        match seen {
            Some(seen) if seen.waits_for_dependents() => going.push(owner.uid.clone()),
            Some(_) => solid += 1,
            None => match known(&owner.uid) {
                None => return Verdict::Verify(owner.clone()),
                Some(true) => solid += 1,
                Some(false) => gone.push(owner.uid.clone()),
            },
        }
    }
    if solid > 0 {
        gone.append(&mut going);
        return if gone.is_empty() { Verdict::Nothing } else { Verdict::DropOwners(gone) };
    }
    let id = uid(&item.object.metadata);
    if !going.is_empty() && graph.dependents(id).next().is_some() {
        // Its owner waits for it, so it too waits for its own dependents; unless those wait already: a circle.
        let circle: Vec<Item> = graph.dependents(id).filter(|d| d.waits_for_dependents()).cloned().collect();
        return if circle.is_empty() {
            Verdict::Delete(PropagationPolicy::Foreground)
        } else {
            Verdict::Unblock(circle)
        };
    }
    let meta = &item.object.metadata;
    Verdict::Delete(if has_finalizer(meta, ORPHAN) {
        PropagationPolicy::Orphan
    } else if has_finalizer(meta, FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    })
}

#[cfg(test)]
mod tests;
