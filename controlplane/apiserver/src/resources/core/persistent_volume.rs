//! PersistentVolumes.

use jiff::Timestamp;
use pagurus_controlplane_api::time;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, object_at};
use crate::resources::pod_spec::defaults;
use crate::strategy::{Context, Strategy, keep_all_but};

/// The strategy of `persistentvolumes`.
pub(crate) struct PersistentVolumes;

impl Strategy for PersistentVolumes {
    fn default(&self, object: &mut Value) {
        default_text(object_at(object, "status"), "phase", "Pending");
        let spec = object_at(object, "spec");
        default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        default(spec, "volumeMode", "Filesystem");
        defaults::source(spec);
    }

    fn prepare_create(&self, context: &Context<'_>, object: &mut Value) {
        object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": time::format(context.now)});
    }

    fn prepare_subresource_update(&self, context: &Context<'_>, sub: &str, object: &mut Value, old: &Value) {
        keep_all_but(object, old, &["metadata", sub]);
        if object.text("status.phase") != old.text("status.phase") {
            object_at(object, "status")["lastPhaseTransitionTime"] = time::format(context.now).into();
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let claim = match object.text("spec.claimRef.name") {
            "" => String::new(),
            name => format!("{}/{name}", object.text("spec.claimRef.namespace")),
        };
        let phase = if object.has("metadata.deletionTimestamp") {
            "Terminating"
        } else {
            object.text("status.phase")
        };
        vec![
            cells::name(object),
            object.text("spec.capacity.storage").into(),
            cells::access_modes(object, "spec.accessModes").into(),
            object.text("spec.persistentVolumeReclaimPolicy").into(),
            phase.into(),
            claim.into(),
            storage_class(object).into(),
            cells::or_unset(object.text("spec.volumeAttributesClassName")),
            object.text("status.reason").into(),
            cells::age(object, now),
            cells::or_unset(object.text("spec.volumeMode")),
        ]
    }
}

/// The class, in the annotation that came before the field or in the field.
pub(super) fn storage_class(object: &Value) -> &str {
    pagurus_controlplane_api::labels::annotation(object, "volume.beta.kubernetes.io/storage-class")
        .unwrap_or_else(|| object.text("spec.storageClassName"))
}
