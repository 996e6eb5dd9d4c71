//! Nodes.

use std::collections::HashSet;

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::registry::{FieldName, named};
use crate::resources::cells;
use crate::resources::deprecations;
use crate::resources::fields::object_at;
use crate::resources::fields::{Fields, set};
use crate::resources::internal::{TAINT, shown};
use crate::resources::pod_spec::{quantity, taint_effect};
use crate::resources::rules::{Errors, cidr, names, nothing, required};
use crate::strategy::{Context, Strategy, keep, keep_all_but};

/// Labels with this prefix name a role.
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
/// The label whose value names a role.
const ROLE_LABEL: &str = "kubernetes.io/role";

/// The strategy of `nodes`.
pub(crate) struct Nodes;

impl Strategy for Nodes {
    fn default(&self, object: &mut Value) {
        let capacity = object.at("status.capacity").clone();
        if !capacity.is_null() && !object.has("status.allocatable") {
            set(&mut object["status"], "allocatable", Some(capacity));
        }
    }

    fn prepare_create(&self, _context: &Context<'_>, object: &mut Value) {
        agree_on_cidrs(object);
    }

    fn prepare_update(&self, _context: &Context<'_>, object: &mut Value, old: &Value) {
        keep(object, old, "status");
        agree_on_cidrs(object);
    }

    fn prepare_subresource_update(&self, _context: &Context<'_>, sub: &str, object: &mut Value, old: &Value) {
        keep_all_but(object, old, &["metadata", sub]);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = resources(object);
        // The taints' path is what the API says, not where they are.
        taints(&mut errors, &Path::new("metadata.taints"), object.items("spec.taints"));
        cidrs(&mut errors, &Path::new("spec.podCIDRs"), object);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = resources(object);
        taints(&mut errors, &Path::new("metadata.taints"), object.items("spec.taints"));
        let path = Path::new("spec");
        let cidrs_path = path.child("podCIDRs");
        let before = old.items("spec.podCIDRs");
        cidrs(&mut errors, &cidrs_path, object);
        if !before.is_empty() && before != object.items("spec.podCIDRs") {
            let text = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(FieldError::forbidden(cidrs_path, text));
        }
        let provider = old.text("spec.providerID");
        if !provider.is_empty() && provider != object.text("spec.providerID") {
            let text = "field cannot be modified once set";
            errors.push(FieldError::invalid(path.child("providerID"), nothing(), text));
        }
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        if !object.text("spec.externalID").is_empty() {
            out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        for (i, range) in object.texts("spec.podCIDRs").enumerate() {
            deprecations::cidr(&mut out, &Path::new("spec.podCIDRs").index(i), range);
        }
        out
    }

    fn selectable_fields(&self) -> &[FieldName] {
        const { &[named("spec.unschedulable")] }
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        (name == "spec.unschedulable").then(|| object.flag(name).to_string())
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = |name: &str| object.at("status.nodeInfo").text(name);
        let text = |text: &str| if text.is_empty() { "<unknown>".to_owned() } else { text.to_owned() };
        let kernel = text(info("kernelVersion"));
        let kernel = match info("architecture") {
            "" => kernel,
            architecture => format!("{kernel} ({architecture})"),
        };
        vec![
            cells::name(object),
            status(object).into(),
            cells::or_none(&roles(object)),
            cells::age(object, now),
            info("kubeletVersion").into(),
            cells::or_none(address(object, "InternalIP")),
            cells::or_none(address(object, "ExternalIP")),
            text(info("osImage")).into(),
            kernel.into(),
            text(info("containerRuntimeVersion")).into(),
        ]
    }
}

fn status(object: &Value) -> String {
    let conditions = object.items("status.conditions").iter();
    let mut words: Vec<&str> = conditions
        .filter(|c| c.text("type") == "Ready")
        .map(|c| if c.text("status") == "True" { "Ready" } else { "NotReady" })
        .collect();
    if words.is_empty() {
        words.push("Unknown");
    }
    if object.flag("spec.unschedulable") {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(object: &Value) -> String {
    let mut roles: Vec<&str> = object
        .entries("metadata")
        .filter(|(name, _)| *name == "labels")
        .filter_map(|(_, labels)| labels.as_object())
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == ROLE_LABEL => value.as_str().filter(|v| !v.is_empty()),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles.join(",")
}

fn address<'a>(object: &'a Value, kind: &str) -> &'a str {
    object.items("status.addresses").iter().find(|a| a.text("type") == kind).map_or("", |a| a.text("address"))
}

/// `podCIDR` and the first of `podCIDRs` are the same thing; where they differ, the older field rules.
fn agree_on_cidrs(node: &mut Value) {
    let first = node.text("spec.podCIDR").to_owned();
    let head = node.texts("spec.podCIDRs").next().map(str::to_owned);
    match (first.as_str(), head) {
        ("", Some(head)) => object_at(node, "spec")["podCIDR"] = head.into(),
        ("", None) => {}
        (_, Some(head)) if head == first => {}
        _ => object_at(node, "spec")["podCIDRs"] = vec![first].into(),
    }
}

fn taints(errors: &mut Errors, path: &Path, taints: &[Value]) {
    let mut taken = HashSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        let (key, value, effect) = (taint.text("key"), taint.text("value"), taint.text("effect"));
        names(errors, &path.child("key"), key, labels::qualified_name(key));
        names(errors, &path.child("value"), value, labels::label_value(value));
        if required(errors, &path.child("effect"), effect) {
            taint_effect(errors, &path.child("effect"), effect);
        }
        if !taken.insert((key, effect)) {
            errors.push(FieldError::duplicate(&path, shown(taint, TAINT)));
        }
    }
}

/// What is wrong with how much a node has.
fn resources(node: &Value) -> Errors {
    let mut errors = Errors::new();
    for list in ["status.capacity", "status.allocatable"] {
        for (name, amount) in node.entries(list) {
            quantity(&mut errors, &Path::new(list).child(name), name, amount);
        }
    }
    errors
}

fn cidrs(errors: &mut Errors, path: &Path, node: &Value) {
    let all: Vec<&str> = node.texts("spec.podCIDRs").collect();
    for (i, text) in all.iter().enumerate() {
        cidr(errors, &path.index(i), text);
    }
    let families: Vec<bool> =
        all.iter().filter_map(|text| labels::parse_cidr(text)).map(|(ip, _)| ip.is_ipv6()).collect();
    if all.len() > 1 && families.len() == all.len() && (all.len() > 2 || families[0] == families[1]) {
        let text = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(path, node.at("spec.podCIDRs").clone(), text));
    }
}
