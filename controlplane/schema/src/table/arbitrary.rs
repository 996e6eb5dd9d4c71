//! Random well-typed objects for property tests. It must not make objects that make sense, only ones that fit.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Field, FieldKind, Table, TypeId};

/// Any well-typed object of the type: normal quantities and times, keyed lists without doubles.
pub(crate) fn object(id: TypeId) -> impl Strategy<Value = Value> {
    (any::<u64>(), 0u64..60).prop_map(move |(seed, density)| {
        let mut maker = Maker { table: Table::builtin(), state: seed | 1, density };
        Value::Object(maker.object(id, 0))
    })
}

/// Any object of any resource, with its type.
pub(crate) fn resource() -> impl Strategy<Value = (TypeId, Value)> {
    let resources = Table::builtin().resources();
    (0..resources.len()).prop_flat_map(move |at| {
        let id = resources[at].type_id;
        object(id).prop_map(move |value| (id, value))
    })
}

struct Maker {
    table: &'static Table,
    state: u64,
    /// Percent of the fields that are filled in.
    density: u64,
}

impl Maker {
    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }

    fn object(&mut self, id: TypeId, depth: u64) -> Map<String, Value> {
        let mut out = Map::new();
        for field in &self.table.type_(id).fields {
            if depth < 12 && self.below(100) < self.density / (1 + depth / 3) {
                out.insert(field.json_name.to_string(), self.field(field, depth));
            }
        }
        out
    }

    fn field(&mut self, field: &Field, depth: u64) -> Value {
        let FieldKind::List(item) = &field.kind else { return self.value(&field.kind, depth) };
        let keys: Vec<&str> = field.map_keys.iter().chain(&field.merge_key).map(|key| &**key).collect();
        let mut items: Vec<Value> = Vec::new();
        for at in 0..self.below(4) {
            let mut value = self.value(item, depth + 1);
            if let (Value::Object(entries), FieldKind::Object(id)) = (&mut value, &**item) {
                for key in &keys {
                    let kind = self.table.type_(*id).field(key).map(|f| &f.kind);
                    let unique = if matches!(kind, Some(FieldKind::String)) {
                        json!(format!("k{at}"))
                    } else {
                        json!(at + 1)
                    };
                    entries.insert((*key).to_owned(), unique);
                }
            }
            if value.is_object() || !items.contains(&value) {
                items.push(value);
            }
        }
        Value::Array(items)
    }

    fn value(&mut self, kind: &FieldKind, depth: u64) -> Value {
        let choice = self.below(4) as usize;
        match kind {
            FieldKind::String => json!(["", "a", "b-1", "ü \"x\"\n"][choice]),
            FieldKind::Int32 | FieldKind::Int64 => json!([0, 1, -7, i32::MAX][choice]),
            FieldKind::Double => json!([0.0, 1.5, -2.25, 1e6][choice]),
            FieldKind::Bool => json!(choice < 2),
            FieldKind::Quantity => json!(["0", "100m", "1Gi", "3"][choice]),
            FieldKind::IntOrString => [json!(0), json!(80), json!("25%"), json!("http")][choice].clone(),
            FieldKind::Time => json!(["2025-01-02T03:04:05Z", "1999-12-31T23:59:59Z"][choice % 2]),
            FieldKind::MicroTime => {
                json!(["2025-01-02T03:04:05.000006Z", "1999-12-31T23:59:59.999999Z"][choice % 2])
            }
            FieldKind::Duration => json!("1m0s"),
            FieldKind::Bytes => json!(["", "YQ==", "YWI=", "YWJj"][choice]),
            FieldKind::Raw => {
                [json!({}), json!({"a": [1, null]}), json!({"kind": "X"}), json!({"f:a": {}})][choice].clone()
            }
            FieldKind::Json => [json!(null), json!([1]), json!({"a": null}), json!("x")][choice].clone(),
            FieldKind::Either(id) if choice < 2 => Value::Object(self.object(*id, depth + 1)),
            FieldKind::Either(_) => json!(choice == 2),
            FieldKind::Object(id) => Value::Object(self.object(*id, depth + 1)),
            FieldKind::List(item) => (0..self.below(3)).map(|_| self.value(item, depth + 1)).collect(),
            FieldKind::Map(value) => {
                let keys = (0..self.below(3)).map(|at| format!("k{at}")).collect::<Vec<_>>();
                Value::Object(keys.into_iter().map(|key| (key, self.value(value, depth + 1))).collect())
            }
        }
    }
}
