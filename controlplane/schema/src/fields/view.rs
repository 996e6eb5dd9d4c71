//! How a value is owned and merged, by its place in the type table: as a whole, field by field, entry by entry, item by item.

use super::set::{Set, node, shown};
use crate::table::{Field, FieldKind, ListType, Presence, Table, TypeId};
use serde_json::{Map, Value};

/// A place in the type table.
#[derive(Clone, Copy)]
pub(crate) struct Place<'t> {
    table: &'t Table,
    kind: Option<&'t FieldKind>,
    field: Option<&'t Field>,
    root: Option<TypeId>,
    /// `root` is an item of a list: it may be owned as a whole; an object never is.
    item: bool,
}

/// What a value at a place is made of.
pub(crate) enum Shape<'t> {
    /// Owned and replaced as a whole.
    Whole,
    /// An object of declared fields.
    Fields(TypeId),
    /// An object of free entries.
    Entries(Place<'t>),
    /// A list of values that are told apart by themselves.
    Values,
    /// A list of objects that are told apart by keys.
    Items(TypeId, &'t [std::sync::Arc<str>]),
}

/// Why a configuration cannot be read as its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct TypedError {
    /// Where, as messages show it.
    pub path: String,
    /// What.
    pub problem: String,
}

impl<'t> Place<'t> {
    /// The place of a whole object.
    pub(crate) fn root(table: &'t Table, id: TypeId) -> Self {
        Self { table, kind: None, field: None, root: Some(id), item: false }
    }

    /// A place of which the table says nothing: maps are owned by entry, lists as a whole.
    fn free(table: &'t Table) -> Self {
        Self { table, kind: None, field: None, root: None, item: false }
    }

