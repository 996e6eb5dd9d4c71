//! ControllerRevisions: frozen states of StatefulSets and DaemonSets.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::owner;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, immutable, non_negative};
use crate::strategy::Strategy;

/// The strategy of `controllerrevisions`.
pub(crate) struct ControllerRevisions;

impl Strategy for ControllerRevisions {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if !object.has("data") {
            errors.push(FieldError::required("data", "data is mandatory"));
        }
        non_negative(&mut errors, &Path::new("revision"), object.int("revision"));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate(object);
        immutable(&mut errors, &Path::new("data"), object.at("data"), old.at("data"));
        errors
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let controller = owner::controller_of(object).map_or(cells::NONE.to_owned(), |owner| {
            let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
            let kind = pagurus_controlplane_api::key::qualified(&owner.kind.to_lowercase(), group);
            format!("{kind}/{}", owner.name)
        });
        vec![cells::name(object), controller.into(), json!(object.int("revision")), cells::age(object, now)]
    }
}
