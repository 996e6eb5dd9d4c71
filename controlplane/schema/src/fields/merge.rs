//! Lays an applied configuration over the live object: what it names is replaced, what it does not name stays.

use super::compare::items;
use super::view::{Place, Shape};
use serde_json::{Map, Value};
use std::collections::HashMap;

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

/// Merges two lists whose items have names. The configuration's order holds for what it names; what only the live list has comes
/// where it is met on the way through the live list, which is before what only the configuration has.
fn list(
    live: &[Value],
    config: &[Value],
    step: impl Fn(&Value) -> String,
    each: impl Fn(&Value, &Value) -> Value,
) -> Value {
    let steps = |items: &[Value]| items.iter().map(&step).collect::<Vec<_>>();
    let (live_steps, config_steps) = (steps(live), steps(config));
    let (in_live, in_config) = (places(&live_steps), places(&config_steps));
    let merged = |at: usize| {
        let old = in_live.get(config_steps[at].as_str()).map_or(&Value::Null, |at| &live[*at]);
        each(old, &config[at])
    };
    let mut out = Vec::with_capacity(live.len() + config.len());
    let mut shared =
        (0..config.len()).filter(|at| in_live.contains_key(config_steps[*at].as_str())).peekable();
    let mut next = 0;
    for (step, item) in live_steps.iter().zip(live) {
        let Some(at) = in_config.get(step.as_str()) else {
            out.push(item.clone());
            continue;
        };
        // Items that both have, but in another order, come where the configuration has them.
        if shared.next_if_eq(at).is_some() {
            out.extend((next..=*at).map(merged));
            next = at + 1;
        }
    }
    out.extend((next..config.len()).map(merged));
    Value::Array(out)
}

/// Where each step comes first.
fn places(steps: &[String]) -> HashMap<&str, usize> {
    steps.iter().enumerate().rev().map(|(at, step)| (step.as_str(), at)).collect()
}

/// An empty object, for what is not there yet.
pub(crate) fn nothing() -> Value {
    Value::Object(Map::new())
}
