//! Values while an expression runs: borrowed from the JSON they come from for as long as that will do, and read by the type their
//! schema declares. Knows no function.

use std::cmp::Ordering;
use std::ops::Deref;
use std::rc::Rc;

use base64::Engine;
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::library::Opaque;
use crate::types::{DeclKind, DeclType, ListKind, ObjectType, Type};

/// A value of an expression.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `uint`
    Uint(u64),
    /// `double`
    Double(f64),
    /// `string`
    String(Text<'a>),
    /// `bytes`
    Bytes(Rc<[u8]>),
    /// A span of time in nanoseconds.
    Duration(i64),
    /// A point in time.
    Timestamp(Timestamp),
    /// A list.
    List(List<'a>),
    /// A map or an object.
    Map(Map<'a>),
    /// A value that may be absent.
    Optional(Option<Rc<Value<'a>>>),
    /// A type.
    Type(Type),
    /// A value of a library's type.
    Opaque(Rc<Opaque>),
    /// The error that a quantifier met, which a later element may yet overrule.
    Failed(Rc<str>),
}

/// A string, borrowed or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// Borrowed from the object or the expression.
    Borrowed(&'a str),
    /// Made by the expression.
    Shared(Rc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

/// A list, borrowed or made.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// A JSON array, with what its items are declared as, and how they are told apart.
    Json(&'a [Json], Option<&'a DeclType>, &'a ListKind),
    /// Made by the expression.
    Made(Rc<Vec<Value<'a>>>),
}

/// A map, borrowed or made.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// A JSON object as a map, with what its values are declared as.
    Json(&'a serde_json::Map<String, Json>, Option<&'a DeclType>),
    /// A JSON object with declared fields.
    Object(&'a serde_json::Map<String, Json>, &'a ObjectType),
    /// Made by the expression, in order.
    Made(Rc<Vec<(Value<'a>, Value<'a>)>>),
}

static ATOMIC: ListKind = ListKind::Atomic;

impl<'a> Value<'a> {
    /// A string that the expression made.
    pub fn text(text: impl Into<Rc<str>>) -> Self {
        Value::String(Text::Shared(text.into()))
    }

    /// A list that the expression made.
    pub fn list(items: Vec<Value<'a>>) -> Self {
        Value::List(List::Made(Rc::new(items)))
    }

    /// A value of a library's type.
    pub(crate) fn opaque(opaque: Opaque) -> Self {
        Value::Opaque(Rc::new(opaque))
    }

    /// An optional value that is there.
    pub fn some(value: Value<'a>) -> Self {
        Value::Optional(Some(Rc::new(value)))
    }

    /// The JSON value as its declaration says, or as it looks where nothing is declared.
    pub fn from_json(json: &'a Json, declared: Option<&'a DeclType>) -> Self {
        let kind = declared.map(|declared| &declared.kind);
        match (json, kind) {
            (Json::Null, _) => Value::Null,
            (_, Some(DeclKind::Optional(inner))) => Value::some(Value::from_json(json, Some(inner))),
            (Json::Bool(value), _) => Value::Bool(*value),
            (Json::Number(number), kind) => {
                number_of(number, matches!(kind, Some(DeclKind::Simple(Type::Double))))
            }
            (Json::String(text), Some(DeclKind::Simple(of))) => text_of(text, of),
            (Json::String(text), _) => Value::String(Text::Borrowed(text)),
            (Json::Array(items), Some(DeclKind::List(item, kind))) => {
                Value::List(List::Json(items, Some(item), kind))
            }
            (Json::Array(items), _) => Value::List(List::Json(items, None, &ATOMIC)),
            (Json::Object(entries), Some(DeclKind::Object(object))) => {
                Value::Map(Map::Object(entries, object))
            }
            (Json::Object(entries), Some(DeclKind::Map(_, value))) => {
                Value::Map(Map::Json(entries, Some(value)))
            }
            (Json::Object(entries), _) => Value::Map(Map::Json(entries, None)),
        }
    }

    /// What `size()` gives; 1 for what has no size.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Value::String(text) => text.chars().count(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            Value::Opaque(opaque) => opaque.size(),
            _ => 1,
        };
        size as u64
    }

    /// The type, as `type()` gives it.
    pub(crate) fn type_of(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Duration(_) => Type::Duration,
            Value::Timestamp(_) => Type::Timestamp,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Type(of) => Type::Type(std::sync::Arc::new(of.clone())),
            Value::Opaque(opaque) => Type::Opaque(opaque.type_name()),
            Value::Failed(_) => Type::Error,
        }
    }

    /// Whether a function that takes this type takes the value.
    pub(crate) fn fits(&self, of: &Type) -> bool {
        match (of, self) {
            (Type::Dyn | Type::Param(_) | Type::Error, _) => true,
            (Type::Null, Value::Null)
            | (Type::Bool, Value::Bool(_))
            | (Type::Int, Value::Int(_))
            | (Type::Uint, Value::Uint(_))
            | (Type::Double, Value::Double(_))
            | (Type::String, Value::String(_))
            | (Type::Bytes, Value::Bytes(_))
            | (Type::Duration, Value::Duration(_))
            | (Type::Timestamp, Value::Timestamp(_))
            | (Type::List(_), Value::List(_))
            | (Type::Map(..) | Type::Object(_), Value::Map(_))
            | (Type::Optional(_), Value::Optional(_))
            | (Type::Type(_), Value::Type(_)) => true,
            (Type::Opaque(name), Value::Opaque(opaque)) => *name == opaque.type_name(),
            _ => false,
        }
    }

    /// `==`: numbers by value, whatever their type; else nothing equals a value of another type.
    pub(crate) fn equals(&self, other: &Value<'a>) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (
                Value::Int(_) | Value::Uint(_) | Value::Double(_),
                Value::Int(_) | Value::Uint(_) | Value::Double(_),
            ) => self.compare(other) == Some(Ordering::Equal),
            (Value::String(a), Value::String(b)) => **a == **b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::List(a), Value::List(b)) => a.equals(b),
            (Value::Map(a), Value::Map(b)) => a.equals(b),
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (a, b) => a.is_none() && b.is_none(),
            },
            (Value::Type(a), Value::Type(b)) => same_type(a, b),
            (Value::Opaque(a), Value::Opaque(b)) => a == b,
            _ => false,
        }
    }

    /// The order of two values that have one.
    pub(crate) fn compare(&self, other: &Value<'a>) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Value::Int(a), Value::Double(b)) => whole_and_double(i128::from(*a), *b),
            (Value::Uint(a), Value::Double(b)) => whole_and_double(i128::from(*a), *b),
            (Value::Double(a), Value::Int(b)) => whole_and_double(i128::from(*b), *a).map(Ordering::reverse),
            (Value::Double(a), Value::Uint(b)) => whole_and_double(i128::from(*b), *a).map(Ordering::reverse),
            (Value::String(a), Value::String(b)) => Some((**a).cmp(&**b)),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// The order of a whole number and a double, exact at any size.
fn whole_and_double(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    if double >= 1e20 {
        return Some(Ordering::Less);
    }
    if double <= -1e20 {
        return Some(Ordering::Greater);
    }
    let floor = double.floor();
    Some(whole.cmp(&(floor as i128)).then(if double > floor { Ordering::Less } else { Ordering::Equal }))
}

/// Types are the same as values if their names are: `type([1]) == list`.
fn same_type(a: &Type, b: &Type) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
        && match (a, b) {
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (Type::Object(a), Type::Object(b)) => a == b,
            _ => true,
        }
}