    /// What `value` is made of here.
    pub(crate) fn shape(&self, value: Option<&Value>) -> Shape<'t> {
        if let Some(id) = self.root {
            let whole = self.item && self.table.type_(id).atomic;
            return if whole { Shape::Whole } else { Shape::Fields(id) };
        }
        let atomic = self.field.is_some_and(|f| f.atomic);
        match self.kind {
            Some(FieldKind::Object(id)) if atomic || self.table.type_(*id).atomic => Shape::Whole,
            Some(FieldKind::Object(id)) => Shape::Fields(*id),
            Some(FieldKind::Map(_)) if atomic => Shape::Whole,
            Some(FieldKind::Map(item)) => Shape::Entries(Self { kind: Some(item), field: None, ..*self }),
            Some(FieldKind::List(item)) => match self.field.map(|f| f.list_type).unwrap_or_default() {
                ListType::Set => Shape::Values,
                ListType::Map => match (&**item, self.field) {
                    (FieldKind::Object(id), Some(field)) => Shape::Items(*id, &field.map_keys),
                    _ => Shape::Whole,
                },
                ListType::Unset | ListType::Atomic => Shape::Whole,
            },
            Some(FieldKind::Json | FieldKind::Either(_)) | None => match value {
                Some(Value::Object(_)) => Shape::Entries(Self::free(self.table)),
                _ => Shape::Whole,
            },
            Some(_) => Shape::Whole,
        }
    }

    /// The place of a field of an object here; none if the type does not declare it.
    pub(crate) fn field(&self, id: TypeId, name: &str) -> Option<Place<'t>> {
        let holder = self.table.type_(id);
        let Some(field) = holder.field(name) else {
            return holder.open.then(|| Self::free(self.table));
        };
        Some(Self { table: self.table, kind: Some(&field.kind), field: Some(field), root: None, item: false })
    }

    /// The place of an item of a list whose items are of a type.
    pub(crate) fn item(&self, id: TypeId) -> Place<'t> {
        Self { table: self.table, kind: None, field: None, root: Some(id), item: true }
    }

    /// The step of a list item: its keys, with the defaults of those it leaves out.
    pub(crate) fn step_of(&self, id: TypeId, keys: &[std::sync::Arc<str>], item: &Value) -> String {
        let mut step = Map::new();
        for key in keys {
            let given = item.get(&**key).filter(|v| !v.is_null()).cloned();
            let value = given.or_else(|| self.table.type_(id).field(key).and_then(key_default));
            if let Some(value) = value {
                step.insert(key.to_string(), value);
            }
        }
        format!("k:{}", Value::Object(step))
    }

    /// Whether the last step of a path is a declared field of a type here (and not an entry of a map).
    pub(crate) fn declares(&self, path: &[String]) -> bool {
        let mut place = *self;
        for (at, step) in path.iter().enumerate() {
            let last = at + 1 == path.len();
            let name = step.strip_prefix("f:");
            match (place.shape(Some(&Value::Object(Map::new()))), name) {
                (Shape::Fields(id), Some(name)) => match place.field(id, name) {
                    Some(_) if last => return true,
                    Some(next) => place = next,
                    None => return false,
                },
                (Shape::Entries(next), Some(_)) if !last => place = next,
                (Shape::Items(id, _), None) if !last => place = place.item(id),
                _ => return false,
            }
        }
        false
    }

    /// The fields of a configuration: its leaves, and the items and entries it names.
    pub(crate) fn fields_of(&self, value: &Value) -> Result<Set, TypedError> {
        match self.collect(value) {
            Ok((tree, _)) => Ok(Set::of_tree(tree)),
            Err(Misfit { mut steps, problem }) => {
                steps.reverse();
                Err(TypedError { path: shown(&steps), problem })
            }
        }
    }

    /// What is below a value's node, and whether the node is itself a member.
    fn collect(&self, value: &Value) -> Result<(Map<String, Value>, bool), Misfit> {
        let fail = |problem: String| Misfit { steps: Vec::new(), problem };
        self.scalar_fits(value).map_err(fail)?;
        let mut tree = Map::new();
        match (self.shape(Some(value)), value) {
            (Shape::Whole, _) | (_, Value::Null) => return Ok((tree, true)),
            (shape @ (Shape::Fields(_) | Shape::Entries(_)), Value::Object(entries)) => {
                for (name, child) in entries {
                    let step = ["f:", name].concat();
                    let (place, declared) = match &shape {
                        Shape::Fields(id) => match self.field(*id, name) {
                            Some(place) => (place, true),
                            None => return Err(fail("field not declared in schema".to_owned()).below(step)),
                        },
                        Shape::Entries(place) => (*place, false),
                        _ => (*self, false),
                    };
                    let empty = child.is_null() || child.as_object().is_some_and(Map::is_empty);
                    match place.collect(child) {
                        Ok((below, member)) => put(&mut tree, step, below, member || empty || !declared),
                        Err(misfit) => return Err(misfit.below(step)),
                    }
                }
            }
            (Shape::Values, Value::Array(items)) => {
                for item in items {
                    put(&mut tree, format!("v:{item}"), Map::new(), true);
                }
            }
            (Shape::Items(id, keys), Value::Array(items)) => {
                for item in items {
                    let step = self.step_of(id, keys, item);
                    if tree.contains_key(&step) {
                        let at = shown(&[step]);
                        return Err(fail(format!("duplicate entries for key {at}")));
                    }
                    match self.item(id).collect(item) {
                        Ok((below, _)) => put(&mut tree, step, below, true),
                        Err(misfit) => return Err(misfit.below(step)),
                    }
                }
            }
            (Shape::Values | Shape::Items(..), other) => {
                return Err(fail(format!("expected list, got {}", go_value(other))));
            }
            (_, other) => return Err(fail(format!("expected map, got {}", go_value(other)))),
        }
        Ok((tree, false))
    }

    /// Scalars of another JSON type than the table's are told before anything is merged.
    fn scalar_fits(&self, value: &Value) -> Result<(), String> {
        let want = match (self.kind, value) {
            (_, Value::Null) => return Ok(()),
            (Some(FieldKind::String), v) if !v.is_string() => "string",
            (Some(FieldKind::Bool), v) if !v.is_boolean() => "boolean",
            (Some(FieldKind::Int32 | FieldKind::Int64 | FieldKind::Double), v) if !v.is_number() => {
                "numeric (int or float)"
            }
            _ => return Ok(()),
        };
        Err(format!("expected {want}, got {}", go_value(value)))
    }
}

fn put(tree: &mut Map<String, Value>, step: String, below: Map<String, Value>, member: bool) {
    if let Some(node) = node(below, member) {
        tree.insert(step, node);
    }
}

/// A value that does not fit, with the steps to it, the last one first.
struct Misfit {
    steps: Vec<String>,
    problem: String,
}

impl Misfit {
    fn below(mut self, step: String) -> Self {
        self.steps.push(step);
        self
    }
}

/// A value as the messages of structured merge show it.
fn go_value(value: &Value) -> String {
    let inner = match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    format!("&value.valueUnstructured{{Value:{inner}}}")
}

/// What a key that a list item leaves out stands for: its declared default, or the zero value of a field that is always there.
fn key_default(field: &Field) -> Option<Value> {
    if let Some(default) = &field.default {
        return Some(default.clone());
    }
    if field.presence != Presence::Always && !field.required {
        return None;
    }
    match field.kind {
        FieldKind::String => Some(Value::String(String::new())),
        FieldKind::Int32 | FieldKind::Int64 => Some(Value::from(0)),
        FieldKind::Bool => Some(Value::Bool(false)),
        _ => None,
    }
}
