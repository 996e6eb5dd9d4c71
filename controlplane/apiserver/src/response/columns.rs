//! The column definitions of tables, made once per resource. It must not know any resource's columns by name.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use pagurus_controlplane_schema::openapi::Descriptions as _;
use pagurus_controlplane_schema::table::Resource;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::engine::Target;
use crate::openapi::descriptions::Descriptions;
use crate::resources::columns::{Words, words};

/// Ends the part of a description that is the field's own.
const ENUM_VALUES: &str = "\n\nPossible enum values";

/// The `columnDefinitions` of a resource.
pub(super) fn definitions(target: &Target) -> Arc<Value> {
    static MADE: OnceLock<Mutex<HashMap<String, Arc<Value>>>> = OnceLock::new();
    let made = MADE.get_or_init(Mutex::default);
    let resource = &target.resource;
    if let Some(custom) = target.kind.strategy.custom() {
        return custom.version(&resource.version).column_definitions.clone();
    }
    let key = format!("{}/{}", resource.api_version(), resource.plural);
    if let Some(value) = made.lock().get(&key) {
        return value.clone();
    }
    let value = Arc::new(describe(resource, &target.kind.resource));
    made.lock().insert(key, value.clone());
    value
}

fn describe(resource: &Resource, stored: &Resource) -> Value {
    let descriptions = Descriptions::of_version(&stored.group, &stored.version);
    let text = |column: &str| match words(&stored.group, &stored.plural, column) {
        None => String::new(),
        Some(Words::Text(text)) => text.to_owned(),
        Some(Words::Field(name, field)) => {
            let name = if name.starts_with("io.") { name.to_owned() } else { format!("io.k8s.api.{name}") };
            let text = descriptions.field(&name, field).unwrap_or_default();
            text.split(ENUM_VALUES).next().unwrap_or_default().to_owned()
        }
    };
    let columns = resource.columns.iter().map(|c| {
        json!({
            "name": *c.name, "type": *c.type_, "format": *c.format, "description": text(&c.name), "priority": c.priority,
        })
    });
    columns.collect()
}