fn number_of<'a>(number: &serde_json::Number, double: bool) -> Value<'a> {
    match (number.as_i64(), number.as_u64()) {
        (Some(whole), _) if !double => Value::Int(whole),
        (None, Some(whole)) if !double => Value::Uint(whole),
        _ => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
    }
}

/// A string as a schema's format declares it; one that does not parse stays text, since the format was checked elsewhere.
fn text_of<'a>(text: &'a str, of: &Type) -> Value<'a> {
    match of {
        Type::Timestamp => {
            crate::time::parse_timestamp(text).or_else(|| crate::time::parse_date(text)).map(Value::Timestamp)
        }
        Type::Duration => crate::time::parse_duration(text).map(Value::Duration),
        Type::Bytes => base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()
            .map(|bytes| Value::Bytes(bytes.into())),
        _ => None,
    }
    .unwrap_or(Value::String(Text::Borrowed(text)))
}

impl<'a> List<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            List::Json(items, ..) => items.len(),
            List::Made(items) => items.len(),
        }
    }

    pub(crate) fn get(&self, at: usize) -> Option<Value<'a>> {
        match self {
            List::Json(items, item, _) => items.get(at).map(|json| Value::from_json(json, *item)),
            List::Made(items) => items.get(at).cloned(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    pub(crate) fn kind(&self) -> &'a ListKind {
        match self {
            List::Json(_, _, kind) => kind,
            List::Made(_) => &ATOMIC,
        }
    }

    pub(crate) fn contains(&self, value: &Value<'a>) -> bool {
        self.iter().any(|item| item.equals(value))
    }

    fn equals(&self, other: &List<'a>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        match self.kind() {
            ListKind::Atomic => self.iter().zip(other.iter()).all(|(a, b)| a.equals(&b)),
            ListKind::Set => self.iter().all(|item| other.contains(&item)),
            ListKind::Map(keys) => {
                let key = |item: &Value<'a>| keys.iter().map(|key| json_field(item, key)).collect::<Vec<_>>();
                self.iter().all(|item| {
                    let wanted = key(&item);
                    other.iter().find(|other| key(other) == wanted).is_some_and(|other| other.equals(&item))
                })
            }
        }
    }

    /// `+`: one after the other, or by what tells their items apart.
    pub(crate) fn join(&self, other: &List<'a>) -> Vec<Value<'a>> {
        match self.kind() {
            ListKind::Atomic => self.iter().chain(other.iter()).collect(),
            ListKind::Set => {
                let mut joined: Vec<Value<'a>> = self.iter().collect();
                joined.extend(other.iter().filter(|item| !self.contains(item)));
                joined
            }
            ListKind::Map(keys) => {
                let key = |item: &Value<'a>| keys.iter().map(|key| json_field(item, key)).collect::<Vec<_>>();
                let mut joined: Vec<Value<'a>> = self.iter().collect();
                for item in other.iter() {
                    let wanted = key(&item);
                    match joined.iter().position(|other| key(other) == wanted) {
                        Some(at) => joined[at] = item,
                        None => joined.push(item),
                    }
                }
                joined
            }
        }
    }
}

