//! The taints that follow from a node's conditions. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};

use super::health::{condition, ready_status};
use crate::runtime::object::time;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep pods off while they are True.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// What a node's taints shall be, as far as they are ours.
pub(super) struct Wanted {
    /// Keys of taints that keep new pods off.
    pub(super) keep_off: Vec<&'static str>,
    /// The taint that also drives pods out.
    pub(super) evict: Option<Taint>,
}

fn taint(key: &str, effect: &str) -> Taint {
    Taint { key: key.to_owned(), effect: effect.to_owned(), value: None, time_added: None }
}

/// The taints for the node's conditions.
pub(super) fn wanted(node: &Node) -> Wanted {
    let lost = match ready_status(node) {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    };
    let pressed = |kind: &str| condition(node, kind).is_some_and(|c| c.status == "True");
    let mut keep_off: Vec<&'static str> = lost.into_iter().collect();
    keep_off.extend(PRESSURES.iter().filter(|(kind, _)| pressed(kind)).map(|(_, key)| *key));
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        keep_off.push(UNSCHEDULABLE);
    }
    Wanted { keep_off, evict: lost.map(|key| taint(key, NO_EXECUTE)) }
}

/// Whether the node has this taint.
pub(super) fn has(node: &Node, taint: &Taint) -> bool {
    held(node).iter().any(|t| t.key == taint.key && t.effect == taint.effect)
}

fn held(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

fn ours(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    match taint.effect.as_str() {
        NO_SCHEDULE => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, p)| *p == key)
        }
        NO_EXECUTE => [NOT_READY, UNREACHABLE].contains(&key),
        _ => false,
    }
}

/// The node's taints with ours as wanted; `None` if they are so already.
pub(super) fn merged(
    node: &Node,
    keep_off: &[&str],
    evict: Option<&Taint>,
    now: Timestamp,
) -> Option<Vec<Taint>> {
    let mut missing: Vec<Taint> = keep_off.iter().map(|key| taint(key, NO_SCHEDULE)).collect();
    missing.extend(evict.cloned());
    let mut taints = Vec::new();
    for held in held(node) {
        let wanted = missing.iter().position(|m| m.key == held.key && m.effect == held.effect);
        if let Some(index) = wanted {
            missing.swap_remove(index);
        } else if ours(held) {
            continue;
        }
        taints.push(held.clone());
    }
    if missing.is_empty() && taints.len() == held(node).len() {
        return None;
    }
    missing.sort_by(|a, b| (&a.key, &a.effect).cmp(&(&b.key, &b.effect)));
    taints.extend(missing.into_iter().map(|t| Taint { time_added: Some(time(now)), ..t }));
    Some(taints)
}
