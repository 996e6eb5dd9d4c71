//! Conditions: the list of `{type, status, reason, message, lastTransitionTime}` that many kinds keep in their status.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::time;

/// The conditions of an object (`status.conditions`).
pub fn conditions(object: &Value) -> &[Value] {
    object.pointer("/status/conditions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The condition of a type.
pub fn get<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions(object).iter().find(|c| c["type"] == kind)
}

/// The status (`True`, `False`, `Unknown`) of a condition.
pub fn status<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    get(object, kind)?.get("status")?.as_str()
}

/// Whether a condition is there and `True`.
pub fn is_true(object: &Value, kind: &str) -> bool {
    status(object, kind) == Some("True")
}

/// A condition to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition<'a> {
    /// The type.
    pub kind: &'a str,
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    /// One word; left out when empty.
    pub reason: &'a str,
    /// A sentence; left out when empty.
    pub message: &'a str,
}

/// Sets a condition in a list, `lastTransitionTime` moving only when the status changes. Other fields of an existing
/// condition stay. Returns whether anything changed.
pub fn set(list: &mut Vec<Value>, condition: Condition<'_>, now: Timestamp) -> bool {
    let found = list.iter().position(|c| c["type"] == condition.kind);
    let index = found.unwrap_or_else(|| {
        list.push(Value::Object(Map::new()));
        list.len() - 1
    });
    let Some(entry) = list[index].as_object_mut() else { return false };
    let before = entry.clone();
    if entry.get("status").and_then(Value::as_str) != Some(condition.status) {
        entry.insert("lastTransitionTime".to_owned(), time::format(now).into());
    }
    entry.insert("type".to_owned(), condition.kind.into());
    entry.insert("status".to_owned(), condition.status.into());
    for (name, text) in [("reason", condition.reason), ("message", condition.message)] {
        if text.is_empty() {
            entry.remove(name);
        } else {
            entry.insert(name.to_owned(), text.into());
        }
    }
    *entry != before
}

/// Removes a condition from a list; returns whether it was there.
pub fn remove(list: &mut Vec<Value>, kind: &str) -> bool {
    let before = list.len();
    list.retain(|c| c["type"] != kind);
    list.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn transition_time_moves_with_the_status_only() {
        let (t1, t2) = ("2024-01-01T00:00:00Z", "2024-01-01T00:00:10Z");
        let (at1, at2) = (time::parse(t1).expect("time"), time::parse(t2).expect("time"));
        let ready = |status, reason| Condition { kind: "Ready", status, reason, message: "" };
        let mut list = Vec::new();
        assert!(set(&mut list, ready("False", "A"), at1));
        assert!(!set(&mut list, ready("False", "A"), at2));
        assert!(set(&mut list, ready("False", "B"), at2));
        assert_eq!(list[0]["lastTransitionTime"], t1);
        assert!(set(&mut list, ready("True", ""), at2));
        assert_eq!(list, [json!({"type": "Ready", "status": "True", "lastTransitionTime": t2})]);
        let object = json!({"status": {"conditions": list}});
        assert!(is_true(&object, "Ready"));
        assert!(!is_true(&object, "Other"));
        assert!(remove(&mut list, "Ready") && list.is_empty());
    }
}
