//! The kinds of the group `storage.k8s.io`.

mod attachment;
mod csi;

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::cells;
use super::deprecations;
use super::fields::{Fields, default, same};
use super::plain::Plain;
use super::rules::{Errors, immutable_unshown, label_name, names, one_of, optional_one_of, required};

pub(crate) use attachment::VOLUME_ATTACHMENTS;
pub(crate) use csi::{CSI_DRIVERS, CSI_NODES, CSI_STORAGE_CAPACITIES};

/// The strategy of `storageclasses`.
pub(crate) static STORAGE_CLASSES: Plain = Plain {
    default: |object| {
        default(object, "reclaimPolicy", "Delete");
        default(object, "volumeBindingMode", "Immediate");
    },
    cells: class_cells,
    validate: validate_class,
    warnings: class_warnings,
    change: change_class,
    ..Plain::NEW
};

/// The strategy of `volumeattributesclasses`.
pub(crate) static VOLUME_ATTRIBUTES_CLASSES: Plain = Plain {
    cells: |object, now| vec![cells::name(object), object.text("driverName").into(), cells::age(object, now)],
    validate: validate_attributes_class,
    change: change_attributes_class,
    change_alone: true,
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

fn class_warnings(class: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    for (i, term) in class.items("allowedTopologies").iter().enumerate() {
        for (j, entry) in term.items("matchLabelExpressions").iter().enumerate() {
            let path = Path::new("allowedTopologies").index(i).child("matchLabelExpressions").index(j);
            if let Some(text) = deprecations::node_label(entry.text("key")) {
                out.push(format!("{}: {text}", path.child("key")));
            }
        }
    }
    out
}

fn validate_class(class: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let provisioner = class.text("provisioner");
    let path = Path::new("provisioner");
    if required(&mut errors, &path, provisioner) {
        let lower = provisioner.to_lowercase();
        names(&mut errors, &path, &lower, labels::qualified_name(&lower));
    }
    parameters(&mut errors, class);
    let policy = class.some_text("reclaimPolicy").filter(|policy| !policy.is_empty());
    optional_one_of(&mut errors, &Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    one_of(&mut errors, &Path::new("volumeBindingMode"), class.text("volumeBindingMode"), &modes);
    topologies(&mut errors, class.items("allowedTopologies"));
    errors
}

const MOST_PARAMETERS: usize = 512;
const LONGEST_PARAMETERS: usize = 256 * 1024;

fn parameters(errors: &mut Errors, class: &Value) {
    let path = Path::new("parameters");
    let count = class.entries("parameters").count();
    if count > MOST_PARAMETERS {
        errors.push(FieldError::too_long(&path, MOST_PARAMETERS as i64));
        return;
    }
    let mut total = 0;
    for (key, value) in class.entries("parameters") {
        if key.is_empty() {
            errors.push(FieldError::invalid(&path, key, "field can not be empty."));
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > LONGEST_PARAMETERS {
        errors.push(FieldError::too_long(&path, LONGEST_PARAMETERS as i64));
    }
}

fn topologies(errors: &mut Errors, terms: &[Value]) {
    let mut seen: Vec<Vec<(String, Vec<String>)>> = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let list = Path::new("allowedTopologies").index(i).child("matchLabelExpressions");
        let mut expressions: Vec<(String, Vec<String>)> = Vec::new();
        for (j, entry) in term.items("matchLabelExpressions").iter().enumerate() {
            let path = list.index(j);
            let key = entry.text("key");
            let mut values: Vec<String> = Vec::new();
            if entry.items("values").is_empty() {
                errors.push(FieldError::required(path.child("values"), ""));
            }
            for (k, value) in entry.texts("values").enumerate() {
                if values.iter().any(|v| v == value) {
                    errors.push(FieldError::duplicate(path.child("values").index(k), value));
                } else {
                    values.push(value.to_owned());
                }
            }
            label_name(errors, &path.child("key"), key);
            if expressions.iter().any(|(k, _)| k == key) {
                errors.push(FieldError::duplicate(path.child("key"), key));
            }
            values.sort();
            expressions.push((key.to_owned(), values));
        }
        expressions.sort();
        expressions.dedup_by(|a, b| a.0 == b.0);
        if expressions.is_empty() || seen.contains(&expressions) {
            errors.push(FieldError::duplicate(&list, ""));
        }
        seen.push(expressions);
    }
}

fn change_class(class: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        immutable_unshown(&mut errors, &Path::new(field), class.at(field), old.at(field));
    }
    errors
}

fn validate_attributes_class(class: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("driverName");
    let driver = class.text("driverName");
    if required(&mut errors, &path, driver) {
        let lower = driver.to_lowercase();
        names(&mut errors, &path, &lower, labels::qualified_name(&lower));
    }
    if class.entries("parameters").next().is_none() {
        errors.push(FieldError::required("parameters", "must contain at least one key/value pair"));
    }
    parameters(&mut errors, class);
    errors
}

fn change_attributes_class(class: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    for field in ["driverName", "parameters"] {
        if !same(class.at(field), old.at(field)) {
            errors.push(FieldError::forbidden(field, format!("updates to {field} are forbidden.")));
        }
    }
    errors
}
