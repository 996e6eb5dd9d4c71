//! The object that messages about a patch show: what the patch left alone stands in the order of the API's definition, objects that it
//! touched have their keys sorted. It must not know how a patch is applied.

use std::fmt::Write as _;

use pagurus_controlplane_api::go;
use serde_json::Value;

use super::go_order;
use crate::table::{FieldKind, Table, TypeId};

/// What a merge or JSON patch has made of an object of a type, as messages show it.
pub fn object(table: &Table, id: TypeId, live: &Value, patched: &Value) -> String {
    let mut out = String::new();
    touched(table, &FieldKind::Object(id), live, patched, &mut out);
    out
}

/// What may have been touched.
fn touched(table: &Table, kind: &FieldKind, live: &Value, patched: &Value, out: &mut String) {
    match (live, patched) {
        (live, patched) if live == patched => untouched(table, kind, patched, out),
        (Value::Object(live), Value::Object(patched)) => {
            let entries = patched.iter().map(|(name, value)| (name.as_str(), value));
            braces(entries, out, |name, value, out| match live.get(name) {
                Some(live) => touched(table, &entry_kind(table, kind, name), live, value, out),
                None => out.push_str(&go::json(value)),
            });
        }
        (Value::Array(live), Value::Array(patched)) => {
            let item = if let FieldKind::List(item) = kind { item } else { kind };
            brackets(patched.iter().enumerate(), out, |(at, value), out| match live.get(at) {
                _ if live.contains(value) => untouched(table, item, value, out),
                Some(live) => touched(table, item, live, value, out),
                None => out.push_str(&go::json(value)),
            });
        }
        (_, patched) => out.push_str(&go::json(patched)),
    }
}

/// What is as it was.
fn untouched(table: &Table, kind: &FieldKind, value: &Value, out: &mut String) {
    match (kind, value) {
        (FieldKind::Object(id), Value::Object(entries)) => {
            let fields = go_order::fields(table.type_(*id));
            let known = fields.into_iter().filter_map(|f| Some((f, entries.get(&*f.json_name)?)));
            braces(
                known.map(|(field, value)| (&*field.json_name, (field, value))),
                out,
                |_, (field, value), out| {
                    untouched(table, &field.kind, value, out);
                },
            );
        }
        (FieldKind::List(item), Value::Array(items)) => {
            brackets(items.iter(), out, |value, out| untouched(table, item, value, out));
        }
        (FieldKind::Map(item), Value::Object(entries)) => {
            let entries = entries.iter().map(|(name, value)| (name.as_str(), value));
            braces(entries, out, |_, value, out| untouched(table, item, value, out));
        }
        _ => out.push_str(&go::json(value)),
    }
}

fn entry_kind(table: &Table, kind: &FieldKind, name: &str) -> FieldKind {
    match kind {
        FieldKind::Object(id) => {
            table.type_(*id).field(name).map_or(FieldKind::Json, |field| field.kind.clone())
        }
        FieldKind::Map(item) => (**item).clone(),
        _ => FieldKind::Json,
    }
}

fn braces<'a, T>(
    entries: impl Iterator<Item = (&'a str, T)>,
    out: &mut String,
    write: impl Fn(&'a str, T, &mut String),
) {
    out.push('{');
    for (at, (name, value)) in entries.enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(out, "{}{}:", if at > 0 { "," } else { "" }, go::json(&Value::from(name)));
        write(name, value, out);
    }
    out.push('}');
}

fn brackets<T>(items: impl Iterator<Item = T>, out: &mut String, write: impl Fn(T, &mut String)) {
    out.push('[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_touched_is_sorted() {
        let table = Table::builtin();
        let id = table.kind_type("apps", "v1", "Deployment").expect("a kind of the table");
        let live = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "labels": {"b": "<", "a": "2"}, "uid": "u"},
            "spec": {"selector": {}, "replicas": 1, "template": {"spec": {"dnsPolicy": "Default", "containers": [
                {"name": "a", "image": "i", "volumeMounts": [{"mountPath": "/v", "name": "v"}]}]}}},
        });
        let mut patched = live.clone();
        patched["spec"]["replicas"] = json!("three");
        assert_eq!(
            object(table, id, &live, &patched),
            concat!(
                r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x","uid":"u","labels":{"a":"2","b":"\u003c"}},"#,
                r#""spec":{"replicas":"three","selector":{},"template":{"spec":{"containers":[{"name":"a","image":"i","#,
                r#""volumeMounts":[{"name":"v","mountPath":"/v"}]}],"dnsPolicy":"Default"}}}}"#
            )
        );
        let mut patched = live.clone();
        patched["spec"]["template"]["spec"]["containers"] =
            json!([{"name": "b", "image": 1}, live["spec"]["template"]["spec"]["containers"][0]]);
        let text = object(table, id, &live, &patched);
        assert!(
            text.contains(
                r#""template":{"spec":{"containers":[{"image":1,"name":"b"},{"name":"a","image":"i","#
            ),
            "{text}"
        );
    }
}
