//! The rules for IPAddresses: an address of a Service's range, and what it belongs to.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, immutable_unshown, names, required};

/// What is wrong with an IPAddress.
pub(super) fn check(address: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, parent) = (Path::new("spec.parentRef"), address.at("spec.parentRef"));
    if parent.is_null() {
        errors.push(FieldError::required(path, ""));
        return errors;
    }
    let group = parent.text("group");
    if !group.is_empty() {
        names(&mut errors, &path.child("group"), group, labels::dns_subdomain(group));
    }
    for field in ["resource", "name"] {
        let text = parent.text(field);
        if required(&mut errors, &path.child(field), text) {
            names(&mut errors, &path.child(field), text, labels::path_segment_name(text, false));
        }
    }
    let namespace = parent.text("namespace");
    if !namespace.is_empty() {
        let complaints = labels::path_segment_name(namespace, false);
        names(&mut errors, &path.child("namespace"), namespace, complaints);
    }
    errors
}

/// What is wrong with a change: the parent stays.
pub(super) fn change(address: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, field) = (Path::new("spec.parentRef"), "spec.parentRef");
    immutable_unshown(&mut errors, &path, address.at(field), old.at(field));
    errors
}
