//! The round trip through a typed object, as it shows in JSON: empty values that the typed form drops are dropped, and
//! those it always writes are written. It must not know defaults that mean something (`crate::defaults`).

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::table::{Field, FieldKind, Presence, Table, TypeId};

/// Normalises a well-typed value in place, as it comes back from storage. Doing it twice changes nothing.
pub fn normalize(table: &Table, id: TypeId, value: &mut Value) {
    Walk { table, stored: true, emptied: Vec::new() }.begin(id, value);
}

/// The same for a value that has not been stored: empty lists and maps that are always written stay what they are. Those that storage
/// drops or forgets are returned: errors tell a list that was given empty from one that was not given.
pub fn decoded(table: &Table, id: TypeId, value: &mut Value) -> Vec<Emptied> {
    let mut walk = Walk { table, stored: false, emptied: Vec::new() };
    walk.begin(id, value);
    walk.emptied
}

/// A list or map that was given empty, which the stored form does not have.
#[derive(Debug, Clone, PartialEq)]
pub struct Emptied {
    /// Where it was, as a JSON pointer (RFC 6901).
    pointer: String,
    value: Value,
}

impl Emptied {
    /// Puts it where it was, if there is nothing and what it was in is still there.
    pub fn put_back(&self, object: &mut Value) {
        let Some((parent, name)) = self.pointer.rsplit_once('/') else { return };
        if let Some(Value::Object(fields)) = object.pointer_mut(parent) {
            let place = fields.entry(name.replace("~1", "/").replace("~0", "~")).or_insert(Value::Null);
            if place.is_null() {
                *place = self.value.clone();
            }
        }
    }
}

/// The way to a value, from it to the root.
struct Trail<'a> {
    before: Option<&'a Trail<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl Trail<'_> {
    fn pointer(&self) -> String {
        let mut text = self.before.map(Trail::pointer).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Key(key) => {
                text.push('/');
                text.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Step::Index(index) => text.push_str(&format!("/{index}")),
        }
        text
    }
}

struct Walk<'t> {
    table: &'t Table,
    stored: bool,
    emptied: Vec<Emptied>,
}

impl Walk<'_> {
    fn begin(&mut self, id: TypeId, value: &mut Value) {
        if let Value::Object(object) = value {
            self.object(&Trail { before: None, step: Step::Root }, id, object);
        }
    }

    fn object(&mut self, trail: &Trail<'_>, id: TypeId, object: &mut Map<String, Value>) {
        let table = self.table;
        let (mut gone, mut new): (Vec<&str>, Vec<(&Field, Value)>) = Default::default();
        // Fields and entries are both in the order of their names.
        for (field, value) in side_by_side(&table.type_(id).fields, object) {
            let name = &*field.json_name;
            match value {
                _ if field.presence == Presence::AsGiven => {}
                None => new.extend(absent(table, field).map(|value| (field, value))),
                Some(value) if value.is_null() => match absent(table, field) {
                    Some(zero) => *value = zero,
                    None => gone.push(name),
                },
                Some(value) => {
                    let trail = Trail { before: Some(trail), step: Step::Key(name) };
                    self.inside(&trail, &field.kind, value);
                    if self.stored && field.presence == Presence::Always && is_forgotten(field, value) {
                        *value = Value::Null;
                    }
                    let keep = keeps(field, value);
                    let is_many = matches!(field.kind, FieldKind::List(_) | FieldKind::Map(_));
                    if !self.stored && (is_many && !keep || is_forgotten(field, value)) {
                        self.emptied.push(Emptied { pointer: trail.pointer(), value: value.clone() });
                    }
                    if !keep {
                        gone.push(name);
                    }
                }
            }
        }
        gone.into_iter().for_each(|name| drop(object.remove(name)));
        object.extend(new.into_iter().map(|(field, value)| (field.json_name.to_string(), value)));
    }

    /// Normalises what is below a value.
    fn inside(&mut self, trail: &Trail<'_>, kind: &FieldKind, value: &mut Value) {
        match (kind, value) {
            (FieldKind::Object(id) | FieldKind::Either(id), Value::Object(inner)) => {
                self.object(trail, *id, inner)
            }
            (FieldKind::Either(_), Value::Array(items)) => self.items(trail, kind, items),
            (FieldKind::List(item), Value::Array(items)) if item.object().is_some() => {
                self.items(trail, item, items);
            }
            (FieldKind::Map(item), Value::Object(entries)) if item.object().is_some() => {
                for (key, value) in entries {
                    self.inside(&Trail { before: Some(trail), step: Step::Key(key) }, item, value);
                }
            }
            _ => {}
        }
    }

    fn items(&mut self, trail: &Trail<'_>, kind: &FieldKind, items: &mut [Value]) {
        for (index, item) in items.iter_mut().enumerate() {
            self.inside(&Trail { before: Some(trail), step: Step::Index(index) }, kind, item);
        }
    }
}

/// Each field of a type with its entry in an object, if it is there. Entries that no field has are passed over.
pub(crate) fn side_by_side<'f, 'o>(
    fields: &'f [Field],
    object: &'o mut Map<String, Value>,
) -> impl Iterator<Item = (&'f Field, Option<&'o mut Value>)> {
    let mut entries = object.iter_mut().peekable();
    fields.iter().map(move |field| {
        loop {
            match entries.peek().map(|(entry, _)| entry.as_str().cmp(&field.json_name)) {
                Some(Ordering::Less) => drop(entries.next()),
                Some(Ordering::Equal) => return (field, entries.next().map(|(_, value)| value)),
                Some(Ordering::Greater) | None => return (field, None),
            }
        }
    })
}

/// Storage does not tell an empty list or map from none. The items of a list of objects are never stored.
fn is_forgotten(field: &Field, value: &Value) -> bool {
    match (&field.kind, value) {
        _ if &*field.json_name == "items" => false,
        (FieldKind::List(_), Value::Array(items)) => items.is_empty(),
        (FieldKind::Map(_), Value::Object(entries)) => entries.is_empty(),
        _ => false,
    }
}

/// Whether a value that is there stays.
fn keeps(field: &Field, value: &Value) -> bool {
    match field.presence {
        Presence::Pointer | Presence::Always | Presence::Nullable | Presence::AsGiven => true,
        Presence::OmitEmpty => match value {
            Value::Null => false,
            Value::Bool(b) => *b,
            Value::Number(n) => n.as_f64() != Some(0.0),
            Value::String(s) => !s.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(entries) => !entries.is_empty(),
        },
    }
}

/// What stands for a field that is not there.
fn absent(table: &Table, field: &Field) -> Option<Value> {
    match field.presence {
        Presence::Pointer | Presence::OmitEmpty | Presence::AsGiven => None,
        Presence::Nullable => Some(Value::Null),
        Presence::Always => Some(zero(table, &field.kind)),
    }
}

/// The zero value of a kind, as it is written.
fn zero(table: &Table, kind: &FieldKind) -> Value {
    match kind {
        FieldKind::String => Value::String(String::new()),
        FieldKind::Int32 | FieldKind::Int64 | FieldKind::Double | FieldKind::IntOrString => Value::from(0),
        FieldKind::Bool => Value::Bool(false),
        FieldKind::Quantity => Value::String("0".to_owned()),
        FieldKind::Duration => Value::String("0s".to_owned()),
        FieldKind::Object(id) => {
            let mut empty = Map::new();
            let mut walk = Walk { table, stored: true, emptied: Vec::new() };
            walk.object(&Trail { before: None, step: Step::Root }, *id, &mut empty);
            Value::Object(empty)
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests;
