//! Events: the core form and that of events.k8s.io name the same things differently.

use serde_json::{Map, Value};

/// Core name, events.k8s.io name.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// `None` if the value is no object.
pub(super) fn to_events(event: &mut Value) -> Option<()> {
    let entries = event.as_object_mut()?;
    NAMES.iter().for_each(|(core, events)| rename(entries, core, events));
    Some(())
}

/// `None` if the value is no object.
pub(super) fn to_core(event: &mut Value) -> Option<()> {
    let entries = event.as_object_mut()?;
    NAMES.iter().for_each(|(core, events)| rename(entries, events, core));
    Some(())
}

fn rename(entries: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = entries.remove(from) {
        entries.insert(to.to_owned(), value);
    }
}
