//! Lists that are sets, or maps by the keys of their items: nothing may be in them twice. It must not look at anything else.

use std::collections::HashMap;

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::{Map, Value};

use super::Schema;
use crate::table::ListType;

/// The items that are in a set, or under their keys in a map, already.
pub fn duplicates(path: &Path, value: &Value, schema: &Schema) -> Vec<FieldError> {
    let mut errors = Vec::new();
    visit(&mut errors, path, value, schema);
    errors
}

fn visit(errors: &mut Vec<FieldError>, path: &Path, value: &Value, schema: &Schema) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(of_others) = schema.additional_schema() {
                    visit(errors, &path.key(name), value, of_others);
                }
                if let Some(of_field) = schema.property(name) {
                    visit(errors, &path.child(name), value, of_field);
                }
            }
        }
        Value::Array(items) => {
            match schema.list_type {
                ListType::Set => set(errors, path, items),
                ListType::Map => map(errors, path, items, &schema.map_keys),
                ListType::Unset | ListType::Atomic => {}
            }
            if let Some(of_items) = &schema.items {
                for (at, item) in items.iter().enumerate() {
                    visit(errors, &path.index(at), item, of_items);
                }
            }
        }
        _ => {}
    }
}

fn set(errors: &mut Vec<FieldError>, path: &Path, items: &[Value]) {
    let second = seconds(items.iter().map(Value::to_string));
    errors.extend(second.into_iter().map(|at| FieldError::duplicate(path.index(at), items[at].clone())));
}

fn map(errors: &mut Vec<FieldError>, path: &Path, items: &[Value], keys: &[Box<str>]) {
    if let Some(at) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
        let detail = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(path.index(at), items[at].clone(), detail));
        return;
    }
    let key = |item: &Value| -> Value {
        let given = keys.iter().filter_map(|key| Some((key.to_string(), item.get(&**key)?.clone())));
        Value::Object(given.collect::<Map<_, _>>())
    };
    let keyed: Vec<Value> = items.iter().map(key).collect();
    for at in seconds(keyed.iter().map(Value::to_string)) {
        errors.push(FieldError::duplicate(path.index(at), keyed[at].clone()));
    }
}

/// Where something is for the second time. A third time is not told.
fn seconds(items: impl Iterator<Item = String>) -> Vec<usize> {
    let mut times: HashMap<String, u32> = HashMap::new();
    let mut found = Vec::new();
    for (at, item) in items.enumerate() {
        let times = times.entry(item).or_default();
        *times += 1;
        if *times == 2 {
            found.push(at);
        }
    }
    found
}
