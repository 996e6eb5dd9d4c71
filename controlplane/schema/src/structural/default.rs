//! What is filled in where an object says nothing, and which `null`s mean nothing. It must not look at values.

use serde_json::Value;

use super::Schema;

/// Fills in defaults. A `null` that may not be one gives way to the default.
pub fn apply(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(fields) => {
            for (name, of_field) in &schema.properties {
                let Some(default) = &of_field.default else { continue };
                match fields.get_mut(&**name) {
                    None => drop(fields.insert(name.to_string(), (**default).clone())),
                    Some(value) if value.is_null() && !of_field.nullable => *value = (**default).clone(),
                    Some(_) => {}
                }
            }
            for (name, value) in fields {
                if let Some(of_field) = schema.property(name) {
                    apply(value, of_field);
                } else if let Some(of_others) = schema.additional_schema() {
                    fill(value, of_others);
                }
            }
        }
        Value::Array(items) => {
            if let Some(of_items) = &schema.items {
                items.iter_mut().for_each(|item| fill(item, of_items));
            }
        }
        _ => {}
    }
}

fn fill(value: &mut Value, schema: &Schema) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = (**default).clone();
    }
    apply(value, schema);
}

/// Drops fields that are `null`, may not be, and have no default to take its place: clients mean nothing by them.
pub fn drop_nulls(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| match schema.property(name) {
                Some(of_field) => {
                    let meaningless = value.is_null() && !of_field.nullable && of_field.default.is_none();
                    if !meaningless {
                        drop_nulls(value, of_field);
                    }
                    !meaningless
                }
                None => {
                    if let Some(of_others) = schema.additional_schema() {
                        if value.is_null() && !of_others.nullable && of_others.default.is_none() {
                            return false;
                        }
                        drop_nulls(value, of_others);
                    }
                    true
                }
            });
        }
        Value::Array(items) => {
            if let Some(of_items) = &schema.items {
                items.iter_mut().for_each(|item| drop_nulls(item, of_items));
            }
        }
        _ => {}
    }
}
