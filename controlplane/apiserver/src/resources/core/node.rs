//! Nodes.

use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::{Fields, set};
use crate::strategy::Strategy;

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

    fn prepare_create(&self, _context: &crate::strategy::Context<'_>, _object: &mut Value) {}

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
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
