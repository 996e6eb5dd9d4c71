//! DaemonSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, existing, object_at};
use crate::resources::pod_spec::defaults;
use crate::strategy::Strategy;

/// The strategy of `daemonsets`.
pub(crate) struct DaemonSets;

impl Strategy for DaemonSets {
    fn default(&self, object: &mut Value) {
        let spec = object_at(object, "spec");
        default(spec, "revisionHistoryLimit", 10);
        let strategy = object_at(spec, "updateStrategy");
        default_text(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate" {
            let rolling = object_at(strategy, "rollingUpdate");
            default(rolling, "maxUnavailable", 1);
            default(rolling, "maxSurge", 0);
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
        let number = |name: &str| json!(object.at("status").int(name));
        vec![
            cells::name(object),
            number("desiredNumberScheduled"),
            number("currentNumberScheduled"),
            number("numberReady"),
            number("updatedNumberScheduled"),
            number("numberAvailable"),
            cells::label_map(object, "spec.template.spec.nodeSelector").into(),
            cells::age(object, now),
            names,
            images,
            cells::selector(object, "spec.selector"),
        ]
    }
}
