//! Takes fields out of an object.

use super::set::{Below, Set};
use super::view::{Place, Shape};
use serde_json::{Map, Value};

/// The object without the members of a set. A container that loses its last entry goes too.
pub(crate) fn remove(place: &Place<'_>, value: &Value, gone: &Set) -> Value {
    without(place, value, gone.all(), Emptied::Goes).unwrap_or_else(|| Value::Object(Map::new()))
}

/// The same, but a field or entry that loses all that was in it stays, as null: nobody said that it is to go.
pub(crate) fn hollow(place: &Place<'_>, value: &Value, gone: &Set) -> Value {
    without(place, value, gone.all(), Emptied::IsNull).unwrap_or_else(|| Value::Object(Map::new()))
}

/// What becomes of a field that loses all that was in it.
#[derive(Clone, Copy)]
enum Emptied {
    Goes,
    IsNull,
}

fn without(place: &Place<'_>, value: &Value, gone: Below<'_>, emptied: Emptied) -> Option<Value> {
    if gone.is_empty() {
        return Some(value.clone());
    }
    match (place.shape(Some(value)), value) {
        (Shape::Fields(id), Value::Object(entries)) => {
            object(entries, gone, emptied, |name| place.field(id, name))
        }
        (Shape::Entries(next), Value::Object(entries)) => object(entries, gone, emptied, |_| Some(next)),
        (Shape::Values, Value::Array(items)) => {
            list(items.iter().filter(|item| !gone.has(&format!("v:{item}"))).cloned().collect(), items.len())
        }
        (Shape::Items(id, keys), Value::Array(items)) => {
            let kept = items.iter().filter_map(|item| {
                let step = place.step_of(id, keys, item);
                match gone.below(&step) {
                    _ if gone.has(&step) => None,
                    Some(below) => without(&place.item(id), item, below, emptied),
                    None => Some(item.clone()),
                }
            });
            list(kept.collect(), items.len())
        }
        _ => Some(value.clone()),
    }
}

fn object<'p>(
    entries: &Map<String, Value>,
    gone: Below<'_>,
    emptied: Emptied,
    place: impl Fn(&str) -> Option<Place<'p>>,
) -> Option<Value> {
    let mut kept = Map::new();
    for (name, value) in entries {
        let step = ["f:", name].concat();
        let value = match (gone.below(&step), place(name)) {
            _ if gone.has(&step) => None,
            (Some(below), Some(place)) => match (without(&place, value, below, emptied), emptied) {
                (None, Emptied::IsNull) => Some(Value::Null),
                (left, _) => left,
            },
            _ => Some(value.clone()),
        };
        if let Some(value) = value {
            kept.insert(name.clone(), value);
        }
    }
    (!kept.is_empty() || entries.is_empty()).then_some(Value::Object(kept))
}

fn list(kept: Vec<Value>, before: usize) -> Option<Value> {
    (!kept.is_empty() || before == 0).then_some(Value::Array(kept))
}
