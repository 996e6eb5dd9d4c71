//! Objects of every kind with most fields filled in, made from the type table, and the words of the API. They fit their types; they
//! need not make sense.

use pagurus_controlplane_schema::{Field, FieldKind, Resource, Table, TypeId};
use serde_json::{Map, Value, json};

/// The resource that two bytes choose, and the bytes after them.
pub(crate) fn choose(data: &[u8]) -> Option<(&'static Resource, &[u8])> {
    let (chosen, rest) = data.split_first_chunk::<2>()?;
    let resources = Table::builtin().resources();
    Some((&resources[usize::from(u16::from_be_bytes(*chosen)) % resources.len()], rest))
}

/// Two bytes that choose the resource at this place, before something.
pub(crate) fn chosen(at: usize, rest: &[u8]) -> Vec<u8> {
    let mut data = (at as u16).to_be_bytes().to_vec();
    data.extend_from_slice(rest);
    data
}

/// An object of every resource, with the resource's place.
pub(crate) fn objects() -> Vec<(usize, Value)> {
    let table = Table::builtin();
    let of = |resource: &Resource| {
        let mut value = object(table, resource.type_id, 0);
        value.insert("apiVersion".to_owned(), json!(resource.api_version()));
        value.insert("kind".to_owned(), json!(&*resource.kind));
        Value::Object(value)
    };
    table.resources().iter().enumerate().map(|(at, resource)| (at, of(resource))).collect()
}

/// Fields so deep are left out: libFuzzer does more with small inputs.
const DEEPEST: usize = 4;

fn object(table: &Table, id: TypeId, depth: usize) -> Map<String, Value> {
    let fields = table.type_(id).fields.iter().filter(|field| depth < DEEPEST && has_tag(field));
    // Of wide types deep inside, the first fields stand for the others.
    let fields = fields.enumerate().filter(|(at, field)| depth < 2 || *at < 6 || field.required);
    fields.map(|(_, field)| (field.json_name.to_string(), value_of(table, field, depth))).collect()
}

fn value_of(table: &Table, field: &Field, depth: usize) -> Value {
    match field.enum_values.first() {
        Some(word) if field.kind == FieldKind::String => json!(&**word),
        _ => value(table, &field.kind, depth),
    }
}

fn value(table: &Table, kind: &FieldKind, depth: usize) -> Value {
    match kind {
        FieldKind::String => json!("a"),
        FieldKind::Int32 | FieldKind::Int64 => json!(7),
        FieldKind::Double => json!(1.5),
        FieldKind::Bool => json!(true),
        FieldKind::Quantity => json!("100m"),
        FieldKind::IntOrString => json!("http"),
        FieldKind::Time => json!("2025-01-02T03:04:05Z"),
        FieldKind::MicroTime => json!("2025-01-02T03:04:05.000006Z"),
        FieldKind::Duration => json!("1m0s"),
        FieldKind::Bytes => json!("YQ=="),
        FieldKind::Raw => json!({"f:a": {"f:b": {}}}),
        FieldKind::Json => json!({"a": [1, null, "x"]}),
        FieldKind::Either(id) | FieldKind::Object(id) => Value::Object(object(table, *id, depth + 1)),
        FieldKind::List(item) => json!([value(table, item, depth + 1)]),
        FieldKind::Map(item) => json!({"k": value(table, item, depth + 1)}),
    }
}

/// The few newest fields whose protobuf tags are not published have no place in a message.
fn has_tag(field: &Field) -> bool {
    !field.proto_path.is_empty()
}

/// Whether every field of an object has a place in a message; `apiVersion` and `kind` at its top have theirs in the envelope.
pub(crate) fn has_tags(table: &Table, id: TypeId, value: &Value, top: bool) -> bool {
    let Value::Object(entries) = value else { return true };
    entries.iter().all(|(name, value)| {
        let envelope = top && matches!(name.as_str(), "apiVersion" | "kind");
        let field = table.type_(id).field(name);
        envelope || field.is_none_or(|field| has_tag(field) && below_has_tags(table, &field.kind, value))
    })
}

fn below_has_tags(table: &Table, kind: &FieldKind, value: &Value) -> bool {
    match (kind, value) {
        (FieldKind::Object(id) | FieldKind::Either(id), _) => has_tags(table, *id, value, false),
        (FieldKind::List(item), Value::Array(items)) => items.iter().all(|v| below_has_tags(table, item, v)),
        (FieldKind::Map(item), Value::Object(entries)) => {
            entries.values().all(|v| below_has_tags(table, item, v))
        }
        _ => true,
    }
}

/// The names of fields and the words of enumerations, as libFuzzer reads them.
pub(crate) fn dictionary() -> String {
    let table = Table::builtin();
    let mut words: Vec<String> = Vec::new();
    for (_, type_) in table.types() {
        for field in &type_.fields {
            words.push(field.json_name.to_string());
            words.extend(field.enum_values.iter().map(|word| word.to_string()));
        }
    }
    let other = [
        "$patch",
        "$retainKeys",
        "$setElementOrder/",
        "$deleteFromPrimitiveList/",
        "replace",
        "delete",
        "f:",
        "k:{",
        "v:",
    ];
    words.extend(other.map(str::to_owned));
    words.sort();
    words.dedup();
    let entry = |word: &String| format!("\"{}\"\n", word.replace('\\', "\\\\").replace('"', "\\\""));
    words.iter().filter(|word| !word.is_empty() && word.len() < 60).map(entry).collect()
}
