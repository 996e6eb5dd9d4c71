//! One pass over a document of any self-describing format, led by the type. It must not know the format.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::scalar::{self, Refusal, Scalar};
use super::{MOST_DEPTH, Path, goname};
use crate::table::{Field, FieldKind, Table, Type};

/// Something that strict decoding objects to and lax decoding lets pass.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Strict {
    Unknown(String),
    Duplicate(String),
}

impl Strict {
    pub(super) fn into_unknown(self) -> Option<String> {
        if let Strict::Unknown(path) = self { Some(path) } else { None }
    }
}

impl fmt::Display for Strict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strict::Unknown(path) => write!(f, "unknown field \"{path}\""),
            Strict::Duplicate(path) => write!(f, "duplicate field \"{path}\""),
        }
    }
}

/// Strict objections beyond this many are not told.
const MOST_STRICT: usize = 100;

/// What is found on the way.
pub(crate) struct Walk<'t> {
    table: &'t Table,
    path: Path<'t>,
    /// The typed fields above, with the names of embedding structs: what decoding errors call the path.
    go_path: Vec<&'t str>,
    strict: Vec<Strict>,
    seen: HashSet<Strict>,
    noted: Option<String>,
    fatal: Option<String>,
    /// Report duplicate keys of untyped objects too.
    untyped_duplicates: bool,
    /// How many values the one that is being taken lies in.
    depth: usize,
}

impl<'t> Walk<'t> {
    pub(crate) fn new(table: &'t Table) -> Self {
        Walk {
            table,
            path: Path::default(),
            go_path: Vec::new(),
            strict: Vec::new(),
            seen: HashSet::new(),
            noted: None,
            fatal: None,
            untyped_duplicates: false,
            depth: 0,
        }
    }

    pub(crate) fn with_untyped_duplicates(mut self) -> Self {
        self.untyped_duplicates = true;
        self
    }

    /// The strict objections in document order, and the decoding error if there is one.
    pub(crate) fn finish(self) -> (Vec<Strict>, Option<String>) {
        (self.strict, self.fatal.or(self.noted))
    }

    fn object_to(&mut self, strict: Strict) {
        if self.strict.len() < MOST_STRICT && self.seen.insert(strict.clone()) {
            self.strict.push(strict);
        }
    }

    fn refuse(&mut self, refusal: Refusal, kind: &FieldKind, holder: Option<(&Type, &Field)>) {
        match refusal {
            Refusal::Fatal(message) => _ = self.fatal.get_or_insert(message),
            Refusal::Wrong(what, wanted) if self.fatal.is_none() => {
                self.fatal = Some(self.mistyped(&what, wanted, holder));
            }
            Refusal::Noted(message) => _ = self.noted.get_or_insert(message),
            Refusal::Mistyped(what) if self.noted.is_none() => {
                let wanted = goname::of(self.table, kind, holder.map(|(_, field)| field));
                self.noted = Some(self.mistyped(&what, &wanted, holder));
            }
            _ => {}
        }
    }

    fn mistyped(&self, what: &str, expected: &str, holder: Option<(&Type, &Field)>) -> String {
        match holder {
            Some((type_, _)) => {
                let path = self.go_path.join(".");
                format!(
                    "json: cannot unmarshal {what} into Go struct field {}.{path} of type {expected}",
                    type_.short_name()
                )
            }
            None => format!("json: cannot unmarshal {what} into Go value of type {expected}"),
        }
    }
}

/// Takes one value of `kind`. The answer is `None` where the value is `null` or was refused.
pub(crate) struct Seed<'w, 't, 'k> {
    pub(crate) walk: &'w mut Walk<'t>,
    pub(crate) kind: &'k FieldKind,
    pub(crate) holder: Option<(&'t Type, &'t Field)>,
}

