//! The rules for affinity: to nodes and to other pods.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, label_name, label_selector, names};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The whole of `affinity`.
pub(super) fn check(errors: &mut Errors, path: &Path, affinity: &Value) {
    let node = affinity.at("nodeAffinity");
    if node.has(REQUIRED) {
        node_selector(errors, &path.child("nodeAffinity").child(REQUIRED), node.at(REQUIRED));
    }
    for (i, term) in node.items(PREFERRED).iter().enumerate() {
        let path = path.child("nodeAffinity").child(PREFERRED).index(i);
        weight(errors, &path, term);
        node_term(errors, &path.child("preference"), term.at("preference"), true);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = path.child(kind);
        for (i, term) in affinity.at(kind).items(REQUIRED).iter().enumerate() {
            pod_term(errors, &path.child(REQUIRED).index(i), term);
        }
        for (i, term) in affinity.at(kind).items(PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(i);
            weight(errors, &path, term);
            pod_term(errors, &path.child("podAffinityTerm"), term.at("podAffinityTerm"));
        }
    }
}

fn weight(errors: &mut Errors, path: &Path, term: &Value) {
    let weight = term.int("weight");
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(path.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// Terms of which one must select the node.
pub(crate) fn node_selector(errors: &mut Errors, path: &Path, selector: &Value) {
    let path = path.child("nodeSelectorTerms");
    let terms = selector.items("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(errors, &path.index(i), term, false);
    }
}

fn node_term(errors: &mut Errors, path: &Path, term: &Value, any_value: bool) {
    for (i, requirement) in term.items("matchExpressions").iter().enumerate() {
        node_requirement(errors, &path.child("matchExpressions").index(i), requirement, any_value);
    }
    for (i, requirement) in term.items("matchFields").iter().enumerate() {
        node_field(errors, &path.child("matchFields").index(i), requirement);
    }
}

fn node_requirement(errors: &mut Errors, path: &Path, requirement: &Value, any_value: bool) {
    let count = requirement.items("values").len();
    let values = path.child("values");
    match requirement.text("operator") {
        "In" | "NotIn" if count == 0 => {
            errors.push(FieldError::required(values, "must be specified when `operator` is 'In' or 'NotIn'"))
        }
        "Exists" | "DoesNotExist" if count > 0 => errors.push(FieldError::forbidden(
            values,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "Gt" | "Lt" if count != 1 => errors.push(FieldError::required(
            values,
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => {
            let text = "not a valid selector operator";
            errors.push(FieldError::invalid(path.child("operator"), other, text));
        }
    }
    label_name(errors, &path.child("key"), requirement.text("key"));
    if !any_value {
        for (i, value) in requirement.texts("values").enumerate() {
            names(errors, &path.child("values").index(i), value, labels::label_value(value));
        }
    }
}

fn node_field(errors: &mut Errors, path: &Path, requirement: &Value) {
    match requirement.text("operator") {
        "In" | "NotIn" => {
            if requirement.items("values").len() != 1 {
                let text =
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(FieldError::required(path.child("values"), text));
            }
        }
        other => {
            let text = "not a valid selector operator";
            errors.push(FieldError::invalid(path.child("operator"), other, text));
        }
    }
    match requirement.text("key") {
        "metadata.name" => {
            for (i, value) in requirement.texts("values").enumerate() {
                names(errors, &path.child("values").index(i), value, labels::dns_subdomain(value));
            }
        }
        other => {
            let text = "not a valid field selector key";
            errors.push(FieldError::invalid(path.child("key"), other, text));
        }
    }
}

fn pod_term(errors: &mut Errors, path: &Path, term: &Value) {
    label_selector(errors, &path.child("labelSelector"), term.at("labelSelector"), false);
    label_selector(errors, &path.child("namespaceSelector"), term.at("namespaceSelector"), false);
    for namespace in term.texts("namespaces") {
        names(errors, &path.child("namespace"), namespace, labels::dns_label(namespace));
    }
    label_keys(errors, path, term);
    let topology = term.text("topologyKey");
    let key = path.child("topologyKey");
    if topology.is_empty() {
        errors.push(FieldError::required(&key, "can not be empty"));
    }
    label_name(errors, &key, topology);
}

/// Keys whose values are taken from the pod itself.
fn label_keys(errors: &mut Errors, path: &Path, term: &Value) {
    let selector = term.at("labelSelector");
    let fields = ["matchLabelKeys", "mismatchLabelKeys"];
    for field in fields {
        let path = path.child(field);
        if selector.is_null() && !term.items(field).is_empty() {
            let text = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(&path, text));
        }
        for (i, key) in term.texts(field).enumerate() {
            let path = path.index(i);
            label_name(errors, &path, key);
            if field == fields[0] && term.texts(fields[1]).any(|other| other == key) {
                let text = "exists in both matchLabelKeys and mismatchLabelKeys";
                errors.push(FieldError::invalid(&path, key, text));
            }
        }
    }
}