/// The field of an item by its name in JSON.
fn json_field<'a>(item: &Value<'a>, key: &str) -> Option<&'a Json> {
    match item {
        Value::Map(Map::Json(entries, _) | Map::Object(entries, _)) => entries.get(key),
        _ => None,
    }
}

impl<'a> Map<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Map::Json(entries, _) => entries.len(),
            Map::Object(entries, object) => {
                object.fields.values().filter(|field| entries.contains_key(&field.json)).count()
            }
            Map::Made(entries) => entries.len(),
        }
    }

    /// The value at a key; of an object, the field an expression calls so.
    pub(crate) fn get(&self, key: &Value<'a>) -> Option<Value<'a>> {
        match (self, key) {
            (Map::Made(entries), key) => {
                entries.iter().find(|(other, _)| other.equals(key)).map(|(_, value)| value.clone())
            }
            (_, Value::String(name)) => self.field(name),
            _ => None,
        }
    }

    pub(crate) fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Map::Json(entries, value) => entries.get(name).map(|json| Value::from_json(json, *value)),
            Map::Object(entries, object) => {
                let field = object.fields.get(name)?;
                entries.get(&field.json).map(|json| Value::from_json(json, Some(&field.declared)))
            }
            Map::Made(entries) => entries
                .iter()
                .find(|(key, _)| matches!(key, Value::String(key) if **key == *name))
                .map(|(_, value)| value.clone()),
        }
    }

    pub(crate) fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Map::Json(entries, _) => entries.keys().map(|key| Value::String(Text::Borrowed(key))).collect(),
            Map::Object(entries, object) => {
                let there = object.fields.iter().filter(|(_, field)| entries.contains_key(&field.json));
                there.map(|(name, _)| Value::String(Text::Borrowed(name))).collect()
            }
            Map::Made(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
        }
    }

    fn equals(&self, other: &Map<'a>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        self.keys().iter().all(|key| match (self.get(key), other.get(key)) {
            (Some(a), Some(b)) => a.equals(&b),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_read_as_declared() {
        for (json, declared, wanted) in [
            (json!(1), Type::Double, "Double(1.0)"),
            (json!(1), Type::Int, "Int(1)"),
            (json!(1.5), Type::Dyn, "Double(1.5)"),
            (json!("1m"), Type::Duration, "Duration(60000000000)"),
            (json!("2020-01-02"), Type::Timestamp, "Timestamp(2020-01-02T00:00:00Z)"),
            (json!("YQ=="), Type::Bytes, "Bytes([97])"),
            (json!("x"), Type::String, "String(Borrowed(\"x\"))"),
        ] {
            let declared = DeclType::simple(declared);
            assert_eq!(format!("{:?}", Value::from_json(&json, Some(&declared))), wanted);
        }
    }

    #[test]
    fn numbers_compare_across_types() {
        for (a, b, wanted) in [
            (Value::Int(1), Value::Double(1.0), true),
            (Value::Int(i64::MAX), Value::Double(9_223_372_036_854_775_808.0), false),
            (Value::Uint(3), Value::Int(3), true),
            (Value::Int(-1), Value::Uint(u64::MAX), false),
            (Value::Double(f64::NAN), Value::Double(f64::NAN), false),
        ] {
            assert_eq!(a.equals(&b), wanted, "{a:?} {b:?}");
        }
    }

    #[test]
    fn sets_and_maps_by_key_do_not_mind_order() {
        let (a, b) = (json!([1, 2, 3]), json!([3, 2, 1]));
        let list = |kind| DeclType { kind: DeclKind::List(DeclType::dynamic(), kind), max_elements: 10 };
        for (kind, same) in [(ListKind::Atomic, false), (ListKind::Set, true)] {
            let declared = list(kind);
            assert_eq!(
                Value::from_json(&a, Some(&declared)).equals(&Value::from_json(&b, Some(&declared))),
                same
            );
        }
        let (a, b) =
            (json!([{"k": 1, "v": 1}, {"k": 2, "v": 2}]), json!([{"k": 2, "v": 2}, {"k": 1, "v": 1}]));
        let declared = list(ListKind::Map(vec!["k".to_owned()]));
        assert!(Value::from_json(&a, Some(&declared)).equals(&Value::from_json(&b, Some(&declared))));
    }
}