impl Seed<'_, '_, '_> {
    fn scalar(self, scalar: Scalar) -> Option<Value> {
        match scalar::convert(self.kind, scalar) {
            Ok(value) => Some(value),
            Err(refusal) => {
                self.walk.refuse(refusal, self.kind, self.holder);
                None
            }
        }
    }

    fn refuse_composite(&mut self, what: &str) {
        let refusal = scalar::composite(self.kind, what);
        self.walk.refuse(refusal, self.kind, self.holder);
    }

    /// What `null` becomes inside a list or a map: the zero value, or nothing.
    fn zero(kind: &FieldKind) -> Option<Value> {
        Some(match kind {
            FieldKind::String | FieldKind::Duration | FieldKind::Bytes => Value::String(String::new()),
            FieldKind::Quantity => Value::String("0".to_owned()),
            FieldKind::Int32 | FieldKind::Int64 | FieldKind::Double | FieldKind::IntOrString => {
                Value::from(0)
            }
            FieldKind::Bool => Value::Bool(false),
            FieldKind::Object(_) => Value::Object(Map::new()),
            FieldKind::Json
            | FieldKind::Either(_)
            | FieldKind::Raw
            | FieldKind::Time
            | FieldKind::MicroTime => Value::Null,
            FieldKind::List(_) | FieldKind::Map(_) => Value::Null,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_, '_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        let Seed { walk, kind, holder } = self;
        if walk.depth > MOST_DEPTH {
            return Err(D::Error::custom("exceeded max depth"));
        }
        walk.depth += 1;
        let taken = input.deserialize_any(Seed { walk: &mut *walk, kind, holder });
        walk.depth -= 1;
        taken
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_, '_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(matches!(self.kind, FieldKind::Json | FieldKind::Either(_)).then_some(Value::Null))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        self.visit_unit()
    }

    fn visit_bool<E>(self, b: bool) -> Result<Self::Value, E> {
        Ok(self.scalar(Scalar::Bool(b)))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Self::Value, E> {
        Ok(self.scalar(Scalar::Number(n.into())))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
        Ok(self.scalar(Scalar::Number(n.into())))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Self::Value, E> {
        Ok(match Number::from_f64(n) {
            Some(number) => self.scalar(Scalar::Number(number)),
            None => None,
        })
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.scalar(Scalar::Text(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(self.scalar(Scalar::Text(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Self::Value, A::Error> {
        let item = match self.kind {
            FieldKind::List(item) => &**item,
            FieldKind::Json | FieldKind::Either(_) | FieldKind::Raw => self.kind,
            _ => {
                self.refuse_composite("array");
                while items.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(None);
            }
        };
        let mut out = Vec::with_capacity(items.size_hint().unwrap_or(0).min(1024));
        loop {
            self.walk.path.push_index(out.len());
            let seed = Seed { walk: self.walk, kind: item, holder: self.holder };
            let next = items.next_element_seed(seed)?;
            self.walk.path.pop();
            match next {
                Some(value) => out.push(value.or_else(|| Seed::zero(item)).unwrap_or(Value::Null)),
                None => return Ok(Some(Value::Array(out))),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, entries: A) -> Result<Self::Value, A::Error> {
        match self.kind {
            FieldKind::Object(id) | FieldKind::Either(id) => {
                let table = self.walk.table;
                let type_ = table.type_(*id);
                object(self.walk, type_, entries).map(Some)
            }
            FieldKind::Map(value) => keyed(self.walk, value, self.holder, true, entries).map(Some),
            FieldKind::Json | FieldKind::Raw => {
                let duplicates = self.walk.untyped_duplicates;
                keyed(self.walk, &FieldKind::Json, None, duplicates, entries).map(Some)
            }
            _ => {
                self.refuse_composite("object");
                let mut entries = entries;
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(None)
            }
        }
    }
}

/// An object of a type: known fields by their kinds, others pruned and told.
fn object<'de, 't, A: MapAccess<'de>>(
    walk: &mut Walk<'t>,
    type_: &'t Type,
    mut entries: A,
) -> Result<Value, A::Error> {
    let mut out = Map::new();
    let mut given = Given::default();
    while let Some(key) = entries.next_key_seed(KeySeed(type_))? {
        let (at, field) = match key {
            Key::Known(at) => (at, &type_.fields[at]),
            Key::Unknown(name) => {
                let path = walk.path.child(&name);
                walk.object_to(Strict::Unknown(path));
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
        };
        if !given.insert(at) {
            let path = walk.path.child(&field.json_name);
            walk.object_to(Strict::Duplicate(path));
        }
        let depth = walk.go_path.len();
        walk.path.push_field(&field.json_name);
        walk.go_path.extend(field.embedded.iter().map(|name| &**name));
        walk.go_path.push(&field.json_name);
        let seed = Seed { walk: &mut *walk, kind: &field.kind, holder: Some((type_, field)) };
        let value = entries.next_value_seed(seed)?;
        walk.go_path.truncate(depth);
        walk.path.pop();
        if let Some(value) = value {
            out.insert(field.json_name.to_string(), value);
        }
    }
    Ok(Value::Object(out))
}

/// An object with free keys.
fn keyed<'de, 't, A: MapAccess<'de>>(
    walk: &mut Walk<'t>,
    kind: &FieldKind,
    holder: Option<(&'t Type, &'t Field)>,
    duplicates: bool,
    mut entries: A,
) -> Result<Value, A::Error> {
    let mut out = Map::new();
    while let Some(key) = entries.next_key::<String>()? {
        if duplicates && out.contains_key(&key) {
            let path = walk.path.child(&key);
            walk.object_to(Strict::Duplicate(path));
        }
        walk.path.push_key(&key);
        let value = entries.next_value_seed(Seed { walk: &mut *walk, kind, holder })?;
        walk.path.pop();
        out.insert(key, value.or_else(|| Seed::zero(kind)).unwrap_or(Value::Null));
    }
    Ok(Value::Object(out))
}

/// The fields of one object that were given already: bits for the first 128, a list for the rest.
#[derive(Default)]
struct Given {
    low: u128,
    high: Vec<usize>,
}

impl Given {
    /// Whether the field was not given before.
    fn insert(&mut self, at: usize) -> bool {
        match 1u128.checked_shl(at as u32) {
            Some(bit) => {
                let new = self.low & bit == 0;
                self.low |= bit;
                new
            }
            None if self.high.contains(&at) => false,
            None => {
                self.high.push(at);
                true
            }
        }
    }
}

enum Key {
    Known(usize),
    Unknown(String),
}

struct KeySeed<'k>(&'k Type);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(match self.0.position(name) {
            Some(at) => Key::Known(at),
            None => Key::Unknown(name.to_owned()),
        })
    }
}
