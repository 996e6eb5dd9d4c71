//! ResourceQuota: what would use more than the namespace's quotas allow is refused.
//!
//! What is used is counted from the objects that are there, not read from the quotas' statuses, which follow later. What
//! was admitted a moment ago and is not yet there counts too, so that many requests at once do not slip through.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pagurus_controlplane_api::quota::{Usage, applies, sum, usage};
use pagurus_controlplane_api::status::ApiError;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::objects::Objects;

/// An object that was admitted is there after this time, or never.
const UNDERWAY: Duration = Duration::from_secs(2);

/// Group, plural name, namespace and name of an object.
type Key = (String, String, String, String);

/// See the module's description.
pub(super) struct ResourceQuota {
    objects: Arc<dyn Objects>,
    /// New objects that were admitted.
    underway: Mutex<HashMap<Key, (Instant, Value)>>,
}

impl ResourceQuota {
    /// Counts those objects.
    pub(super) fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects, underway: Mutex::default() }
    }

    /// What the objects of a resource use of a quota, but for one of them.
    fn used(&self, quota: &Value, key: &Key, underway: &HashMap<Key, (Instant, Value)>) -> Usage {
        let (group, resource, namespace, name) = key;
        let mut used = Usage::new();
        let mut count = |object: &Value| {
            if applies(quota, group, resource, object) {
                sum(&mut used, &usage(group, resource, object));
            }
        };
        let stored = self.objects.list(group, resource, namespace);
        stored.iter().filter(|object| object.name != *name).for_each(|object| count(&object.value()));
        for (other, (_, object)) in underway {
            let alike = (&other.0, &other.1, &other.2) == (group, resource, namespace);
            if alike && other.3 != *name && !stored.iter().any(|s| s.name == other.3) {
                count(object);
            }
        }
        used
    }
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let (Some(namespace), Some(object)) = (attributes.namespace, attributes.object.as_deref()) else {
            return Ok(());
        };
        let creates = attributes.operation == Operation::Create && attributes.subresource.is_none();
        let updates = attributes.operation == Operation::Update
            && matches!(attributes.subresource, None | Some("resize"));
        if !creates && !updates {
            return Ok(());
        }
        let quotas = self.objects.list("", "resourcequotas", namespace);
        if quotas.is_empty() {
            return Ok(());
        }
        let (group, resource) = (&*attributes.resource.group, &*attributes.resource.plural);
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or(attributes.name);
        let key: Key = (group.to_owned(), resource.to_owned(), namespace.to_owned(), name.to_owned());
        let wanted = usage(group, resource, object);
        let before = attributes.old.map(|old| usage(group, resource, old)).unwrap_or_default();
        let mut underway = self.underway.lock();
        underway.retain(|_, (since, _)| since.elapsed() < UNDERWAY);
        for quota in quotas {
            let quota = quota.parsed();
            if !applies(&quota, group, resource, object) {
                continue;
            }
            let name = quota.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            if let Some(missing) = unspecified(&quota, resource, group, object).filter(|_| creates) {
                return Err(attributes.forbidden(&format!("failed quota: {name}: must specify {missing}")));
            }
            let grown = |resource: &str| wanted.get(resource).copied() > before.get(resource).copied();
            let hard = hard(&quota);
            if !hard.keys().any(|name| grown(name)) {
                continue;
            }
            let used = self.used(&quota, &key, &underway);
            let over: Vec<&String> = (hard.iter())
                .filter(|(resource, limit)| {
                    let held = used.get(*resource).copied().unwrap_or_default();
                    let asked = wanted.get(*resource).copied().unwrap_or_default();
                    grown(resource) && asked.sign() > 0 && held + asked > **limit
                })
                .map(|(resource, _)| resource)
                .collect();
            if !over.is_empty() {
                let shown = |amounts: &Usage| {
                    let parts = over.iter().map(|resource| {
                        let amount = amounts.get(*resource).copied().unwrap_or_default();
                        format!("{resource}={amount}")
                    });
                    parts.collect::<Vec<_>>().join(",")
                };
                let text = format!(
                    "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                    shown(&wanted),
                    shown(&used),
                    shown(&hard)
                );
                return Err(attributes.forbidden(&text));
            }
        }
        if creates && !attributes.dry_run {
            underway.insert(key, (Instant::now(), object.clone()));
        }
        Ok(())
    }
}

fn hard(quota: &Value) -> Usage {
    let entries = quota.pointer("/spec/hard").and_then(Value::as_object).into_iter().flatten();
    entries
        .filter_map(|(name, value)| {
            let amount = pagurus_controlplane_api::quantity::Quantity::from_json(value).ok()?;
            Some((name.clone(), amount))
        })
        .collect()
}

