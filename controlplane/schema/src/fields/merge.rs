//! Lays an applied configuration over the live object: what it names is replaced, what it does not name stays.

use super::compare::items;
use super::view::{Place, Shape};
use serde_json::{Map, Value};

/// The live object with the configuration laid over it.
pub(crate) fn merge(place: &Place<'_>, live: &Value, config: &Value) -> Value {
    match place.shape(Some(config)) {
        Shape::Whole => config.clone(),
        Shape::Fields(id) => entries(live, config, |name| place.field(id, name)),
        Shape::Entries(next) => entries(live, config, |_| Some(next)),
        Shape::Values => {
            list(items(Some(live)), items(Some(config)), |item| format!("v:{item}"), |_, new| new.clone())
        }
        Shape::Items(id, keys) => {
            let item = place.item(id);
            list(
                items(Some(live)),
                items(Some(config)),
                |value| place.step_of(id, keys, value),
                |old, new| merge(&item, old, new),
            )
        }
    }
}

fn entries<'p>(live: &Value, config: &Value, place: impl Fn(&str) -> Option<Place<'p>>) -> Value {
    let Value::Object(config) = config else { return config.clone() };
    let mut merged = live.as_object().cloned().unwrap_or_default();
    for (name, new) in config {
        let value = match (merged.get(name), place(name)) {
            (Some(old), Some(place)) => merge(&place, old, new),
            // Nothing is there to merge with, but items still meet each other by their keys.
            (None, Some(place)) => merge(&place, &Value::Null, new),
            (_, None) => new.clone(),
        };
        merged.insert(name.clone(), value);
    }
    Value::Object(merged)
}

/// Merges two lists whose items have names. The configuration's order holds for what it names; what only the live list has keeps its
/// place before the next item that both have.
fn list(
    live: &[Value],
    config: &[Value],
    step: impl Fn(&Value) -> String,
    each: impl Fn(&Value, &Value) -> Value,
) -> Value {
    let live: Vec<(String, &Value)> = live.iter().map(|item| (step(item), item)).collect();
    let config: Vec<(String, &Value)> = config.iter().map(|item| (step(item), item)).collect();
    let named = |list: &[(String, &Value)], step: &str| list.iter().any(|(other, _)| other == step);
    let mut merged = Vec::with_capacity(live.len() + config.len());
    let mut rest = live.iter().peekable();
    for (name, new) in &config {
        // Live items before the next shared one keep their place before it.
        if named(&live, name) {
            while let Some((other, item)) = rest.peek() {
                if named(&config, other) {
                    break;
                }
                merged.push((*item).clone());
                rest.next();
            }
            if rest.peek().is_some_and(|(other, _)| named(&config, other)) {
                rest.next();
            }
        }
        let old = live.iter().find(|(other, _)| other == name).map(|(_, item)| *item);
        merged.push(each(old.unwrap_or(&Value::Null), new));
    }
    merged.extend(rest.filter(|(other, _)| !named(&config, other)).map(|(_, item)| (*item).clone()));
    Value::Array(merged)
}

/// An empty object, for what is not there yet.
pub(crate) fn nothing() -> Value {
    Value::Object(Map::new())
}
