//! ReplicationControllers.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::{Fields, default, existing, object_at};
use crate::resources::pod_spec::defaults;
use crate::strategy::{Context, Strategy};

/// The strategy of `replicationcontrollers`.
pub(crate) struct ReplicationControllers;

impl Strategy for ReplicationControllers {
    fn default(&self, object: &mut Value) {
        default(object_at(object, "spec"), "replicas", 1);
        let labels = object.at("spec.template.metadata.labels").clone();
        if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
            if object.entries("spec.selector").next().is_none() {
                object_at(object, "spec")["selector"] = labels.clone();
            }
            if object.entries("metadata.labels").next().is_none() {
                object_at(object, "metadata")["labels"] = labels;
            }
        }
        if let Some(template) = existing(object, "spec.template") {
            defaults::template(template);
        }
    }

    fn prepare_create(&self, _context: &Context<'_>, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        Some(object.int(name).to_string())
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = cells::containers(object, "spec.template.spec.containers");
        vec![
            cells::name(object),
            json!(object.int("spec.replicas")),
            json!(object.int("status.replicas")),
            json!(object.int("status.readyReplicas")),
            cells::age(object, now),
            names,
            images,
            cells::label_map(object, "spec.selector").into(),
        ]
    }
}
