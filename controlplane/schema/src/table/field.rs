//! What the table says of one type and of one field. It must not know how a value is decoded or merged.

use std::sync::Arc;

use serde_json::Value;

use super::TypeId;

/// A message of the API.
#[derive(Debug)]
pub struct Type {
    /// Full name as in OpenAPI, such as `io.k8s.api.core.v1.Pod`.
    pub name: Arc<str>,
    /// The fields, sorted by JSON name. Those of embedded structs are among them.
    pub fields: Vec<Field>,
    /// The object is owned and replaced as a whole (`structType=atomic`).
    pub atomic: bool,
    /// There may be fields that are not declared; they are free (custom resources that preserve unknown fields).
    pub open: bool,
    /// The API version under which objects of this type travel on their own, if they do: group, version, kind.
    pub kind: Option<[Arc<str>; 3]>,
}

impl Type {
    /// The field of this JSON name; case matters, as it does upstream.
    pub fn field(&self, json_name: &str) -> Option<&Field> {
        self.position(json_name).map(|at| &self.fields[at])
    }

    /// Where in `fields` the field of this JSON name stands.
    pub fn position(&self, json_name: &str) -> Option<usize> {
        self.fields.binary_search_by(|f| (*f.json_name).cmp(json_name)).ok()
    }

    /// The name without its package.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// The name as Go's reflection prints it: last element of the package, then the name.
    pub fn go_name(&self) -> String {
        let mut parts = self.name.rsplit('.');
        let (name, package) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        format!("{package}.{name}")
    }
}

/// What a value of a field looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldKind {
    /// A string.
    String,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating point number.
    Double,
    /// A boolean.
    Bool,
    /// A resource quantity: a string or a number, canonical form a string.
    Quantity,
    /// A number or a string, such as a target port.
    IntOrString,
    /// RFC 3339 time with whole seconds.
    Time,
    /// RFC 3339 time with microseconds.
    MicroTime,
    /// A Go duration, such as `1m30s`.
    Duration,
    /// Base64 text.
    Bytes,
    /// An embedded object of any kind, or any JSON object (`RawExtension`, `FieldsV1`).
    Raw,
    /// Any JSON value.
    Json,
    /// An object of the type, a list of such objects, or any other JSON value taken as it is (`JSONSchemaPropsOrBool`, ...).
    Either(TypeId),
    /// An object of a type.
    Object(TypeId),
    /// A list.
    List(Box<FieldKind>),
    /// A map with string keys.
    Map(Box<FieldKind>),
}

impl FieldKind {
    /// The type of the objects in this field: its own, its items' or its values'.
    pub fn object(&self) -> Option<TypeId> {
        match self {
            FieldKind::Object(id) => Some(*id),
            FieldKind::List(item) | FieldKind::Map(item) => item.object(),
            _ => None,
        }
    }
}

/// How a field's emptiness survives the round trip through the typed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Kept when given, even if it is the zero value; `null` is absence (a pointer).
    Pointer,
    /// Dropped when it is the zero value.
    OmitEmpty,
    /// Always written: the zero value (`null` for a list, a map or a time) stands for absence.
    Always,
    /// Kept when given; written as `null` when absent (a pointer without `omitempty`).
    Nullable,
    /// Neither it nor anything below is touched (custom resources, which have no typed form).
    AsGiven,
}

/// How a list is merged and owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    /// Not said: as atomic.
    #[default]
    Unset,
    /// Replaced and owned as a whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// Objects told apart by `map_keys`.
    Map,
}

/// What a strategic merge patch does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// Lists are merged item by item (by merge key for objects).
    pub merge: bool,
    /// Replaced as a whole even where maps would merge.
    pub replace: bool,
    /// `$retainKeys` clears what the patch does not name.
    pub retain_keys: bool,
}

/// A field of a type.
#[derive(Debug)]
pub struct Field {
    /// Name in JSON.
    pub json_name: Arc<str>,
    /// What its value looks like.
    pub kind: FieldKind,
    /// Must be given (OpenAPI's `required`).
    pub required: bool,
    /// What becomes of an empty value.
    pub presence: Presence,
    /// For lists: how they are merged and owned.
    pub list_type: ListType,
    /// For lists of type map: the names of the keys.
    pub map_keys: Vec<Arc<str>>,
    /// For maps and objects: replaced and owned as a whole.
    pub atomic: bool,
    /// What a strategic merge patch does with it.
    pub patch_strategy: PatchStrategy,
    /// The key by which a strategic merge patch tells list items apart.
    pub merge_key: Option<Arc<str>>,
    /// The default the API definition declares.
    pub default: Option<Value>,
    /// The allowed values that OpenAPI shows.
    pub enum_values: Vec<Arc<str>>,
    /// The Go name of a named scalar, list or map type, as it appears in decoding errors (`v1.PullPolicy`).
    pub go_type: Option<Arc<str>>,
    /// The Go structs through which the field is embedded, outermost first.
    pub embedded: Vec<Arc<str>>,
    /// Protobuf tags from the type down to the field: one, or more for fields of embedded structs. Empty if unknown.
    pub proto_path: Vec<u32>,
}

impl Field {
    /// The protobuf tag of the field in the message that holds it; 0 if unknown.
    pub fn proto_tag(&self) -> u32 {
        self.proto_path.last().copied().unwrap_or(0)
    }
}
