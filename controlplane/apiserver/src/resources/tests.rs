//! Every strategy on random objects that fit their type and mean nothing: whatever comes out, nothing may panic.

mod rows;

use std::sync::Arc;

use pagurus_controlplane_api::ages::{Aged, LATER};
use pagurus_controlplane_api::time;
use pagurus_controlplane_schema::table::{Field, FieldKind, Resource, Table, TypeId};
use pagurus_controlplane_schema::{defaults, normalize};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::strategy;
use crate::allocate::{Allocators, ClusterIps, NodePorts};
use crate::request::UserInfo;
use crate::strategy::Context;

const TEXTS: [&str; 16] = [
    "",
    "a",
    "Always",
    "RollingUpdate",
    "ClusterIP",
    "10.0.0.1",
    "fd00::1/64",
    "10.96.0.7",
    "TCP",
    "-",
    "\u{e4}\u{1f980}",
    "a/b/c",
    "@every 1\u{b5}",
    "*/5 * * * *",
    "{\"a\":",
    "%%..//\\\"\n\0",
];
const QUANTITIES: [&str; 6] = ["0", "-1", "100m", "9223372036854775807", "123456789012E12", "1n"];

/// Makes objects of the table's types.
struct Maker {
    state: u64,
    density: u64,
    /// How many more values the object may get: types that hold themselves have no end.
    left: u64,
}

/// As large as objects that people write, and far beyond most.
const VALUES: u64 = 3000;

impl Maker {
    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn object(&mut self, id: TypeId, depth: u64) -> Value {
        let mut out = Map::new();
        for field in &Table::builtin().type_(id).fields {
            if depth < 14 && self.left > 0 && self.below(100) < self.density {
                self.left -= 1;
                out.insert(field.json_name.to_string(), self.field(field, depth));
            }
        }
        Value::Object(out)
    }

    /// Enumerated fields often get one of their values, so that more is reached behind them.
    fn field(&mut self, field: &Field, depth: u64) -> Value {
        match (&field.kind, field.enum_values.len()) {
            (FieldKind::String, 1..) if self.below(4) > 0 => {
                let at = self.below(field.enum_values.len() as u64) as usize;
                json!(*field.enum_values[at])
            }
            (kind, _) => self.value(kind, depth),
        }
    }

    fn value(&mut self, kind: &FieldKind, depth: u64) -> Value {
        match kind {
            FieldKind::String => json!(self.pick(&TEXTS)),
            FieldKind::Int32 => json!(self.pick(&[0, 1, 80, -7, i32::MIN, i32::MAX])),
            FieldKind::Int64 => json!(self.pick(&[0, 1, 30, -7, i64::MIN, i64::MAX])),
            FieldKind::Double => json!(self.pick(&[0.0, -2.25, 1e300])),
            FieldKind::Bool => json!(self.below(2) == 0),
            FieldKind::Quantity => json!(self.pick(&QUANTITIES)),
            FieldKind::IntOrString if self.below(2) == 0 => {
                json!(self.pick(&["25%", "-1%", "http", "999999999999999%"]))
            }
            FieldKind::IntOrString => json!(self.pick(&[0, 80, -7, i32::MAX])),
            FieldKind::Time => json!(self.pick(&["2025-01-02T03:04:05Z", "9999-12-31T23:59:59Z"])),
            FieldKind::MicroTime => {
                json!(self.pick(&["2025-01-02T03:04:05.000006Z", "0001-01-01T00:00:00.000000Z"]))
            }
            FieldKind::Duration => json!("1m0s"),
            FieldKind::Bytes => json!(self.pick(&["", "YQ==", "eyJhIjo="])),
            FieldKind::Raw => self.pick(&["{}", "{\"a\":[1,null]}"]).parse().unwrap_or_default(),
            FieldKind::Json => {
                self.pick(&["null", "[1]", "{\"a\":null}", "\"x\""]).parse().unwrap_or_default()
            }
            FieldKind::Either(id) if self.below(2) == 0 => self.object(*id, depth + 1),
            FieldKind::Either(_) => json!(true),
            FieldKind::Object(id) => self.object(*id, depth + 1),
            FieldKind::List(item) => (0..self.below(4)).map(|_| self.value(item, depth + 1)).collect(),
            FieldKind::Map(item) => {
                let keys: Vec<&str> = (0..self.below(4)).map(|_| self.pick(&TEXTS)).collect();
                Value::Object(
                    keys.into_iter().map(|key| (key.to_owned(), self.value(item, depth + 1))).collect(),
                )
            }
        }
    }
}

/// Does to an object what a create does, and to the next what an update does.
fn run(resource: &Resource, make: &mut Maker) {
    let (table, rules) = (Table::builtin(), strategy(&resource.group, &resource.plural));
    let user = UserInfo::authenticated("u", []);
    let context = Context { resource, user: &user, now: time::now() };
    let ranges = ["10.96.0.0/24".parse().expect("range"), "fd00::/120".parse().expect("range")];
    let allocators = Allocators {
        cluster_ips: Arc::new(ClusterIps::new(&ranges)),
        node_ports: Arc::new(NodePorts::new(30000..=30003)),
    };
    let mut made = || {
        make.left = VALUES;
        let mut object = make.object(resource.type_id, 0);
        defaults::apply(table, resource.type_id, &mut object);
        rules.default(&mut object);
        normalize(table, resource.type_id, &mut object);
        object
    };
    let (mut old, mut new) = (made(), made());
    rules.prepare_create(&context, &mut old);
    normalize(table, resource.type_id, &mut old);
    rules.validate(&old);
    rules.warnings(&old, None);
    let cells = |now| Value::Array(rules.cells(&old, now)).to_string();
    let mut later = Vec::new();
    Aged::of_json(&cells(LATER)).write(context.now, |bytes| later.extend_from_slice(bytes));
    assert_eq!(String::from_utf8(later).expect("JSON"), cells(context.now), "{}", resource.kind);
    for field in rules.selectable_fields() {
        rules.field(&old, field);
    }
    rules.graceful_delete(&old, None);
    rules.holds_deletion(&old);
    if rules.reserves() {
        rules.restore(&allocators, &old);
        drop(rules.reserve(&allocators, &mut new, Some(&old)));
        rules.release(&allocators, &old);
    }
    for sub in &resource.subresources {
        let mut through = new.clone();
        rules.prepare_subresource_update(&context, &sub.name, &mut through, &old);
        rules.validate_subresource_update(&sub.name, &through, &old);
    }
    rules.prepare_update(&context, &mut new, &old);
    normalize(table, resource.type_id, &mut new);
    rules.validate_update(&new, &old);
    rules.warnings(&new, Some(&old));
    rules.generation_changes(resource, &new, &old);
    rules.mark_deleted(&mut new);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn nothing_panics(seed in any::<u64>(), density in 5u64..90) {
        for resource in Table::builtin().resources() {
            run(resource, &mut Maker { state: seed | 1, density, left: VALUES });
        }
    }
}
