//! LimitRanger: containers that do not say what they need are told, and what asks for too much or too little is refused,
//! as the namespace's LimitRanges say.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use pagurus_controlplane_api::quantity::Quantity;
use pagurus_controlplane_api::quota::{Usage, total};
use pagurus_controlplane_api::status::ApiError;
use serde_json::{Map, Value, json};

use super::{Attributes, Operation, Plugin};
use crate::objects::Objects;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// See the module's description.
pub(super) struct LimitRanger {
    pub(super) objects: Arc<dyn Objects>,
}

impl LimitRanger {
    /// The limits of a namespace that are about a type: `Container`, `Pod`, `PersistentVolumeClaim`.
    fn limits(&self, attributes: &Attributes<'_>, kinds: &[&str]) -> Vec<Value> {
        let ranges = self.objects.list("", "limitranges", attributes.namespace.unwrap_or_default());
        let items = ranges.iter().flat_map(|range| {
            let range = range.parsed();
            range.pointer("/spec/limits").and_then(Value::as_array).cloned().unwrap_or_default()
        });
        items.filter(|item| kinds.contains(&item["type"].as_str().unwrap_or_default())).collect()
    }
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let limits = self.limits(attributes, &["Container"]);
        let Some(pod) = attributes.object.as_deref_mut().filter(|_| !limits.is_empty()) else {
            return Ok(());
        };
        let mut done = Vec::new();
        for limit in &limits {
            for (field, word) in [("containers", "container"), ("initContainers", "init container")] {
                let containers = pod.pointer_mut(&format!("/spec/{field}")).and_then(Value::as_array_mut);
                containers.into_iter().flatten().for_each(|c| give(c, limit, word, &mut done));
            }
        }
        if !done.is_empty() {
            let text = format!("LimitRanger plugin set: {}", done.join("; "));
            object_in(object_in(pod, "metadata"), "annotations")[ANNOTATION] = json!(text);
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let Some(object) = attributes.object.as_deref() else { return Ok(()) };
        let (creates, updates) =
            (attributes.operation == Operation::Create, attributes.operation == Operation::Update);
        let plural = &*attributes.resource.plural;
        let core = attributes.resource.group.is_empty();
        let resize = updates && attributes.subresource == Some("resize");
        let complaints = match plural {
            "pods" if core && ((creates && attributes.subresource.is_none()) || resize) => {
                pod_complaints(object, &self.limits(attributes, &["Container", "Pod"]))
            }
            "persistentvolumeclaims" if core && attributes.subresource.is_none() && (creates || updates) => {
                claim_complaints(object, &self.limits(attributes, &["PersistentVolumeClaim"]))
            }
            _ => return Ok(()),
        };
        match complaints.as_slice() {
            [] => Ok(()),
            [only] => Err(attributes.forbidden(only)),
            several => Err(attributes.forbidden(&format!("[{}]", several.join(", ")))),
        }
    }
}

fn object_in<'v>(object: &'v mut Value, field: &str) -> &'v mut Value {
    let inner = &mut object[field];
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    inner
}

/// Gives a container what it does not ask for.
fn give(container: &mut Value, limit: &Value, word: &str, done: &mut Vec<String>) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    for (from, to, what) in [("defaultRequest", "requests", "request"), ("default", "limits", "limit")] {
        let mut given = Vec::new();
        for (resource, amount) in limit[from].as_object().into_iter().flatten() {
            let asked = object_in(object_in(container, "resources"), to);
            if asked.get(resource).is_none() {
                asked[resource] = amount.clone();
                given.push(resource.as_str());
            }
        }
        if !given.is_empty() {
            given.sort_unstable();
            done.push(format!("{} {what} for {word} {name}", given.join(", ")));
        }
    }
}

fn amounts(map: &Value) -> BTreeMap<String, Quantity> {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::from_json(value).ok()?))).collect()
}

fn pod_complaints(pod: &Value, limits: &[Value]) -> Vec<String> {
    let mut complaints = Vec::new();
    for limit in limits {
        let kind = limit["type"].as_str().unwrap_or_default();
        if kind == "Pod" {
            judge(limit, kind, &total(pod, "requests"), &total(pod, "limits"), &mut complaints);
            continue;
        }
        for field in ["containers", "initContainers"] {
            let containers = pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array);
            for container in containers.into_iter().flatten() {
                let asked = |part: &str| amounts(&container["resources"][part]);
                judge(limit, kind, &asked("requests"), &asked("limits"), &mut complaints);
            }
        }
    }
    complaints
}

