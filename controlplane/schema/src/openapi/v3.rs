//! Documents of version 3 in their protobuf form: strings, numbers and nested messages by the field numbers of gnostic's published
//! definition (`openapi.v3`). It must not know what the document says.

use serde_json::Value;

use super::protobuf::{Message, entries, list, named};

/// The media type of this form in answers.
pub const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

/// The media types by which clients ask for it. The older one is malformed and cannot stand in an answer.
pub const V3_PROTOBUF_ASKED: [&str; 2] =
    [V3_PROTOBUF, "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"];

/// Joins a document of version 3: everything but paths and schemas, and these two as they are.
pub(super) fn document(frame: &Value, paths: &Message, schemas: &Message) -> Vec<u8> {
    let mut out = Message::default();
    out.string(1, &frame["openapi"]);
    out.nested(2, |info| {
        info.string(1, &frame["info"]["title"]);
        info.string(6, &frame["info"]["version"]);
    });
    out.message(4, paths);
    out.nested(5, |components| {
        components.message(1, schemas);
        components.nested(7, |all| {
            all.pair(1, "BearerToken", |item| {
                let scheme = super::bearer(super::Dialect::V3);
                item.nested(1, |out| {
                    for (tag, name) in [(1, "type"), (2, "description"), (3, "name"), (4, "in")] {
                        out.string(tag, &scheme[name]);
                    }
                });
            });
        });
    });
    for requirement in list(&frame["security"]) {
        out.nested(6, |r| named(r, 1, requirement, |scopes, value| scopes.strings(1, value)));
    }
    out.take()
}

pub(super) fn path_item(out: &mut Message, item: &Value) {
    for (tag, method) in
        [(4, "get"), (5, "put"), (6, "post"), (7, "delete"), (8, "options"), (9, "head"), (10, "patch")]
    {
        if let Some(found) = item.get(method) {
            out.nested(tag, |o| operation(o, found));
        }
    }
    list(&item["parameters"]).for_each(|p| out.nested(13, |o| o.nested(1, |o| parameter(o, p))));
    out.extensions(14, item);
}

fn operation(out: &mut Message, operation: &Value) {
    out.strings(1, &operation["tags"]);
    out.string(3, &operation["description"]);
    out.string(5, &operation["operationId"]);
    list(&operation["parameters"]).for_each(|p| out.nested(6, |o| o.nested(1, |o| parameter(o, p))));
    if let Some(body) = operation.get("requestBody") {
        out.nested(7, |o| {
            o.nested(1, |o| {
                o.nested(2, |types| named(types, 1, &body["content"], media_type));
                o.boolean(3, &body["required"]);
            });
        });
    }
    out.nested(8, |responses| {
        for (code, response) in entries(&operation["responses"]) {
            responses.pair(2, code, |value| {
                value.nested(1, |r| {
                    r.string(1, &response["description"]);
                    if let Some(content) = response.get("content") {
                        r.nested(3, |types| named(types, 1, content, media_type));
                    }
                });
            });
        }
    });
    out.extensions(13, operation);
}

fn parameter(out: &mut Message, parameter: &Value) {
    out.string(1, &parameter["name"]);
    out.string(2, &parameter["in"]);
    out.string(3, &parameter["description"]);
    out.boolean(4, &parameter["required"]);
    out.nested(10, |s| schema_or_reference(s, &parameter["schema"]));
}

fn media_type(out: &mut Message, media: &Value) {
    out.nested(1, |s| schema_or_reference(s, &media["schema"]));
}

/// A `SchemaOrReference`.
pub(super) fn schema_or_reference(out: &mut Message, item: &Value) {
    match item.get("$ref") {
        Some(reference) => out.nested(2, |r| r.string(1, reference)),
        None => out.nested(1, |s| schema(s, item)),
    }
}

fn schema(out: &mut Message, item: &Value) {
    out.boolean(1, &item["nullable"]);
    out.string(9, &item["title"]);
    for (tag, name) in [(10, "multipleOf"), (11, "maximum"), (13, "minimum")] {
        out.double(tag, &item[name]);
    }
    out.boolean(12, &item["exclusiveMaximum"]);
    out.boolean(14, &item["exclusiveMinimum"]);
    for (tag, name) in [(15, "maxLength"), (16, "minLength")] {
        out.integer(tag, &item[name]);
    }
    out.string(17, &item["pattern"]);
    for (tag, name) in [(18, "maxItems"), (19, "minItems")] {
        out.integer(tag, &item[name]);
    }
    out.boolean(20, &item["uniqueItems"]);
    for (tag, name) in [(21, "maxProperties"), (22, "minProperties")] {
        out.integer(tag, &item[name]);
    }
    out.strings(23, &item["required"]);
    list(&item["enum"]).for_each(|value| out.any(24, value));
    out.string(25, &item["type"]);
    for (tag, name) in [(26, "allOf"), (27, "oneOf"), (28, "anyOf")] {
        list(&item[name]).for_each(|inner| out.nested(tag, |s| schema_or_reference(s, inner)));
    }
    if let Some(inner) = item.get("not") {
        out.nested(29, |s| schema(s, inner));
    }
    if let Some(inner) = item.get("items") {
        out.nested(30, |items| items.nested(1, |s| schema_or_reference(s, inner)));
    }
    if let Some(properties) = item.get("properties") {
        out.nested(31, |all| named(all, 1, properties, schema_or_reference));
    }
    match item.get("additionalProperties") {
        Some(Value::Bool(allowed)) => out.nested(32, |a| a.choice(2, *allowed)),
        Some(inner) => out.nested(32, |a| a.nested(1, |s| schema_or_reference(s, inner))),
        None => {}
    }
    if let Some(default) = item.get("default") {
        out.nested(33, |d| default_type(d, default));
    }
    out.string(34, &item["description"]);
    out.string(35, &item["format"]);
    out.extensions(36, item);
}

/// A `DefaultType`, which has numbers, booleans and texts; what is none of these stands there as the text of its JSON.
fn default_type(out: &mut Message, default: &Value) {
    match default {
        Value::Number(_) => out.double(1, default),
        Value::Bool(value) => out.choice(2, *value),
        Value::String(_) => out.string(3, default),
        other => out.string(3, &Value::String(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_stand_under_their_numbers() {
        let mut out = Message::default();
        schema_or_reference(&mut out, &json!({"type": "string", "maxLength": 3, "maximum": 1.0, "x-k": 1}));
        let expected: &[u8] = &[
            0x0a, 33, // a schema
            0x59, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, // maximum
            0x78, 3, // maxLength
            0xca, 0x01, 6, b's', b't', b'r', b'i', b'n', b'g', // type
            0xa2, 0x02, 10, 0x0a, 3, b'x', b'-', b'k', 0x12, 3, 0x12, 1, b'1', // extension
        ];
        assert_eq!(out.take(), expected);
        let mut out = Message::default();
        schema_or_reference(&mut out, &json!({"$ref": "#/a"}));
        assert_eq!(out.take(), [0x12, 5, 0x0a, 3, b'#', b'/', b'a']);
    }
}
