//! From a structural schema to what expressions are told of its values: types, names of fields, and the greatest sizes.

use std::collections::BTreeMap;
use std::sync::Arc;

use pagurus_controlplane_cel::{
    DeclKind, DeclType, Field, ListKind, MAX_REQUEST, ObjectType, Type as CelType,
};
use pagurus_controlplane_schema::structural::{Schema, Type};
use pagurus_controlplane_schema::table::ListType;

/// What a schema declares, and the fewest bytes a value of it takes in JSON.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub(super) declared: Arc<DeclType>,
    pub(super) least: u64,
}

/// What is always known of the root of an object: strings at these paths.
const META: [&str; 2] = ["apiVersion", "kind"];
const META_NAMES: [&str; 2] = ["generateName", "name"];

/// What the schema declares; nothing if expressions are not told of its values. `name` is what its objects' type is called.
pub(super) fn declare(schema: &Schema, root: bool, name: &str) -> Option<Declared> {
    let limits = schema.limits.as_deref();
    let max_length = limits.and_then(|limits| limits.max_length).map(at_least_0);
    if schema.int_or_string {
        let most = max_length.map_or(MAX_REQUEST - 2, |most| most.saturating_mul(4));
        return Some(simple(CelType::Dyn, most, 1));
    }
    match schema.type_ {
        Type::Array => {
            let item =
                declare(schema.items.as_deref()?, schema.items.as_ref()?.embedded, &format!("{name}.@idx"))?;
            let most = limits.and_then(|limits| limits.max_items).map(at_least_0);
            let most = most.unwrap_or((MAX_REQUEST - 2) / (item.least + 1));
            let kind = DeclKind::List(item.declared, list_kind(schema));
            Some(Declared { declared: Arc::new(DeclType { kind, max_elements: most }), least: 2 })
        }
        Type::Object => match schema.additional_schema() {
            Some(additional) => {
                let value = declare(additional, additional.embedded, &format!("{name}.@elem"))?;
                let most = limits.and_then(|limits| limits.max_properties).map(at_least_0);
                let most = most.unwrap_or((MAX_REQUEST - 2) / (value.least + 6));
                let key = Arc::new(DeclType { kind: DeclKind::Simple(CelType::String), max_elements: 0 });
                let kind = DeclKind::Map(key, value.declared);
                Some(Declared { declared: Arc::new(DeclType { kind, max_elements: most }), least: 2 })
            }
            None => Some(object(schema, root, name)),
        },
        Type::String => Some(string(schema, max_length)),
        Type::Integer => Some(simple(CelType::Int, 0, 1)),
        Type::Number => Some(simple(CelType::Double, 0, 1)),
        Type::Boolean => Some(simple(CelType::Bool, 0, 4)),
        Type::Any => None,
    }
}

