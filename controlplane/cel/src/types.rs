//! Types: what the checker reckons with ([`Type`]), and what a schema declares of a value, sizes included ([`DeclType`]).
//! Knows nothing of JSON or schemas: who has one builds these.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type as the checker sees it. Two objects are the same type if they are called the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Anything: checks are left to the evaluation.
    Dyn,
    /// The type of `null`.
    Null,
    /// `bool`
    Bool,
    /// `int`, 64 bits.
    Int,
    /// `uint`, 64 bits.
    Uint,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// A span of time.
    Duration,
    /// A point in time.
    Timestamp,
    /// A list of one type.
    List(Arc<Type>),
    /// A map from one type to another.
    Map(Arc<Type>, Arc<Type>),
    /// An object with named fields.
    Object(Arc<ObjectType>),
    /// A type of a library that is known by its name alone (`net.IP`).
    Opaque(&'static str),
    /// A value that may be absent.
    Optional(Arc<Type>),
    /// A type as a value.
    Type(Arc<Type>),
    /// A type yet to be found out, by number.
    Param(u32),
    /// What an expression with an error in it has.
    Error,
}

impl Type {
    /// `list(element)`
    pub fn list(element: Type) -> Type {
        Type::List(Arc::new(element))
    }

    /// `map(key, value)`
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    /// `optional_type(value)`
    pub fn optional(value: Type) -> Type {
        Type::Optional(Arc::new(value))
    }

    /// Whether any value may stand here as far as the checker can tell.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Duration => f.write_str("google.protobuf.Duration"),
            Type::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Type::List(element) => write!(f, "list({element})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Object(object) => f.write_str(&object.name),
            Type::Opaque(name) => f.write_str(name),
            Type::Optional(value) => write!(f, "optional_type({value})"),
            Type::Type(of) => write!(f, "type({of})"),
            Type::Param(number) => write!(f, "_var{number}"),
            Type::Error => f.write_str("!error!"),
        }
    }
}

/// An object type: its name and its fields by the name that expressions use.
#[derive(Debug)]
pub struct ObjectType {
    /// The type's name, which tells it from others.
    pub name: String,
    /// Fields by the name in expressions.
    pub fields: BTreeMap<String, Field>,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ObjectType {}

/// A field of an object.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name in the JSON object, which may be no identifier.
    pub json: String,
    /// What it holds.
    pub declared: Arc<DeclType>,
}

/// How the items of a list are told apart (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListKind {
    /// By their place.
    #[default]
    Atomic,
    /// By their value: order does not matter for `==`, and `+` is a union.
    Set,
    /// By the values of these fields: order does not matter for `==`, and `+` replaces.
    Map(Vec<String>),
}

/// What a schema declares of a value: type, and the greatest size it may have.
#[derive(Debug, Clone)]
pub struct DeclType {
    /// The kind of value, with the declarations of its parts.
    pub kind: DeclKind,
    /// The greatest number of characters, bytes, items or entries; what scalars have is 0.
    pub max_elements: u64,
}

/// The kinds of declared values.
#[derive(Debug, Clone)]
pub enum DeclKind {
    /// A value without declared parts.
    Simple(Type),
    /// A list.
    List(Arc<DeclType>, ListKind),
    /// A map from strings.
    Map(Arc<DeclType>, Arc<DeclType>),
    /// An object.
    Object(Arc<ObjectType>),
    /// `optional_type` of another (the old value of a rule that is asked without one).
    Optional(Arc<DeclType>),
}

/// Bytes of the largest request the API server takes: no value is larger.
pub const MAX_REQUEST: u64 = 3 * 1024 * 1024;

impl DeclType {
    /// A value of that type without bounds of its own.
    pub fn simple(of: Type) -> Arc<DeclType> {
        let max_elements = match of {
            Type::String | Type::Bytes | Type::Dyn => MAX_REQUEST - 2,
            _ => 0,
        };
        Arc::new(DeclType { kind: DeclKind::Simple(of), max_elements })
    }

    /// Any value.
    pub fn dynamic() -> Arc<DeclType> {
        Self::simple(Type::Dyn)
    }

    /// A list without a bound of its own.
    pub fn list(item: Arc<DeclType>) -> Arc<DeclType> {
        Arc::new(DeclType { kind: DeclKind::List(item, ListKind::Atomic), max_elements: MAX_REQUEST / 2 })
    }

