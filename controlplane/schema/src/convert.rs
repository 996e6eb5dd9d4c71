//! Conversion between the served forms of one stored object. Most resources have one form only; those with more are
//! listed here, so that the rest of the crate need not know any kind.

mod autoscaler;
mod event;

use serde_json::Value;

use crate::normalize;
use crate::table::{Resource, Table};

/// There is no way from one resource's form to the other's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot convert {from} to {to}")]
pub struct ConvertError {
    from: String,
    to: String,
}

/// Turns an object of the resource `from` into the form of the resource `to`.
pub fn convert(
    table: &Table,
    from: &Resource,
    to: &Resource,
    object: &mut Value,
) -> Result<(), ConvertError> {
    if (&from.group, &from.version) == (&to.group, &to.version) {
        return Ok(());
    }
    let known = match (&*from.api_version(), &*to.api_version(), &*from.kind) {
        ("v1", "events.k8s.io/v1", "Event") => event::to_events(object),
        ("events.k8s.io/v1", "v1", "Event") => event::to_core(object),
        ("autoscaling/v1", "autoscaling/v2", "HorizontalPodAutoscaler") => autoscaler::to_v2(object),
        ("autoscaling/v2", "autoscaling/v1", "HorizontalPodAutoscaler") => autoscaler::to_v1(object),
        _ => None,
    };
    if known.is_none() || from.kind != to.kind {
        let name = |r: &Resource| format!("{}, kind {}", r.api_version(), r.kind);
        return Err(ConvertError { from: name(from), to: name(to) });
    }
    object["apiVersion"] = Value::String(to.api_version());
    normalize(table, to.type_id, object);
    Ok(())
}

#[cfg(test)]
mod tests;
