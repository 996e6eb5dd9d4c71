//! Deleting what is in a namespace, kind by kind, and counting what stays.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::stream;
use kube::api::{DeleteParams, DynamicObject, ListParams, PropagationPolicy};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};

use crate::runtime::discovery::{Found, discover};
use crate::runtime::object::{deleting, name};
use crate::runtime::outcome;

const AT_ONCE: usize = 8;

/// What was found in a namespace after everything was told to go.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) discovery_error: Option<String>,
    pub(super) errors: BTreeSet<String>,
    /// Objects left by `resource.group`.
    pub(super) remaining: BTreeMap<String, usize>,
    /// Objects left by finalizer.
    pub(super) finalizers: BTreeMap<String, usize>,
}

impl Content {
    /// Nothing is left, and that is certain.
    pub(super) fn is_empty(&self) -> bool {
        self.discovery_error.is_none() && self.errors.is_empty() && self.remaining.is_empty()
    }

    fn add(&mut self, found: &Found, result: Result<Vec<PartialObjectMeta<DynamicObject>>, kube::Error>) {
        let left = match result {
            Ok(left) => left,
            Err(error) => {
                self.errors.insert(outcome::message(&error));
                return;
            }
        };
        if left.is_empty() {
            return;
        }
        self.remaining.insert(found.dotted(), left.len());
        for finalizer in left.iter().flat_map(|o| o.metadata.finalizers.iter().flatten()) {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
}

/// Deletes everything in a namespace: pods first, and the rest only when they are gone.
pub(super) async fn empty(client: &Client, namespace: &str) -> Content {
    let mut content = Content::default();
    let found = match discover(client).await {
        Ok(found) => found,
        Err(error) => {
            content.discovery_error = Some(outcome::message(&error));
            return content;
        }
    };
    let wanted = |f: &Found| f.namespaced && f.offers("list") && f.offers("delete");
    let (pods, rest): (Vec<_>, Vec<_>) = found
        .into_iter()
        .filter(wanted)
        .partition(|f| f.resource.group.is_empty() && f.resource.plural == "pods");
    for kinds in [pods, rest] {
        let mut results = stream::iter(kinds)
            .map(|kind| async {
                let result = empty_of(client, namespace, &kind).await;
                (kind, result)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((kind, result)) = results.next().await {
            content.add(&kind, result);
        }
        drop(results);
        if !content.is_empty() {
            break;
        }
    }
    content
}

type Left = Vec<PartialObjectMeta<DynamicObject>>;

async fn empty_of(client: &Client, namespace: &str, found: &Found) -> Result<Left, kube::Error> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &found.resource);
    let all = list(&api).await?;
    let alive: Vec<_> = all.iter().filter(|o| !deleting(&o.metadata)).collect();
    if alive.is_empty() {
        return Ok(all);
    }
    let params =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    if found.offers("deletecollection") {
        outcome::gone_is_fine(api.delete_collection(&params, &ListParams::default()).await)?;
    } else {
        for object in alive {
            outcome::gone_is_fine(api.delete(name(&object.metadata), &params).await)?;
        }
    }
    list(&api).await
}

/// A kind that is served no more, or has no list, holds nothing.
async fn list(api: &Api<DynamicObject>) -> Result<Left, kube::Error> {
    match api.list_metadata(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(error) if matches!(outcome::code(&error), 404 | 405) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
