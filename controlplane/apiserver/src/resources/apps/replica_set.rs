//! ReplicaSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::{Fields, default, existing, object_at};
use crate::resources::pod_spec::defaults;
use crate::strategy::{Context, Strategy};

/// The strategy of `replicasets`.
pub(crate) struct ReplicaSets;

impl Strategy for ReplicaSets {
    fn default(&self, object: &mut Value) {
        let spec = object_at(object, "spec");
        default(spec, "replicas", 1);
        if let Some(template) = existing(spec, "template") {
            defaults::template(template);
        }
    }

    fn prepare_create(&self, _context: &Context<'_>, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn counts_generations(&self) -> bool {
        true
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
            cells::selector(object, "spec.selector"),
        ]
    }
}