fn at_least_0(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn simple(of: CelType, most: u64, least: u64) -> Declared {
    Declared { declared: Arc::new(DeclType { kind: DeclKind::Simple(of), max_elements: most }), least }
}

fn list_kind(schema: &Schema) -> ListKind {
    match schema.list_type {
        ListType::Set => ListKind::Set,
        ListType::Map => ListKind::Map(schema.map_keys.iter().map(|key| key.to_string()).collect()),
        _ => ListKind::Atomic,
    }
}

/// A string by its format. Lengths are in bytes where the schema counts characters, of which one may take four.
fn string(schema: &Schema, max_length: Option<u64>) -> Declared {
    let limits = schema.limits.as_deref();
    match limits.and_then(|limits| limits.format.as_deref()) {
        Some("byte") => simple(CelType::Bytes, max_length.unwrap_or(MAX_REQUEST - 2), 2),
        Some("duration") => simple(CelType::Duration, 32, 3),
        Some("date") => simple(CelType::Timestamp, 12, 12),
        Some("date-time" | "datetime") => simple(CelType::Timestamp, 32, 21),
        _ => {
            let values = limits.map_or(&[][..], |limits| limits.values.as_slice());
            let longest = values.iter().filter_map(|value| value.as_str().map(str::len)).max();
            let most = match (max_length, longest) {
                (Some(most), _) => most.saturating_mul(4),
                (None, Some(longest)) => longest as u64,
                (None, None) => MAX_REQUEST - 2,
            };
            simple(CelType::String, most, 2)
        }
    }
}

fn object(schema: &Schema, root: bool, name: &str) -> Declared {
    let required = schema.limits.as_deref().map_or(&[][..], |limits| limits.required.as_slice());
    let mut least = 2;
    let mut fields = BTreeMap::new();
    for (json, property) in &schema.properties {
        let Some(known) = declare(property, property.embedded, &format!("{name}.{json}")) else { continue };
        if required.contains(json) && property.default.is_none() {
            least += json.len() as u64 + known.least + 4;
        }
        if let Some(field) = escape(json) {
            fields.insert(field, Field { json: json.to_string(), declared: known.declared });
        }
    }
    if root {
        let text = || DeclType::simple(CelType::String);
        for field in META {
            fields.insert(field.to_owned(), Field { json: field.to_owned(), declared: text() });
        }
        let names = META_NAMES.map(|field| (field, text()));
        let metadata = DeclType::object(&format!("{name}.metadata"), &names);
        fields.insert("metadata".to_owned(), Field { json: "metadata".to_owned(), declared: metadata });
    }
    let kind = DeclKind::Object(Arc::new(ObjectType { name: name.to_owned(), fields }));
    Declared { declared: Arc::new(DeclType { kind, max_elements: 0 }), least }
}

/// Words that the language keeps for itself.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A field's name as expressions write it; nothing if they cannot.
pub(super) fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if name.is_empty() || !name.chars().all(fits) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let escaped = name.replace("__", "__underscores__").replace('.', "__dot__");
    Some(escaped.replace('-', "__dash__").replace('/', "__slash__"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_escaped() {
        for (name, escaped) in [
            ("namespace", Some("__namespace__")),
            ("x-prop", Some("x__dash__prop")),
            ("redact__d", Some("redact__underscores__d")),
            ("string", Some("string")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("a b", None),
            ("1a", None),
            ("", None),
        ] {
            assert_eq!(escape(name).as_deref(), escaped, "{name}");
        }
    }

    #[test]
    fn schemas_are_declared_with_their_sizes() {
        for (schema, of, most) in [
            (json!({"type": "string"}), "string", MAX_REQUEST - 2),
            (json!({"type": "string", "maxLength": 10}), "string", 40),
            (json!({"type": "string", "enum": ["a", "long"]}), "string", 4),
            (json!({"type": "string", "format": "date-time"}), "google.protobuf.Timestamp", 32),
            (json!({"type": "string", "format": "byte", "maxLength": 8}), "bytes", 8),
            (json!({"type": "integer"}), "int", 0),
            (json!({"type": "array", "items": {"type": "string"}}), "list(string)", (MAX_REQUEST - 2) / 3),
            (json!({"type": "array", "maxItems": 7, "items": {"type": "number"}}), "list(double)", 7),
            (
                json!({"type": "object", "additionalProperties": {"type": "boolean"}}),
                "map(string, bool)",
                (MAX_REQUEST - 2) / 10,
            ),
            (json!({"type": "object", "properties": {"a-b": {"type": "string"}}}), "Self", 0),
            (json!({"x-kubernetes-int-or-string": true}), "dyn", MAX_REQUEST - 2),
        ] {
            let declared = declare(&Schema::parse(&schema), false, "Self").map(|declared| declared.declared);
            let declared = declared.unwrap_or_else(|| panic!("{schema}"));
            assert_eq!((declared.of().to_string().as_str(), declared.max_elements), (of, most), "{schema}");
        }
        assert!(
            declare(&Schema::parse(&json!({"x-kubernetes-preserve-unknown-fields": true})), false, "Self")
                .is_none()
        );
    }
}
