//! PersistentVolumeClaims.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::persistent_volume::storage_class;
use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, existing, object_at};
use crate::strategy::{Context, Strategy};

/// The strategy of `persistentvolumeclaims`.
pub(crate) struct PersistentVolumeClaims;

/// Fills in a claim, also one that is a template in a StatefulSet.
pub(crate) fn default_claim(claim: &mut Value) {
    default_text(object_at(claim, "status"), "phase", "Pending");
    if let Some(spec) = existing(claim, "spec") {
        default(spec, "volumeMode", "Filesystem");
    }
}

impl Strategy for PersistentVolumeClaims {
    fn default(&self, object: &mut Value) {
        default_claim(object);
    }

    fn prepare_create(&self, _context: &Context<'_>, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let volume = object.text("spec.volumeName");
        let phase = if object.has("metadata.deletionTimestamp") {
            "Terminating"
        } else {
            object.text("status.phase")
        };
        let (modes, capacity) = match volume {
            "" => (String::new(), String::new()),
            _ => {
                let capacity = object.some_text("status.capacity.storage").unwrap_or("0");
                (cells::access_modes(object, "status.accessModes"), capacity.to_owned())
            }
        };
        vec![
            cells::name(object),
            phase.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            storage_class(object).into(),
            cells::or_unset(object.text("spec.volumeAttributesClassName")),
            cells::age(object, now),
            cells::or_unset(object.text("spec.volumeMode")),
        ]
    }
}
