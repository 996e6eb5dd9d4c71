//! RuntimeClasses.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::cells;
use super::deprecations;
use super::fields::{Fields, same};
use super::internal::{TOLERATION, shown};
use super::plain::Plain;
use super::pod_spec;
use super::rules::{Errors, immutable_unshown, labels_map, names, required};

/// The strategy of `runtimeclasses`.
pub(crate) static RUNTIME_CLASSES: Plain = Plain {
    cells: |object, now| vec![cells::name(object), object.text("handler").into(), cells::age(object, now)],
    validate: class,
    warnings: |class, _| {
        let keys =
            class.entries("scheduling.nodeSelector").filter_map(|(key, _)| deprecations::node_label(key));
        keys.map(|text| format!("scheduling.nodeSelector: {text}")).collect()
    },
    change: |class, old| {
        let mut errors = Errors::new();
        immutable_unshown(&mut errors, &Path::new("handler"), class.at("handler"), old.at("handler"));
        errors
    },
    unconditional_update: false,
    ..Plain::NEW
};

fn class(class: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let handler = class.text("handler");
    if required(&mut errors, &Path::new("handler"), handler) {
        names(&mut errors, &Path::new("handler"), handler, labels::in_bytes(labels::dns_label(handler)));
    }
    let path = Path::new("overhead.podFixed");
    for (name, amount) in class.entries("overhead.podFixed") {
        pod_spec::container_resource_name(&mut errors, &path, name);
        pod_spec::quantity(&mut errors, &path.key(name), name, amount);
    }
    let (path, scheduling) = (Path::new("scheduling"), class.at("scheduling"));
    labels_map(&mut errors, &path.child("nodeSelector"), scheduling.at("nodeSelector"));
    let list = path.child("tolerations");
    let tolerations = scheduling.items("tolerations");
    pod_spec::tolerations(&mut errors, &list, tolerations);
    for (i, toleration) in tolerations.iter().enumerate() {
        if tolerations[..i].iter().any(|earlier| same(earlier, toleration)) {
            errors.push(FieldError::duplicate(list.index(i), shown(toleration, TOLERATION)));
        }
    }
    errors
}
