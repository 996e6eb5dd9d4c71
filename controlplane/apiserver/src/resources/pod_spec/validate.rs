//! The rules for a whole pod specification, and for templates that carry one.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::{affinity, containers, network, requirements, scheduling, security, system, volumes};
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, annotations_map, in_range, labels_map, names, required_one_of};

/// A Pod of its own.
pub(crate) fn pod(errors: &mut Errors, object: &Value) {
    let path = Path::new("spec");
    let pod = object.at("spec");
    spec(errors, &path, pod, Some(object.text("metadata.name")));
    for (list, items) in containers::all(pod) {
        for (i, container) in items.iter().enumerate() {
            let image = container.text("image");
            if image.trim() != image {
                let path = path.child(list).index(i).child("image");
                errors.push(FieldError::invalid(path, image, "must not have leading or trailing whitespace"));
            }
        }
    }
    if !pod.items("schedulingGates").is_empty() && !pod.text("nodeName").is_empty() {
        let text = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(path.child("nodeName"), text));
    }
}

/// The template of a workload. `path` names the template.
pub(crate) fn template(errors: &mut Errors, path: &Path, template: &Value) {
    labels_map(errors, &path.child("labels"), template.at("metadata.labels"));
    annotations_map(errors, &path.child("annotations"), template.at("metadata.annotations"));
    spec(errors, &path.child("spec"), template.at("spec"), None);
    if !template.items("spec.ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(
            path.child("spec.ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
}

/// A pod specification; `pod_name` is known if it stands in a Pod.
fn spec(errors: &mut Errors, path: &Path, spec: &Value, pod_name: Option<&str>) {
    let known = volumes::check(errors, &path.child("volumes"), spec.items("volumes"), pod_name);
    let claims =
        requirements::pod_claims(errors, &path.child("resourceClaims"), spec.items("resourceClaims"));
    containers::check(errors, path, spec, &containers::Scope::new(spec, &known, &claims, pod_name.is_some()));
    if spec.has("resources") {
        requirements::pod_level(errors, &path.child("resources"), spec);
    }
    let restart = ["Always", "OnFailure", "Never"];
    required_one_of(errors, &path.child("restartPolicy"), spec.text("restartPolicy"), &restart);
    labels_map(errors, &path.child("nodeSelector"), spec.at("nodeSelector"));
    network::check(errors, path, spec);
    security::pod(errors, path, spec);
    affinity::check(errors, &path.child("affinity"), spec.at("affinity"));
    scheduling::check(errors, path, spec);
    identity(errors, path, spec);
    if let Some(seconds) = spec.some_int("activeDeadlineSeconds") {
        in_range(errors, &path.child("activeDeadlineSeconds"), seconds, 1, i64::from(i32::MAX));
    }
    system::check(errors, path, spec);
    for (name, quantity) in spec.entries("overhead") {
        let path = path.child("overhead").key(name);
        requirements::resource_name(errors, &path, name);
        requirements::quantity(errors, &path, name, quantity);
    }
}

/// Names: of the account, the node, the pod in DNS, its classes.
fn identity(errors: &mut Errors, path: &Path, spec: &Value) {
    type Check = fn(&str) -> Vec<String>;
    let checks: [(&str, Check); 6] = [
        ("serviceAccountName", labels::dns_subdomain),
        ("nodeName", labels::dns_subdomain),
        ("hostname", labels::dns_label),
        ("subdomain", labels::dns_label),
        ("priorityClassName", labels::dns_subdomain),
        ("runtimeClassName", labels::dns_subdomain),
    ];
    for (field, check) in checks {
        let text = spec.text(field);
        // An empty class name is an error of its own; the others count as absent.
        if !text.is_empty() || (field == "runtimeClassName" && spec.has(field)) {
            names(errors, &path.child(field), text, check(text));
        }
    }
    if let Some(policy) = spec.some_text("preemptionPolicy") {
        let known = ["PreemptLowerPriority", "Never"];
        required_one_of(errors, &path.child("preemptionPolicy"), policy, &known);
    }
}
