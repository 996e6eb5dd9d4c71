//! ClusterRole aggregation: gives roles that are made of other roles the rules of these.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::context::Context;
use crate::runtime::object::{Matcher, ObjectKey, key_of, name};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};

const IDENTITY: &str = "clusterrole-aggregation-controller";

struct Controller {
    roles: Arc<Store<ClusterRole>>,
    api: Api<ClusterRole>,
}

/// The controller of aggregated roles.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller =
        Controller { roles: context.informers.all::<ClusterRole>(), api: Api::all(context.client(IDENTITY)) };
    let queue = Arc::new(Queue::default());
    let (sink, roles) = (queue.clone(), controller.roles.clone());
    controller.roles.on_change(move |_| {
        for role in roles.list().iter().filter(|r| r.aggregation_rule.is_some()) {
            sink.add(key_of(&role.metadata));
        }
    });
    let cancel = context.cancel.clone();
    async move {
        controller.roles.wait_synced().await;
        drive(IDENTITY, queue, 1, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

/// The rules that an aggregated role shall have: `None` if it is none, or has them.
fn plan(role: &ClusterRole, roles: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors: Vec<Matcher> = (role.aggregation_rule.as_ref()?.cluster_role_selectors.iter().flatten())
        .filter_map(Matcher::new)
        .collect();
    let mut rules: Vec<PolicyRule> = Vec::new();
    // Roles come in the order of their names, so that the outcome is always the same.
    for other in roles.iter().filter(|o| name(&o.metadata) != name(&role.metadata)) {
        if !selectors.iter().any(|s| s.matches(&other.metadata)) {
            continue;
        }
        for rule in other.rules.iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules.as_slice()).then_some(rules)
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(role) = self.roles.get(&key) else { return Ok(None) };
        let Some(rules) = plan(&role, &self.roles.list()) else { return Ok(None) };
        let patch = json!({"metadata": {"resourceVersion": role.metadata.resource_version}, "rules": rules});
        let result = self.api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        if let Some(written) = outcome::gone_is_fine(result)? {
            self.roles.written(written);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn role(name: &str, label: &str, resources: &[&str], selects: &[&str]) -> Arc<ClusterRole> {
        let rules: Vec<Value> = resources
            .iter()
            .map(|r| json!({"apiGroups": [""], "resources": [r], "verbs": ["get"]}))
            .collect();
        let mut value = json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": rules});
        if !selects.is_empty() {
            let selectors: Vec<Value> = selects.iter().map(|l| json!({"matchLabels": {"to": l}})).collect();
            value["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn union_of_the_selected() {
        let roles = [
            role("a", "view", &["pods", "nodes"], &[]),
            role("b", "edit", &["pods"], &[]),
            role("c", "x", &["y"], &[]),
        ];
        let check = |role: &ClusterRole, expected: Option<&[&str]>| {
            let planned = plan(role, &roles).map(|rules| {
                rules.iter().flat_map(|r| r.resources.clone().unwrap_or_default()).collect::<Vec<_>>()
            });
            assert_eq!(planned, expected.map(|e| e.iter().map(|s| s.to_string()).collect()));
        };
        check(&role("all", "-", &[], &["view", "edit"]), Some(&["pods", "nodes"]));
        check(&role("all", "-", &["pods", "nodes"], &["view", "edit"]), None);
        check(&role("all", "-", &["stale"], &["nobody"]), Some(&[]));
        check(&role("plain", "-", &["pods"], &[]), None);
    }
}
