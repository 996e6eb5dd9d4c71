//! Lays an applied configuration over the live object: what it names is replaced, what it does not name stays.

use super::compare::items;
use super::view::{Place, Shape};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The live object with the configuration laid over it.
pub(crate) fn merge(place: &Place<'_>, live: Value, config: &Value) -> Value {
    match place.shape(Some(config)) {
        Shape::Whole => config.clone(),
        Shape::Fields(id) => entries(live, config, |name| place.field(id, name)),
        Shape::Entries(next) => entries(live, config, |_| Some(next)),
        Shape::Values => list(live, items(Some(config)), |item| format!("v:{item}"), |_, new| new.clone()),
        Shape::Items(id, keys) => {
            let item = place.item(id);
            let each = |old: Value, new: &Value| merge(&item, old, new);
            list(live, items(Some(config)), |value| place.step_of(id, keys, value), each)
        }
    }
}

fn entries<'p>(live: Value, config: &Value, place: impl Fn(&str) -> Option<Place<'p>>) -> Value {
    let Value::Object(config) = config else { return config.clone() };
    let mut merged = match live {
        Value::Object(live) => live,
        _ => Map::new(),
    };
    for (name, new) in config {
        match (merged.get_mut(name), place(name)) {
            (Some(old), Some(place)) => *old = merge(&place, old.take(), new),
            // Nothing is there to merge with, but items still meet each other by their keys.
            (None, Some(place)) => drop(merged.insert(name.clone(), merge(&place, Value::Null, new))),
            (_, None) => drop(merged.insert(name.clone(), new.clone())),
        }
    }
    Value::Object(merged)
}

/// Merges two lists whose items have names. The configuration's order holds for what it names; what only the live list has comes
/// where it is met on the way through the live list, which is before what only the configuration has.
fn list(
    live: Value,
    config: &[Value],
    step: impl Fn(&Value) -> String,
    each: impl Fn(Value, &Value) -> Value,
) -> Value {
    let mut live = match live {
        Value::Array(live) => live,
        _ => Vec::new(),
    };
    let steps = |items: &[Value]| items.iter().map(&step).collect::<Vec<_>>();
    let (live_steps, config_steps) = (steps(&live), steps(config));
    let (in_live, in_config) = (places(&live_steps), places(&config_steps));
    let both = |at: usize| in_live.contains_key(config_steps[at].as_str());
    let mut shared = (0..config.len()).filter(|at| both(*at)).peekable();
    // What comes where: items of the live list alone, or of the configuration by their place in it.
    let mut order: Vec<Result<usize, usize>> = Vec::with_capacity(live.len() + config.len());
    let mut next = 0;
    for (at, step) in live_steps.iter().enumerate() {
        let Some(wanted) = in_config.get(step.as_str()) else {
            order.push(Err(at));
            continue;
        };
        // Items that both have, but in another order, come where the configuration has them.
        if shared.next_if_eq(wanted).is_some() {
            order.extend((next..=*wanted).map(Ok));
            next = wanted + 1;
        }
    }
    order.extend((next..config.len()).map(Ok));
    let merged = order.into_iter().map(|place| match place {
        Err(at) => live[at].take(),
        Ok(at) => {
            let old = in_live.get(config_steps[at].as_str()).map_or(Value::Null, |at| live[*at].take());
            each(old, &config[at])
        }
    });
    Value::Array(merged.collect())
}

/// Where each step comes first.
fn places(steps: &[String]) -> HashMap<&str, usize> {
    steps.iter().enumerate().rev().map(|(at, step)| (step.as_str(), at)).collect()
}

/// An empty object, for what is not there yet.
pub(crate) fn nothing() -> Value {
    Value::Object(Map::new())
}