    /// A map from strings without a bound of its own.
    pub fn map(value: Arc<DeclType>) -> Arc<DeclType> {
        Arc::new(DeclType {
            kind: DeclKind::Map(Self::simple(Type::String), value),
            max_elements: MAX_REQUEST / 6,
        })
    }

    /// An object of that name with those fields, each called in expressions as in JSON.
    pub fn object(name: &str, fields: &[(&str, Arc<DeclType>)]) -> Arc<DeclType> {
        let fields = fields.iter().map(|(field, declared)| {
            (field.to_string(), Field { json: field.to_string(), declared: declared.clone() })
        });
        let object = ObjectType { name: name.to_owned(), fields: fields.collect() };
        Arc::new(DeclType { kind: DeclKind::Object(Arc::new(object)), max_elements: 0 })
    }

    /// The type the checker sees.
    pub fn of(&self) -> Type {
        match &self.kind {
            DeclKind::Simple(of) => of.clone(),
            DeclKind::List(item, _) => Type::list(item.of()),
            DeclKind::Map(key, value) => Type::map(key.of(), value.of()),
            DeclKind::Object(object) => Type::Object(object.clone()),
            DeclKind::Optional(value) => Type::optional(value.of()),
        }
    }

    /// What an item of a list, or a value of a map, is declared as.
    pub fn element(&self) -> Option<&Arc<DeclType>> {
        match &self.kind {
            DeclKind::List(item, _) => Some(item),
            DeclKind::Map(_, value) => Some(value),
            _ => None,
        }
    }

    /// What a key of a map is declared as.
    pub fn key(&self) -> Option<&Arc<DeclType>> {
        match &self.kind {
            DeclKind::Map(key, _) => Some(key),
            _ => None,
        }
    }

    /// The field an expression calls so.
    pub fn field(&self, name: &str) -> Option<&Field> {
        match &self.kind {
            DeclKind::Object(object) => object.fields.get(name),
            _ => None,
        }
    }
}

/// The type parameters that [`parse`] knows: `A`, `B`, ... as numbers from 0.
const PARAMETERS: [&str; 5] = ["A", "B", "K", "T", "V"];

/// A type written as overload tables write it: `list(A)`, `optional(map(K, V))`, `net.IP`. Parameters become [`Type::Param`].
/// What is no known word is the name of a library's type.
pub(crate) fn parse(text: &'static str) -> Type {
    let text = text.trim();
    let inner = |prefix: &str| text.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(')'));
    if let Some(of) = inner("list(") {
        return Type::list(parse(of));
    }
    if let Some(of) = inner("map(") {
        let (key, value) = of.split_once(',').unwrap_or((of, "dyn"));
        return Type::map(parse(key), parse(value));
    }
    if let Some(of) = inner("optional(") {
        return Type::optional(parse(of));
    }
    if let Some(of) = inner("type(") {
        return Type::Type(Arc::new(parse(of)));
    }
    match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        name => PARAMETERS
            .iter()
            .position(|parameter| *parameter == name)
            .map_or(Type::Opaque(name), |at| Type::Param(at as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_as_messages_show_them() {
        for (written, shown) in [
            ("int", "int"),
            ("list(string)", "list(string)"),
            ("map(string, list(int))", "map(string, list(int))"),
            ("optional(duration)", "optional_type(google.protobuf.Duration)"),
            ("type(A)", "type(_var0)"),
            ("net.IP", "net.IP"),
            ("null", "null"),
        ] {
            assert_eq!(parse(written).to_string(), shown);
        }
    }

    #[test]
    fn a_declared_object_has_fields_and_sizes() {
        let pod = DeclType::object(
            "Pod",
            &[
                ("name", DeclType::simple(Type::String)),
                ("tags", DeclType::list(DeclType::simple(Type::Int))),
            ],
        );
        assert_eq!(pod.field("name").map(|field| field.declared.of()), Some(Type::String));
        assert_eq!(pod.field("tags").map(|field| field.declared.of()), Some(Type::list(Type::Int)));
        assert!(pod.field("other").is_none());
        assert_eq!(pod.of().to_string(), "Pod");
    }
}
