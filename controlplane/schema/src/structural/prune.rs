//! Which fields of an object are kept. It must not look at values.

use serde_json::{Map, Value};

use super::{META_FIELDS, Schema};

/// Removes the fields that the schema does not name, and returns their paths (`spec.a[0].b`) in document order. The root and embedded
/// objects keep `apiVersion`, `kind` and `metadata`.
pub fn prune(object: &mut Value, schema: &Schema, root: bool) -> Vec<String> {
    let mut pruned = Pruned { path: String::new(), gone: Vec::new() };
    pruned.value(object, Some(schema), root);
    pruned.gone
}

struct Pruned {
    path: String,
    gone: Vec<String>,
}

impl Pruned {
    fn value(&mut self, value: &mut Value, schema: Option<&Schema>, root: bool) {
        match value {
            Value::Object(fields) => self.fields(fields, schema, root),
            Value::Array(items) => {
                let of_items = schema.and_then(|schema| schema.items.as_deref());
                let kept = schema.is_some_and(|schema| schema.preserve);
                for (at, item) in items.iter_mut().enumerate() {
                    if kept && of_items.is_none() {
                        // Nothing is said of the items of a list that is kept as it is.
                        continue;
                    }
                    self.below(&format!("[{at}]"), |pruned| pruned.value(item, of_items, false));
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, fields: &mut Map<String, Value>, schema: Option<&Schema>, root: bool) {
        let meta = root || schema.is_some_and(|schema| schema.embedded);
        let preserve = schema.is_some_and(|schema| schema.preserve);
        fields.retain(|name, value| {
            if meta && META_FIELDS.contains(&name.as_str()) {
                return true;
            }
            let step = if self.path.is_empty() { name.clone() } else { format!(".{name}") };
            let named = schema.and_then(|schema| schema.property(name));
            if let Some(of_field) = named {
                self.below(&step, |pruned| pruned.value(value, Some(of_field), false));
                return true;
            }
            if schema.is_some_and(|schema| schema.additional.is_some()) {
                // `additionalProperties: true` says that there may be fields, not what is in them.
                let of_others = schema.and_then(Schema::additional_schema);
                if !(preserve && of_others.is_none()) {
                    self.below(&step, |pruned| pruned.value(value, of_others, false));
                }
                return true;
            }
            if !preserve {
                self.gone.push(format!("{}{step}", self.path));
            }
            preserve
        });
    }

    fn below(&mut self, step: &str, prune: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(step);
        prune(self);
        self.path.truncate(length);
    }
}
