//! Reading and defaulting fields of dynamic objects: absent, `null` and the zero value read alike. Must not know any kind.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// Read access to a JSON object's fields by name; a dotted name goes into nested objects.
pub(crate) trait Fields {
    /// The value, or null.
    fn at(&self, name: &str) -> &Value;

    /// Whether there is a value (null counts as none).
    fn has(&self, name: &str) -> bool {
        !self.at(name).is_null()
    }

    /// The text, or an empty one.
    fn text(&self, name: &str) -> &str {
        self.at(name).as_str().unwrap_or_default()
    }

    /// The text, if it is there.
    fn some_text(&self, name: &str) -> Option<&str> {
        self.at(name).as_str()
    }

    /// The integer, or 0.
    fn int(&self, name: &str) -> i64 {
        self.some_int(name).unwrap_or_default()
    }

    /// The integer, if it is there.
    fn some_int(&self, name: &str) -> Option<i64> {
        self.at(name).as_i64()
    }

    /// The boolean, or false.
    fn flag(&self, name: &str) -> bool {
        self.some_flag(name).unwrap_or_default()
    }

    /// The boolean, if it is there.
    fn some_flag(&self, name: &str) -> Option<bool> {
        self.at(name).as_bool()
    }

    /// The items, or none.
    fn items(&self, name: &str) -> &[Value] {
        self.at(name).as_array().map_or(&[], Vec::as_slice)
    }

    /// The texts among the items.
    fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.items(name).iter().filter_map(Value::as_str)
    }

    /// The map's entries, sorted by key.
    fn entries(&self, name: &str) -> impl Iterator<Item = (&str, &Value)> {
        self.at(name).as_object().into_iter().flatten().map(|(k, v)| (k.as_str(), v))
    }
}

impl Fields for Value {
    fn at(&self, name: &str) -> &Value {
        let mut here = self;
        for part in name.split('.') {
            match here.get(part) {
                Some(next) => here = next,
                None => return &NULL,
            }
        }
        here
    }
}

/// Whether a value is the zero value of its kind.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Whether two values mean the same: absent fields equal null and empty ones.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&NULL)))
                && y.iter().all(|(k, v)| x.contains_key(k) || is_absent(v))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        (Value::Null, v) | (v, Value::Null) => is_absent(v),
        _ => a == b,
    }
}

fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_absent),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// The object at a field, made if it is not there.
pub(crate) fn object_at<'a>(object: &'a mut Value, name: &str) -> &'a mut Value {
    let mut here = object;
    for part in name.split('.') {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        here = &mut here[part];
    }
    if here.is_null() {
        *here = Value::Object(Map::new());
    }
    here
}

/// The object at a field, if it is there.
pub(crate) fn existing<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let mut here = object;
    for part in name.split('.') {
        here = here.get_mut(part)?;
    }
    here.is_object().then_some(here)
}

/// The items at a field, to be changed.
pub(crate) fn items_mut<'a>(object: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    let mut here = Some(object);
    for part in name.split('.') {
        here = here.and_then(|value| value.get_mut(part));
    }
    here.and_then(Value::as_array_mut).into_iter().flatten().filter(|item| item.is_object())
}

/// Sets a field that is not there.
pub(crate) fn default(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut()
        && fields.get(name).is_none_or(Value::is_null)
    {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Sets a text that is not there or empty.
pub(crate) fn default_text(object: &mut Value, name: &str, value: &str) {
    if object.text(name).is_empty() {
        default_zero(object, name, value);
    }
}

/// Sets a field that is not there or zero.
pub(crate) fn default_zero(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut()
        && fields.get(name).is_none_or(is_zero)
    {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Sets or removes a field.
pub(crate) fn set(object: &mut Value, name: &str, value: Option<Value>) {
    if let Some(fields) = object.as_object_mut() {
        match value {
            Some(value) => fields.insert(name.to_owned(), value),
            None => fields.remove(name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sameness() {
        for (a, b, expected) in [
            (json!({"a": 1}), json!({"a": 1, "b": null}), true),
            (json!({"a": 1}), json!({"a": 1, "b": {}}), true),
            (json!({"a": 1}), json!({"a": 1, "b": []}), true),
            (json!({"a": [1]}), json!({"a": [2]}), false),
            (json!({"a": {"b": null}}), json!({}), true),
            (json!({"a": false}), json!({}), false),
        ] {
            assert_eq!(same(&a, &b), expected, "{a} {b}");
            assert_eq!(same(&b, &a), expected, "{b} {a}");
        }
    }

    #[test]
    fn defaults_fill_gaps_only() {
        let mut object = json!({"a": 0, "b": "", "c": null});
        default(&mut object, "a", 1);
        default(&mut object, "c", 3);
        default_text(&mut object, "b", "x");
        default_zero(&mut object, "d", true);
        object_at(&mut object, "e.f")["g"] = json!(1);
        assert_eq!(object, json!({"a": 0, "b": "x", "c": 3, "d": true, "e": {"f": {"g": 1}}}));
    }
}
