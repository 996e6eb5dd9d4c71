//! The document of version 2 in its protobuf form, which older kubectl asks for: strings, numbers and nested messages by
//! the field numbers of the published definition. It must not know what the document says.

use serde_json::{Map, Value};

/// The media type of this form in answers.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The media types by which clients ask for it. The older one is malformed and cannot stand in an answer.
pub const V2_PROTOBUF_ASKED: [&str; 2] =
    [V2_PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];

/// Joins a document of version 2: everything but paths and definitions, and these two as they are.
pub(super) fn document(frame: &Value, paths: &Message, definitions: &Message) -> Vec<u8> {
    let mut out = Message::default();
    out.string(1, &frame["swagger"]);
    out.nested(2, |info| {
        info.string(1, &frame["info"]["title"]);
        info.string(2, &frame["info"]["version"]);
    });
    out.message(8, paths);
    out.message(9, definitions);
    out.nested(10, |parameters| named(parameters, 1, &frame["parameters"], parameter));
    for requirement in list(&frame["security"]) {
        out.nested(12, |r| named(r, 1, requirement, |scopes, value| scopes.strings(1, value)));
    }
    out.nested(13, |all| {
        named(all, 1, &frame["securityDefinitions"], |item, value| item.nested(2, |key| api_key(key, value)));
    });
    out.bytes
}

