//! Binding: a pod is put on a node, once.

use pagurus_controlplane_api::field::{FieldError, aggregate};
use pagurus_controlplane_api::key::GroupVersionResource;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_api::time;
use serde_json::{Map, Value, json};

use super::{done, read, text};
use crate::engine::Engine;
use crate::objects::Objects;
use crate::request::{Body, Call};

/// Labels that a pod takes over from its node.
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

pub(super) async fn serve(
    engine: &Engine,
    objects: &dyn Objects,
    call: &Call,
    body: Body,
) -> Result<Value, ApiError> {
    let binding = read(engine, ("", "v1", "Binding"), call, body).await?;
    let given = text(&binding, "/metadata/name");
    let name = call.info.name.as_deref().unwrap_or(given);
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    let mistakes = mistakes(&binding);
    if !mistakes.is_empty() {
        return Err(ApiError::unknown(aggregate(&mistakes)));
    }
    let node = objects.get("", "nodes", "", text(&binding, "/target/name")).map(|stored| stored.value());
    let labels = node.as_ref().and_then(|node| node.pointer("/metadata/labels")).and_then(Value::as_object);
    let labels: Map<String, Value> = labels
        .into_iter()
        .flatten()
        .filter(|(key, _)| TOPOLOGY.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let now = time::now_text();
    let namespace = call.info.namespace.as_deref();
    let pods = GroupVersionResource::new("", "v1", "pods");
    let change = |pod: &mut Value| bind(pod, &binding, name, &labels, &now);
    engine.modify(&pods, namespace, name, call.query.get("dryRun") == Some("All"), change).await?;
    Ok(done())
}

fn mistakes(binding: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(binding, "/target/kind");
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if text(binding, "/target/name").is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    errors
}

/// Binds the pod, if nobody has and nothing holds it back.
fn bind(
    pod: &mut Value,
    binding: &Value,
    name: &str,
    labels: &Map<String, Value>,
    now: &str,
) -> Result<(), ApiError> {
    let conflict = |why: &str| Err(ApiError::conflict("", "pods/binding", name, why));
    let (wanted, uid) = (text(binding, "/metadata/uid"), text(pod, "/metadata/uid"));
    if !wanted.is_empty() && wanted != uid {
        return conflict(&format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        ));
    }
    if pod.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null()) {
        return conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = text(pod, "/spec/nodeName");
    if !node.is_empty() {
        return conflict(&format!("pod {name} is already assigned to node \"{node}\""));
    }
    if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        return conflict(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = json!(text(binding, "/target/name"));
    let given = binding.pointer("/metadata/annotations").and_then(Value::as_object);
    for (field, additions) in [("annotations", given), ("labels", Some(labels))] {
        let Some(additions) = additions.filter(|map| !map.is_empty()) else { continue };
        let map = &mut pod["metadata"][field];
        if !map.is_object() {
            *map = json!({});
        }
        for (key, value) in additions {
            map[key] = value.clone();
        }
    }
    let scheduled =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let conditions = &mut pod["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(list) => match list.iter_mut().find(|c| text(c, "/type") == "PodScheduled") {
            Some(condition) => *condition = scheduled,
            None => list.push(scheduled),
        },
        None => *conditions = json!([scheduled]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_bound_once() {
        let binding = json!({"metadata": {"annotations": {"a": "b"}}, "target": {"name": "n1"}});
        let labels = Map::from_iter([("topology.kubernetes.io/zone".to_owned(), json!("z"))]);
        let mut pod =
            json!({"metadata": {"labels": {"app": "x"}}, "spec": {}, "status": {"phase": "Pending"}});
        bind(&mut pod, &binding, "p", &labels, "now").unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(pod["metadata"]["annotations"], json!({"a": "b"}));
        assert_eq!(pod["metadata"]["labels"], json!({"app": "x", "topology.kubernetes.io/zone": "z"}));
        assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
        let again = bind(&mut pod, &binding, "p", &labels, "now").unwrap_err();
        assert_eq!(
            again.message,
            "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\""
        );
    }

    #[test]
    fn what_holds_a_pod_back() {
        let rows = [
            (json!({"spec": {"schedulingGates": [{"name": "g"}]}}), "non-empty .spec.schedulingGates"),
            (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), "is being deleted"),
            (
                json!({"metadata": {"uid": "other"}}),
                "Precondition failed: UID in precondition: u, UID in object meta: other",
            ),
        ];
        let binding = json!({"metadata": {"uid": "u"}, "target": {"name": "n1"}});
        for (mut pod, want) in rows {
            if pod.pointer("/metadata/uid").is_none() {
                pod["metadata"]["uid"] = json!("u");
            }
            let error = bind(&mut pod, &binding, "p", &Map::new(), "now").unwrap_err();
            assert!(error.code == 409 && error.message.contains(want), "{}", error.message);
        }
    }

    #[test]
    fn targets() {
        let rows = [
            (json!({"target": {"kind": "Node", "name": "n"}}), "[]"),
            (
                json!({"target": {"kind": "Pod", "name": "n"}}),
                "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
            ),
            (json!({"target": {}}), "target.name: Required value"),
        ];
        for (binding, want) in rows {
            assert_eq!(aggregate(&mistakes(&binding)), want);
        }
    }
}
