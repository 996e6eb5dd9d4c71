//! The kinds of the group `storage.k8s.io`.

use jiff::Timestamp;
use pagurus_controlplane_api::labels;
use serde_json::{Value, json};

use super::cells;
use super::fields::{Fields, default, object_at};
use super::plain::Plain;

/// The strategy of `storageclasses`.
pub(crate) static STORAGE_CLASSES: Plain = Plain {
    default: |object| {
        default(object, "reclaimPolicy", "Delete");
        default(object, "volumeBindingMode", "Immediate");
    },
    cells: class_cells,
    ..Plain::NEW
};

/// The strategy of `csidrivers`.
pub(crate) static CSI_DRIVERS: Plain =
    Plain { default: default_driver, cells: driver_cells, unconditional_update: false, ..Plain::NEW };

/// The strategy of `csinodes`.
pub(crate) static CSI_NODES: Plain = Plain {
    cells: |object, now| {
        vec![cells::name(object), json!(object.items("spec.drivers").len()), cells::age(object, now)]
    },
    unconditional_update: false,
    ..Plain::NEW
};

/// The strategy of `csistoragecapacities`.
pub(crate) static CSI_STORAGE_CAPACITIES: Plain = Plain {
    cells: |object, _| vec![cells::name(object), cells::created_at(object)],
    unconditional_update: false,
    ..Plain::NEW
};

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
    unconditional_update: false,
    ..Plain::NEW
};

/// The strategy of `volumeattributesclasses`.
pub(crate) static VOLUME_ATTRIBUTES_CLASSES: Plain = Plain {
    cells: |object, now| vec![cells::name(object), object.text("driverName").into(), cells::age(object, now)],
    ..Plain::NEW
};

fn class_cells(class: &Value, now: Timestamp) -> Vec<Value> {
    let is_default =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
            .iter()
            .any(|key| labels::annotation(class, key) == Some("true"));
    let name = class.text("metadata.name");
    let name = if is_default { format!("{name} (default)") } else { name.to_owned() };
    vec![
        name.into(),
        class.text("provisioner").into(),
        class.text("reclaimPolicy").into(),
        class.text("volumeBindingMode").into(),
        class.flag("allowVolumeExpansion").into(),
        cells::age(class, now),
    ]
}

fn default_driver(driver: &mut Value) {
    let spec = object_at(driver, "spec");
    default(spec, "attachRequired", true);
    default(spec, "podInfoOnMount", false);
    default(spec, "storageCapacity", false);
    default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.items("volumeLifecycleModes").is_empty() {
        spec["volumeLifecycleModes"] = json!(["Persistent"]);
    }
    default(spec, "requiresRepublish", false);
    default(spec, "seLinuxMount", false);
}

fn driver_cells(driver: &Value, now: Timestamp) -> Vec<Value> {
    let flag = |name: &str| Value::from(driver.at("spec").flag(name));
    let audiences: Vec<&str> =
        driver.items("spec.tokenRequests").iter().map(|t| t.text("audience")).collect();
    let tokens = if driver.has("spec.tokenRequests") { audiences.join(",") } else { "<unset>".to_owned() };
    vec![
        cells::name(driver),
        driver.some_flag("spec.attachRequired").unwrap_or(true).into(),
        flag("podInfoOnMount"),
        flag("storageCapacity"),
        tokens.into(),
        flag("requiresRepublish"),
        cells::or_none(&cells::joined(driver, "spec.volumeLifecycleModes")),
        cells::age(driver, now),
    ]
}