/// Which containers do not say what a quota counts of cpu and memory.
fn unspecified(quota: &Value, resource: &str, group: &str, pod: &Value) -> Option<String> {
    if resource != "pods" || !group.is_empty() {
        return None;
    }
    let containers = |field: &str| {
        let list = pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array);
        list.into_iter().flatten().cloned().collect::<Vec<_>>()
    };
    let all: Vec<Value> = containers("containers").into_iter().chain(containers("initContainers")).collect();
    let mut missing = Vec::new();
    for name in hard(quota).keys() {
        let (part, what) = match name.as_str() {
            "cpu" | "memory" => ("requests", name.as_str()),
            "requests.cpu" | "limits.cpu" | "requests.memory" | "limits.memory" => {
                let (part, what) = name.split_once('.')?;
                (part, what)
            }
            _ => continue,
        };
        let whole = pod.pointer(&format!("/spec/resources/{part}/{what}")).is_some();
        let lacking: Vec<&str> = (all.iter())
            .filter(|c| !whole && c.pointer(&format!("/resources/{part}/{what}")).is_none())
            .filter_map(|c| c["name"].as_str())
            .collect();
        if !lacking.is_empty() {
            missing.push(format!("{name} for: {}", lacking.join(",")));
        }
    }
    (!missing.is_empty()).then(|| missing.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::trial;
    use super::*;
    use crate::objects::fake::FakeObjects;

    fn pod(name: &str, cpu: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "ns"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    fn plugin(hard: Value) -> (Arc<FakeObjects>, ResourceQuota) {
        let objects = Arc::new(FakeObjects::default());
        let quota = json!({"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": hard}});
        objects.put("/resourcequotas", &quota);
        (objects.clone(), ResourceQuota::new(objects))
    }

    async fn create(plugin: &ResourceQuota, resource: (&str, &str, &str), mut object: Value) -> String {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let attributes = trial::attributes(Operation::Create, resource, Some("ns"), &name, &mut object);
        trial::validate(plugin, attributes).await
    }

    const PODS: (&str, &str, &str) = ("", "v1", "pods");

    #[tokio::test]
    async fn what_is_there_and_what_is_underway_counts() {
        let (objects, plugin) = plugin(json!({"requests.cpu": "1", "pods": "3"}));
        assert_eq!(create(&plugin, PODS, pod("a", "400m")).await, "");
        // Not yet stored, and counted; once it is stored it is counted once.
        assert_eq!(create(&plugin, PODS, pod("b", "400m")).await, "");
        objects.put("/pods", &pod("a", "400m"));
        assert_eq!(
            create(&plugin, PODS, pod("c", "400m")).await,
            "pods \"c\" is forbidden: exceeded quota: q, requested: requests.cpu=400m, used: requests.cpu=800m, \
             limited: requests.cpu=1"
        );
        assert_eq!(create(&plugin, PODS, pod("d", "100m")).await, "");
        let said = create(&plugin, PODS, pod("e", "200m")).await;
        assert!(said.ends_with(
            "requested: pods=1,requests.cpu=200m, used: pods=3,requests.cpu=900m, limited: pods=3,requests.cpu=1"
        ));
    }

    #[tokio::test]
    async fn containers_must_say_what_is_counted() {
        let (_, plugin) = plugin(json!({"requests.cpu": "1", "limits.memory": "1Gi"}));
        assert_eq!(
            create(&plugin, PODS, pod("a", "400m")).await,
            "pods \"a\" is forbidden: failed quota: q: must specify limits.memory for: c"
        );
    }

    #[tokio::test]
    async fn objects_are_counted_by_kind() {
        let (objects, plugin) = plugin(json!({"count/deployments.apps": "1", "services.nodeports": "0"}));
        let deployments = ("apps", "v1", "deployments");
        assert_eq!(create(&plugin, deployments, json!({"metadata": {"name": "a"}})).await, "");
        assert_eq!(create(&plugin, ("", "v1", "configmaps"), json!({"metadata": {"name": "a"}})).await, "");
        let stored = json!({"metadata": {"name": "a", "namespace": "ns"}});
        objects.put("apps/deployments", &stored);
        let said = create(&plugin, deployments, json!({"metadata": {"name": "b"}})).await;
        assert!(said.contains("exceeded quota: q, requested: count/deployments.apps=1"), "{said}");
        let service =
            |kind: &str| json!({"metadata": {"name": "s"}, "spec": {"type": kind, "ports": [{"port": 1}]}});
        let services = ("", "v1", "services");
        assert_eq!(create(&plugin, services, service("ClusterIP")).await, "");
        assert!(create(&plugin, services, service("NodePort")).await.contains("services.nodeports=1"));
        // An update that asks for no more is let through, whatever the quota says now.
        let mut new = service("NodePort");
        let old = service("NodePort");
        let mut attributes = trial::attributes(Operation::Update, services, Some("ns"), "s", &mut new);
        attributes.old = Some(&old);
        assert_eq!(trial::validate(&plugin, attributes).await, "");
    }
}
