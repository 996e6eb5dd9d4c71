//! Fits endpoints into slices with the fewest writes. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::desired::{Group, Port};
use crate::runtime::object::{controller_reference, created, deleting, name};

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The most endpoints in a slice.
const CAPACITY: usize = 100;

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Arc<EndpointSlice>),
}

/// Who an endpoint is, whatever its state.
fn identity(endpoint: &Endpoint) -> (String, String) {
    let pod = endpoint.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default();
    (endpoint.addresses.join(","), pod)
}

/// A slice being filled.
struct Draft {
    before: Option<Arc<EndpointSlice>>,
    endpoints: Vec<Endpoint>,
    changed: bool,
    drop: bool,
}

/// The writes that bring a Service's existing slices to the desired endpoints.
pub(super) fn plan(
    service: &Service,
    desired: BTreeMap<Group, Vec<Endpoint>>,
    existing: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let new = ObjectMeta {
        generate_name: Some(format!("{}-", name(&service.metadata))),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels(service)),
        owner_references: Some(vec![controller_reference(service)]),
        ..ObjectMeta::default()
    };
    plan_for(&new, desired, existing)
}

/// The writes that bring existing slices to the desired endpoints; `new` is the metadata of a new one, whose labels and
/// annotations all have.
pub(super) fn plan_for(
    new: &ObjectMeta,
    desired: BTreeMap<Group, Vec<Endpoint>>,
    existing: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let mut by_group: BTreeMap<Group, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    let mut homeless = Vec::new();
    for slice in existing.iter().filter(|s| !deleting(&s.metadata)) {
        match group_of(slice).filter(|g| desired.contains_key(g)) {
            Some(group) => by_group.entry(group).or_default().push(slice.clone()),
            None => homeless.push(slice.clone()),
        }
    }
    let mut actions = Vec::new();
    for (group, endpoints) in desired {
        let mut slices = by_group.remove(&group).unwrap_or_default();
        slices.sort_by_key(|s| (created(&s.metadata), name(&s.metadata).to_owned()));
        for draft in fill(endpoints, slices) {
            actions.extend(action(new, &group, draft, &mut homeless));
        }
    }
    actions.extend(homeless.into_iter().map(Action::Delete));
    actions
}

fn group_of(slice: &EndpointSlice) -> Option<Group> {
    let family = match slice.address_type.as_str() {
        "IPv4" => "IPv4",
        "IPv6" => "IPv6",
        _ => return None,
    };
    let mut ports: Vec<Port> = slice.ports.iter().flatten().map(Port::of).collect();
    ports.sort();
    Some(Group { family, ports })
}

/// Spreads the endpoints of a group over its slices: each stays where it is; new ones go first into slices that
/// change anyway, then into the fullest that has room for all of them, then into new slices.
fn fill(endpoints: Vec<Endpoint>, slices: Vec<Arc<EndpointSlice>>) -> Vec<Draft> {
    let mut wanted: BTreeMap<_, _> = endpoints.into_iter().map(|e| (identity(&e), e)).collect();
    let mut drafts: Vec<Draft> = Vec::new();
    for slice in slices {
        let mut draft =
            Draft { before: Some(slice.clone()), endpoints: Vec::new(), changed: false, drop: false };
        for held in slice.endpoints.iter().flatten() {
            match wanted.remove(&identity(held)) {
                Some(endpoint) => {
                    draft.changed |= !same(&endpoint, held);
                    draft.endpoints.push(endpoint);
                }
                None => draft.changed = true,
            }
        }
        drafts.push(draft);
    }
    let mut new: Vec<Endpoint> = wanted.into_values().collect();
    for draft in drafts.iter_mut().filter(|d| d.changed) {
        let room = CAPACITY.saturating_sub(draft.endpoints.len()).min(new.len());
        draft.endpoints.extend(new.drain(..room));
    }
    let fitting = |draft: &&mut Draft| draft.endpoints.len() + new.len() <= CAPACITY;
    if !new.is_empty()
        && let Some(draft) = drafts.iter_mut().filter(fitting).max_by_key(|d| d.endpoints.len())
    {
        draft.endpoints.append(&mut new);
        draft.changed = true;
    }
    while !new.is_empty() {
        let rest = new.split_off(new.len().min(CAPACITY));
        let endpoints = std::mem::replace(&mut new, rest);
        drafts.push(Draft { before: None, endpoints, changed: true, drop: false });
    }
    // Emptied slices go; where there is nothing at all, one says so.
    let nothing = drafts.iter().all(|d| d.endpoints.is_empty());
    if nothing && drafts.is_empty() {
        drafts.push(Draft { before: None, endpoints: Vec::new(), changed: true, drop: false });
    }
    for draft in drafts.iter_mut().skip(usize::from(nothing)) {
        draft.drop = draft.endpoints.is_empty();
    }
    drafts
}

/// Whether two endpoints say the same; a resource version in the target does not count.
fn same(one: &Endpoint, other: &Endpoint) -> bool {
    let plain = |endpoint: &Endpoint| {
        let mut endpoint = endpoint.clone();
        if let Some(target) = &mut endpoint.target_ref {
            target.resource_version = None;
        }
        endpoint
    };
    one == other || plain(one) == plain(other)
}

fn action(
    new: &ObjectMeta,
    group: &Group,
    draft: Draft,
    homeless: &mut Vec<Arc<EndpointSlice>>,
) -> Option<Action> {
    let Some(before) = draft.before else {
        let mut slice = EndpointSlice {
            metadata: new.clone(),
            address_type: group.family.to_owned(),
            endpoints: Some(draft.endpoints),
            ports: Some(group.ports.iter().map(Port::to_api).collect()),
        };
        // A slice whose ports are no longer asked for is changed rather than replaced: that is one write, not two.
        let reuse = homeless.iter().position(|h| h.address_type == slice.address_type);
        return Some(match reuse.map(|i| homeless.swap_remove(i)) {
            Some(old) => {
                slice.metadata = described(&old.metadata, new);
                Action::Update(Box::new(slice))
            }
            None => Action::Create(Box::new(slice)),
        });
    };
    if draft.drop {
        return Some(Action::Delete(before));
    }
    let metadata = described(&before.metadata, new);
    if !draft.changed && metadata == before.metadata {
        return None;
    }
    Some(Action::Update(Box::new(EndpointSlice {
        metadata,
        endpoints: Some(draft.endpoints),
        ..(*before).clone()
    })))
}

/// The metadata with the labels of a new slice, and with its annotations, if it has some.
fn described(held: &ObjectMeta, new: &ObjectMeta) -> ObjectMeta {
    let mut meta = ObjectMeta { labels: new.labels.clone(), ..held.clone() };
    for (key, value) in new.annotations.iter().flatten() {
        meta.annotations.get_or_insert_default().insert(key.clone(), value.clone());
    }
    meta
}

/// The Service's own labels and ours.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| key != HEADLESS && key != SERVICE_NAME && key != MANAGED_BY);
    labels.insert(SERVICE_NAME.to_owned(), name(&service.metadata).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let headless = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None");
    if headless {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

#[cfg(test)]
mod tests;
