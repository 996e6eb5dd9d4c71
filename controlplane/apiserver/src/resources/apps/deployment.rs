//! Deployments.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, existing, object_at};
use crate::resources::pod_spec::defaults;
use crate::strategy::Strategy;

/// The strategy of `deployments`.
pub(crate) struct Deployments;

impl Strategy for Deployments {
    fn default(&self, object: &mut Value) {
        let spec = object_at(object, "spec");
        default(spec, "replicas", 1);
        default(spec, "revisionHistoryLimit", 10);
        default(spec, "progressDeadlineSeconds", 600);
        let strategy = object_at(spec, "strategy");
        default_text(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate" {
            let rolling = object_at(strategy, "rollingUpdate");
            default(rolling, "maxUnavailable", "25%");
            default(rolling, "maxSurge", "25%");
        }
        if let Some(template) = existing(spec, "template") {
            defaults::template(template);
        }
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = cells::containers(object, "spec.template.spec.containers");
        vec![
            cells::name(object),
            format!("{}/{}", object.int("status.readyReplicas"), object.int("spec.replicas")).into(),
            json!(object.int("status.updatedReplicas")),
            json!(object.int("status.availableReplicas")),
            cells::age(object, now),
            names,
            images,
            cells::selector(object, "spec.selector"),
        ]
    }
}