/// A message being written.
#[derive(Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn field(&mut self, tag: u64, content: &[u8]) {
        self.varint(tag << 3 | 2);
        self.varint(content.len() as u64);
        self.bytes.extend_from_slice(content);
    }

    pub(super) fn string(&mut self, tag: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.field(tag, text.as_bytes());
        }
    }

    pub(super) fn strings(&mut self, tag: u64, values: &Value) {
        list(values).for_each(|value| self.string(tag, value));
    }

    pub(super) fn boolean(&mut self, tag: u64, value: &Value) {
        if value == true {
            self.varint(tag << 3);
            self.varint(1);
        }
    }

    /// A boolean that is one of several things that a field can be: false says something too.
    pub(super) fn choice(&mut self, tag: u64, value: bool) {
        self.varint(tag << 3);
        self.varint(value.into());
    }

    pub(super) fn double(&mut self, tag: u64, value: &Value) {
        if let Some(number) = value.as_f64() {
            self.varint(tag << 3 | 1);
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
    }

    pub(super) fn integer(&mut self, tag: u64, value: &Value) {
        if let Some(number) = value.as_i64() {
            self.varint(tag << 3);
            self.varint(number as u64);
        }
    }

    /// A nested message that is there already.
    pub(super) fn message(&mut self, tag: u64, message: &Message) {
        self.field(tag, &message.bytes);
    }

    /// What has been written.
    pub(super) fn take(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn nested(&mut self, tag: u64, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.field(tag, &inner.bytes);
    }

    /// An entry of a map, as a pair of name and value.
    pub(super) fn pair(&mut self, tag: u64, name: &str, write: impl FnOnce(&mut Message)) {
        self.nested(tag, |pair| {
            pair.field(1, name.as_bytes());
            pair.nested(2, write);
        });
    }

    /// Any value, as the text of its JSON.
    pub(super) fn any(&mut self, tag: u64, value: &Value) {
        self.nested(tag, |any| any.field(2, value.to_string().as_bytes()));
    }

    /// The `x-` entries of an object.
    pub(super) fn extensions(&mut self, tag: u64, object: &Value) {
        for (name, value) in entries(object).filter(|(name, _)| name.starts_with("x-")) {
            self.nested(tag, |named| {
                named.field(1, name.as_bytes());
                named.any(2, value);
            });
        }
    }
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// A map, as repeated pairs of name and value.
pub(super) fn named(out: &mut Message, tag: u64, map: &Value, write: impl Fn(&mut Message, &Value)) {
    for (name, value) in entries(map) {
        out.pair(tag, name, |inner| write(inner, value));
    }
}

fn api_key(out: &mut Message, key: &Value) {
    for (tag, name) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
        out.string(tag, &key[name]);
    }
}

pub(super) fn path_item(out: &mut Message, item: &Value) {
    for (tag, method) in
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")]
    {
        if let Some(found) = item.get(method) {
            out.nested(tag, |o| operation(o, found));
        }
    }
    list(&item["parameters"]).for_each(|p| out.nested(9, |o| parameter_or_reference(o, p)));
    out.extensions(10, item);
}

fn operation(out: &mut Message, operation: &Value) {
    out.strings(1, &operation["tags"]);
    out.string(3, &operation["description"]);
    out.string(5, &operation["operationId"]);
    out.strings(6, &operation["produces"]);
    out.strings(7, &operation["consumes"]);
    list(&operation["parameters"]).for_each(|p| out.nested(8, |o| parameter_or_reference(o, p)));
    out.nested(9, |responses| {
        named(responses, 1, &operation["responses"], |value, response| {
            value.nested(1, |r| {
                r.string(1, &response["description"]);
                if let Some(found) = response.get("schema") {
                    r.nested(2, |item| item.nested(1, |s| schema(s, found)));
                }
            });
        });
    });
    out.strings(10, &operation["schemes"]);
    out.extensions(13, operation);
}

/// A `ParametersItem`: a parameter, or where it is.
fn parameter_or_reference(out: &mut Message, item: &Value) {
    match item.get("$ref") {
        Some(reference) => out.nested(2, |r| r.string(1, reference)),
        None => out.nested(1, |p| parameter(p, item)),
    }
}

/// A body, query or path parameter.
fn parameter(out: &mut Message, parameter: &Value) {
    match parameter["in"].as_str() {
        Some("body") => out.nested(1, |body| {
            body.string(2, &parameter["name"]);
            body.string(3, &parameter["in"]);
            body.boolean(4, &parameter["required"]);
            body.nested(5, |s| schema(s, &parameter["schema"]));
        }),
        place => out.nested(2, |other| {
            // Query parameters may be empty, and their type comes one number later for it.
            let (kind, shift) = if place == Some("query") { (3, 1) } else { (4, 0) };
            other.nested(kind, |sub| {
                sub.boolean(1, &parameter["required"]);
                sub.string(2, &parameter["in"]);
                sub.string(3, &parameter["description"]);
                sub.string(4, &parameter["name"]);
                sub.string(5 + shift, &parameter["type"]);
                sub.boolean(19 + shift, &parameter["uniqueItems"]);
            });
        }),
    }
}

pub(super) fn schema(out: &mut Message, schema_: &Value) {
    out.string(1, &schema_["$ref"]);
    out.string(2, &schema_["format"]);
    out.string(4, &schema_["description"]);
    if let Some(default) = schema_.get("default") {
        out.any(5, default);
    }
    out.strings(19, &schema_["required"]);
    list(&schema_["enum"]).for_each(|value| out.any(20, value));
    if let Some(values) = schema_.get("additionalProperties") {
        out.nested(21, |item| item.nested(1, |s| schema(s, values)));
    }
    if schema_["type"].is_string() {
        out.nested(22, |item| item.string(1, &schema_["type"]));
    }
    if let Some(items) = schema_.get("items") {
        out.nested(23, |item| item.nested(1, |s| schema(s, items)));
    }
    if let Some(properties) = schema_.get("properties") {
        out.nested(25, |all| named(all, 1, properties, schema));
    }
    out.extensions(31, schema_);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Message, document, parameter_or_reference, schema};

    #[test]
    fn fields_stand_under_their_numbers() {
        let mut out = Message::default();
        schema(
            &mut out,
            &json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}, "x-k": ["n"]}),
        );
        let expected: &[u8] = &[
            0x9a, 0x01, 1, b'a', // required
            0xb2, 0x01, 8, 0x0a, 6, b'o', b'b', b'j', b'e', b'c', b't', // type
            0xca, 0x01, 18, 0x0a, 16, 0x0a, 1, b'a', 0x12, 11, 0xb2, 0x01, 8, 0x0a, 6, b's', b't', b'r',
            b'i', b'n', b'g', // properties
            0xfa, 0x01, 14, 0x0a, 3, b'x', b'-', b'k', 0x12, 7, 0x12, 5, b'[', b'"', b'n', b'"',
            b']', // extension
        ];
        assert_eq!(out.bytes, expected);
    }

    #[test]
    fn parameters_are_told_apart_by_place() {
        let number = |place: &str| {
            let mut out = Message::default();
            parameter_or_reference(&mut out, &json!({"in": place, "name": "n", "type": "string"}));
            (out.bytes[2] >> 3, out.bytes[4] >> 3)
        };
        assert_eq!(number("query"), (2, 3));
        assert_eq!(number("path"), (2, 4));
        assert_eq!(number("body").0, 1);
    }

    #[test]
    fn long_content_has_long_lengths() {
        let text = "x".repeat(300);
        let none = Message::default();
        let bytes = document(&json!({"swagger": text}), &none, &none);
        assert_eq!(&bytes[..3], [0x0a, 0xac, 0x02]);
    }
}
