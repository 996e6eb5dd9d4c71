//! VolumeAttachments: a volume that is, or is to be, attached to a node.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::{Fields, same};
use crate::resources::internal::{self, VOLUME_ATTACHMENT_SPEC};
use crate::resources::plain::Plain;
use crate::resources::pod_spec;
use crate::resources::rules::{Errors, IMMUTABLE, names, required};

/// The strategy of `volumeattachments`.
pub(crate) static VOLUME_ATTACHMENTS: Plain = Plain {
    cells: |object, now| {
        vec![
            cells::name(object),
            object.text("spec.attacher").into(),
            object.text("spec.source.persistentVolumeName").into(),
            object.text("spec.nodeName").into(),
            object.flag("status.attached").into(),
            cells::age(object, now),
        ]
    },
    validate: attachment,
    change: |attachment, old| {
        let (spec, was) = (attachment.at("spec"), old.at("spec"));
        if same(spec, was) {
            return Vec::new();
        }
        vec![FieldError::invalid("spec", internal::shown(spec, VOLUME_ATTACHMENT_SPEC), IMMUTABLE)]
    },
    unconditional_update: false,
    ..Plain::NEW
};

fn attachment(attachment: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), attachment.at("spec"));
    let attacher = spec.text("attacher");
    required(&mut errors, &path.child("attacher"), attacher);
    let (of, source) = (path.child("source"), spec.at("source"));
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.some_text("persistentVolumeName"), source.has("inlineVolumeSpec")) {
        (None, false) => errors.push(FieldError::required(&of, one)),
        (Some(_), true) => errors.push(FieldError::forbidden(&of, one)),
        (Some(""), _) => errors.push(FieldError::required(
            of.child("persistentVolumeName"),
            "must specify non empty persistentVolumeName",
        )),
        _ => {}
    }
    let node = spec.text("nodeName");
    names(&mut errors, &path.child("nodeName"), node, labels::dns_subdomain(node));
    if !attacher.is_empty() {
        pod_spec::csi_driver(&mut errors, &path.child("attacher"), attacher);
    }
    if let Some(volume) = source.some_text("persistentVolumeName") {
        names(&mut errors, &of.child("persistentVolumeName"), volume, labels::dns_subdomain(volume));
    }
    errors
}
