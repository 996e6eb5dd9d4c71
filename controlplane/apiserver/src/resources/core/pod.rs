//! Pods: born Pending, deleted gracefully, shown with the state of their containers.

mod label_keys;
mod resize;
mod row;
mod update;

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::{labels, time};
use serde_json::{Value, json};

use crate::registry::{FieldName, named};
use crate::resources::fields::{Fields, object_at, set};
use crate::resources::pod_spec::{self, defaults, quality, warnings};
use crate::strategy::{Context, Strategy, keep, keep_all_but};

/// The strategy of `pods`.
pub(crate) struct Pods;

impl Strategy for Pods {
    fn default(&self, object: &mut Value) {
        let spec = object_at(object, "spec");
        defaults::spec(spec);
        defaults::pod(spec);
        if object.has("status") {
            agree_on_ips(object_at(object, "status"));
        }
    }

    fn prepare_create(&self, context: &Context<'_>, object: &mut Value) {
        label_keys::merge(object);
        let class = quality::class(object.at("spec"));
        object["status"] = json!({"phase": "Pending", "qosClass": class});
        if !object.items("spec.schedulingGates").is_empty() {
            object_at(object, "status")["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null, "lastTransitionTime": time::format(context.now),
            }]);
        }
    }

    fn prepare_update(&self, _context: &Context<'_>, object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    fn prepare_subresource_update(&self, _context: &Context<'_>, sub: &str, object: &mut Value, old: &Value) {
        match sub {
            "status" => {
                keep_all_but(object, old, &["metadata", "status"]);
                if let Some(class) = old.some_text("status.qosClass").map(str::to_owned) {
                    object_at(object, "status")["qosClass"] = class.into();
                }
            }
            "ephemeralcontainers" => {
                let containers = object.at("spec.ephemeralContainers").clone();
                keep_all_but(object, old, &["metadata"]);
                set(object_at(object, "spec"), "ephemeralContainers", Some(containers));
            }
            "resize" => resize::keep_all_but_resources(object, old),
            _ => keep_all_but(object, old, &["metadata"]),
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        pod_spec::pod(&mut errors, object);
        if !object.items("spec.ephemeralContainers").is_empty() {
            errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if object.at("spec") == old.at("spec") {
            // It was judged when it was stored, and most writes of pods touch only their metadata.
            return errors;
        }
        pod_spec::pod(&mut errors, object);
        update::change(&mut errors, object, old);
        errors
    }

    fn validate_subresource_update(&self, sub: &str, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match sub {
            "ephemeralcontainers" => {
                pod_spec::pod(&mut errors, object);
                update::ephemeral_containers(&mut errors, object, old);
            }
            "resize" => {
                pod_spec::pod(&mut errors, object);
                resize::change(&mut errors, object, old);
            }
            _ => {}
        }
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        // Those who update pods are mostly no people.
        if old.is_some() {
            return Vec::new();
        }
        let mut out = Vec::new();
        let complaints = labels::dns_label(object.text("metadata.name"));
        if !complaints.is_empty() {
            out.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
                complaints.join(" ")
            ));
        }
        out.extend(warnings::template(&Path::default(), object));
        out
    }

    fn selectable_fields(&self) -> &[FieldName] {
        const {
            &[
                named("spec.nodeName"),
                named("spec.restartPolicy"),
                named("spec.schedulerName"),
                named("spec.serviceAccountName"),
                named("spec.hostNetwork"),
                named("status.phase"),
                named("status.podIP"),
                named("status.podIPs"),
                named("status.nominatedNodeName"),
            ]
        }
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        Some(match name {
            "spec.hostNetwork" => object.flag(name).to_string(),
            "status.podIP" => object.items("status.podIPs").first().map(|ip| ip.text("ip").to_owned())?,
            "status.podIPs" => {
                object.items(name).iter().map(|ip| ip.text("ip")).collect::<Vec<_>>().join(",")
            }
            _ => object.text(name).to_owned(),
        })
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        row::cells(object, now)
    }

    fn row_conditions(&self, object: &Value) -> Option<Value> {
        let (reason, message) = match object.text("status.phase") {
            "Succeeded" => ("Succeeded", "The pod has completed successfully."),
            "Failed" => ("Failed", "The pod failed."),
            _ => return None,
        };
        Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn graceful_delete(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let mut seconds =
            requested.or_else(|| object.some_int("spec.terminationGracePeriodSeconds")).unwrap_or_default();
        // Nobody runs it (any more): there is nothing to wait for.
        if object.text("spec.nodeName").is_empty()
            || matches!(object.text("status.phase"), "Failed" | "Succeeded")
        {
            seconds = 0;
        }
        if seconds < 0 {
            seconds = 1;
        }
        Some(seconds)
    }
}

/// `podIP` and the first of `podIPs` are the same thing; a client that knows only the older one means all.
fn agree_on_ips(status: &mut Value) {
    let first = status.text("podIP").to_owned();
    let head = status.items("podIPs").first().map(|ip| ip.text("ip").to_owned());
    match (first.as_str(), head) {
        ("", Some(head)) => status["podIP"] = head.into(),
        ("", None) => {}
        (_, Some(head)) if head == first => {}
        _ => status["podIPs"] = json!([{"ip": first}]),
    }
}