/// Compares requests and limits with a LimitRange's item.
fn judge(limit: &Value, kind: &str, requests: &Usage, limits: &Usage, complaints: &mut Vec<String>) {
    for (name, least) in amounts(&limit["min"]) {
        let text = format!("minimum {name} usage per {kind} is {least}");
        match requests.get(&name) {
            None => complaints.push(format!("{text}.  No request is specified")),
            Some(asked) if *asked < least => complaints.push(format!("{text}, but request is {asked}")),
            Some(_) => {}
        }
        if let Some(most) = limits.get(&name).filter(|most| **most < least) {
            complaints.push(format!("{text}, but limit is {most}"));
        }
    }
    for (name, most) in amounts(&limit["max"]) {
        let text = format!("maximum {name} usage per {kind} is {most}");
        match limits.get(&name) {
            None => complaints.push(format!("{text}.  No limit is specified")),
            Some(allowed) if *allowed > most => complaints.push(format!("{text}, but limit is {allowed}")),
            Some(_) => {}
        }
        if let Some(asked) = requests.get(&name).filter(|asked| **asked > most) {
            complaints.push(format!("{text}, but request is {asked}"));
        }
    }
    for (name, ratio) in amounts(&limit["maxLimitRequestRatio"]) {
        let text = format!("{name} max limit to request ratio per {kind} is {ratio}");
        let value = |from: &Usage| from.get(&name).filter(|a| a.sign() > 0).map(Quantity::as_f64);
        match (value(requests), value(limits)) {
            (None, _) => complaints.push(format!("{text}, but no request is specified or request is 0")),
            (_, None) => complaints.push(format!("{text}, but no limit is specified or limit is 0")),
            (Some(asked), Some(allowed)) if allowed / asked > ratio.as_f64() => {
                complaints.push(format!("{text}, but provided ratio is {:.6}", allowed / asked));
            }
            _ => {}
        }
    }
}

fn claim_complaints(claim: &Value, limits: &[Value]) -> Vec<String> {
    let requests = amounts(claim.pointer("/spec/resources/requests").unwrap_or(&Value::Null));
    let mut complaints = Vec::new();
    for limit in limits {
        for (field, word) in [("min", "minimum"), ("max", "maximum")] {
            for (name, bound) in amounts(&limit[field]) {
                let text = format!("{word} {name} usage per PersistentVolumeClaim is {bound}");
                match requests.get(&name) {
                    None => complaints.push(format!("{text}.  No request is specified")),
                    Some(asked)
                        if (field == "min" && *asked < bound) || (field == "max" && *asked > bound) =>
                    {
                        complaints.push(format!("{text}, but request is {asked}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::trial;
    use super::*;
    use crate::objects::fake::FakeObjects;

    fn plugin(limits: Value) -> LimitRanger {
        let objects = FakeObjects::default();
        objects.put(
            "/limitranges",
            &json!({"metadata": {"name": "l", "namespace": "ns"}, "spec": {"limits": limits}}),
        );
        LimitRanger { objects: Arc::new(objects) }
    }

    #[tokio::test]
    async fn defaults() {
        let plugin = plugin(json!([{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"},
            "defaultRequest": {"cpu": "500m", "memory": "512Mi"}}]));
        let mut pod = json!({"spec": {"containers": [
            {"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}}]}});
        let attributes = trial::attributes(Operation::Create, ("", "v1", "pods"), Some("ns"), "p", &mut pod);
        assert_eq!(trial::admit(&plugin, attributes).await, "");
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}})
        );
        assert_eq!(
            pod["spec"]["containers"][1]["resources"]["requests"],
            json!({"cpu": "1", "memory": "512Mi"})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for container a; memory \
             request for container b"
        );
    }

    #[tokio::test]
    async fn bounds() {
        let limits = json!([
            {"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "4"}},
            {"type": "Pod", "max": {"memory": "1Gi"}},
            {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}}]);
        let plugin = plugin(limits);
        let asks = |requests: Value, limits: Value| json!({"name": "c", "resources": {"requests": requests, "limits": limits}});
        let fine = asks(json!({"cpu": "250m", "memory": "1Mi"}), json!({"cpu": "1", "memory": "512Mi"}));
        for (containers, expected) in [
            (json!([fine]), String::new()),
            (
                json!([asks(
                    json!({"cpu": "50m", "memory": "1Mi"}),
                    json!({"cpu": "150m", "memory": "1Mi"})
                )]),
                "minimum cpu usage per Container is 100m, but request is 50m".to_owned(),
            ),
            (
                json!([asks(json!({"cpu": "1", "memory": "1Mi"}), json!({"cpu": "2", "memory": "1Mi"}))]),
                "maximum cpu usage per Container is 1, but limit is 2".to_owned(),
            ),
            (
                json!([asks(json!({"cpu": "200m", "memory": "1Mi"}), json!({"cpu": "1", "memory": "1Mi"}))]),
                "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000"
                    .to_owned(),
            ),
            (
                json!([fine, fine, fine]),
                "maximum memory usage per Pod is 1Gi, but limit is 1536Mi".to_owned(),
            ),
            (
                json!([asks(json!({"cpu": "250m"}), json!({"cpu": "1"}))]),
                "maximum memory usage per Pod is 1Gi.  No limit is specified".to_owned(),
            ),
        ] {
            let mut pod = json!({"spec": {"containers": containers}});
            let attributes =
                trial::attributes(Operation::Create, ("", "v1", "pods"), Some("ns"), "p", &mut pod);
            let expected =
                if expected.is_empty() { expected } else { format!("pods \"p\" is forbidden: {expected}") };
            assert_eq!(trial::validate(&plugin, attributes).await, expected);
        }
        let mut claim = json!({"spec": {"resources": {"requests": {"storage": "9Gi"}}}});
        let resource = ("", "v1", "persistentvolumeclaims");
        let attributes = trial::attributes(Operation::Create, resource, Some("ns"), "c", &mut claim);
        assert_eq!(
            trial::validate(&plugin, attributes).await,
            "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 5Gi, but \
             request is 9Gi"
        );
    }
}
