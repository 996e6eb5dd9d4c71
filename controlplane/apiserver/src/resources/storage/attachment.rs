//! VolumeAttachments: a volume that is, or is to be, attached to a node.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::{Fields, is_zero, same};
use crate::resources::plain::Plain;
use crate::resources::pod_spec;
use crate::resources::rules::{Errors, IMMUTABLE, names, nothing, required};

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
        vec![FieldError::invalid("spec", nothing(), IMMUTABLE)]
    },
    unconditional_update: false,
    ..Plain::NEW
};

/// Characters of an attacher's name, at most.
const LONGEST_ATTACHER: i64 = 63;

/// A volume that no PersistentVolume stands for: only what a driver needs may be said of it.
fn inline(errors: &mut Errors, path: &Path, spec: &Value) {
    let text = "may not be specified in the context of inline volumes";
    for field in ["claimRef", "capacity", "nodeAffinity"] {
        if !is_zero(spec.at(field)) {
            errors.push(FieldError::forbidden(path.child(field), text));
        }
    }
    let policy = spec.text("persistentVolumeReclaimPolicy");
    if !matches!(policy, "" | "Retain") {
        let text = "may only be Retain in the context of inline volumes";
        errors.push(FieldError::forbidden(path.child("persistentVolumeReclaimPolicy"), text));
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        errors.push(FieldError::forbidden(path.child("storageClassName"), text));
    }
    if spec.has("csi") {
        pod_spec::persistent_source(errors, path, "csi", spec.at("csi"));
    } else {
        let text = "has to be specified in the context of inline volumes";
        errors.push(FieldError::required(path.child("csi"), text));
    }
    if spec.items("accessModes").is_empty() {
        errors.push(FieldError::required(path.child("accessModes"), ""));
    }
}

fn attachment(attachment: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), attachment.at("spec"));
    let attacher = spec.text("attacher");
    let place = path.child("attacher");
    if required(&mut errors, &place, attacher) {
        names(&mut errors, &place, attacher, labels::dns_subdomain_caseless(attacher));
        if attacher.chars().count() as i64 > LONGEST_ATTACHER {
            errors.push(FieldError::too_long_text(&place, LONGEST_ATTACHER));
        }
    }
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
    if source.has("inlineVolumeSpec") {
        inline(&mut errors, &of.child("inlineVolumeSpec"), source.at("inlineVolumeSpec"));
    }
    if let Some(volume) = source.some_text("persistentVolumeName") {
        names(&mut errors, &of.child("persistentVolumeName"), volume, labels::dns_subdomain(volume));
    }
    errors
}
