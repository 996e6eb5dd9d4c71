//! PodTemplates.

use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::existing;
use crate::resources::pod_spec::defaults;
use crate::strategy::Strategy;

/// The strategy of `podtemplates`.
pub(crate) struct PodTemplates;

impl Strategy for PodTemplates {
    fn default(&self, object: &mut Value) {
        if let Some(template) = existing(object, "template") {
            defaults::template(template);
        }
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let [names, images] = cells::containers(object, "template.spec.containers");
        vec![cells::name(object), names, images, cells::label_map(object, "template.metadata.labels").into()]
    }
}
