//! PodTemplates.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::{Fields, object_at};
use crate::resources::pod_spec::{self, defaults, warnings};
use crate::strategy::Strategy;

/// The strategy of `podtemplates`.
pub(crate) struct PodTemplates;

impl Strategy for PodTemplates {
    fn default(&self, object: &mut Value) {
        defaults::template(object_at(object, "template"));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        pod_spec::template(&mut errors, &Path::new("template"), object.at("template"));
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::changed_template(object, old, "template")
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let [names, images] = cells::containers(object, "template.spec.containers");
        vec![cells::name(object), names, images, cells::label_map(object, "template.metadata.labels").into()]
    }
}
