//! What kinds of objects the API server holds, found by discovery.

use kube::Client;
use kube::core::ApiResource;
use kube::discovery::{ApiCapabilities, Discovery, Scope};

/// A resource whose objects can be listed, watched and deleted.
#[derive(Debug, Clone)]
pub struct Found {
    /// Group, version, kind and plural name.
    pub resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    verbs: Vec<String>,
}

impl Found {
    /// Whether the server offers a verb for it.
    pub fn offers(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Whether it is the resource of that group and plural name.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    /// Plural name and group, as messages name it: `pods.`, `deployments.apps`.
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.resource.plural, self.resource.group)
    }
}

/// All resources, each in its most stable version.
pub async fn discover(client: &Client) -> Result<Vec<Found>, kube::Error> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let mut found = Vec::new();
    for group in discovery.groups_alphabetical() {
        for (resource, ApiCapabilities { scope, operations, .. }) in group.resources_by_stability() {
            let namespaced = matches!(scope, Scope::Namespaced);
            found.push(Found { resource, namespaced, verbs: operations });
        }
    }
    Ok(found)
}

#[cfg(test)]
impl Found {
    /// A resource that no server has shown.
    pub(crate) fn fake(resource: ApiResource) -> Self {
        Self { resource, namespaced: true, verbs: Vec::new() }
    }
}
