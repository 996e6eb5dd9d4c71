//! Equality of documents that says where they differ.

use serde_json::Value;

/// Panics with the first place where the two differ.
pub(crate) fn same(left: &Value, right: &Value, what: &str) {
    if let Some((place, left, right)) = difference(left, right, String::new()) {
        panic!("{what}: {place:?} is {} and {}", shown(left), shown(right));
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), Value::to_string)
}

type Difference<'a> = (String, Option<&'a Value>, Option<&'a Value>);

fn difference<'a>(left: &'a Value, right: &'a Value, place: String) -> Option<Difference<'a>> {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            names.into_iter().find_map(|name| either(a.get(name), b.get(name), format!("{place}/{name}")))
        }
        (Value::Array(a), Value::Array(b)) => {
            (0..a.len().max(b.len())).find_map(|at| either(a.get(at), b.get(at), format!("{place}/{at}")))
        }
        _ => (left != right).then_some((place, Some(left), Some(right))),
    }
}

fn either<'a>(left: Option<&'a Value>, right: Option<&'a Value>, place: String) -> Option<Difference<'a>> {
    match (left, right) {
        (Some(left), Some(right)) => difference(left, right, place),
        (left, right) => Some((place, left, right)),
    }
}
