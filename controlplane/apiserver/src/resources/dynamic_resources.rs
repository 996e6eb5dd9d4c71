//! The kinds of the group `resource.k8s.io`: devices and claims to them.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::{Value, json};

use super::cells;
use super::fields::{Fields, default, default_text, existing, items_mut};
use super::plain::Plain;
use super::rules::{Errors, immutable, immutable_unshown, names};

mod devices;
mod selector;
mod slice;

/// The strategy of `resourceclaims`.
pub(crate) static CLAIMS: Plain = Plain {
    default: |object| default_requests(object, "spec.devices.requests"),
    cells: |object, now| vec![cells::name(object), state(object).into(), cells::age(object, now)],
    validate: |claim| validate_claim(&Path::new("spec"), claim.at("spec")),
    change: change_claim,
    change_alone: true,
    status_alone: true,
    ..Plain::NEW
};

/// The strategy of `resourceclaimtemplates`.
pub(crate) static CLAIM_TEMPLATES: Plain = Plain {
    default: |object| default_requests(object, "spec.spec.devices.requests"),
    validate: |template| validate_claim(&Path::new("spec").child("spec"), template.at("spec.spec")),
    cells: |object, now| vec![cells::name(object), cells::age(object, now)],
    change: change_claim,
    change_alone: true,
    ..Plain::NEW
};

/// The strategy of `deviceclasses`.
pub(crate) static DEVICE_CLASSES: Plain = Plain {
    cells: |object, now| vec![cells::name(object), cells::age(object, now)],
    validate: validate_class,
    generations: true,
    ..Plain::NEW
};

/// The strategy of `devicetaintrules`.
pub(crate) static DEVICE_TAINT_RULES: Plain = Plain {
    cells: |object, now| {
        let taint = object.at("spec.taint");
        vec![
            cells::name(object),
            taint.text("key").into(),
            taint.text("value").into(),
            taint.text("effect").into(),
            cells::since(object, "spec.taint.timeAdded", now).into(),
            cells::age(object, now),
        ]
    },
    validate: validate_taint_rule,
    generations: true,
    ..Plain::NEW
};

/// The strategy of `resourceslices`.
pub(crate) static SLICES: Plain = Plain {
    cells: |object, now| {
        vec![
            cells::name(object),
            object.text("spec.nodeName").into(),
            object.text("spec.driver").into(),
            object.text("spec.pool.name").into(),
            cells::age(object, now),
        ]
    },
    validate: slice::validate,
    change: change_slice,
    generations: true,
    fields: &[named("spec.nodeName"), named("spec.driver")],
    ..Plain::NEW
};

fn default_requests(object: &mut Value, field: &str) {
    for request in items_mut(object, field) {
        if let Some(exactly) = existing(request, "exactly") {
            default_request(exactly);
        }
        for alternative in items_mut(request, "firstAvailable") {
            default_request(alternative);
        }
    }
}

fn default_request(request: &mut Value) {
    default_text(request, "allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" {
        default(request, "count", json!(1));
    }
    for toleration in items_mut(request, "tolerations") {
        default(toleration, "operator", "Equal");
    }
}

fn state(claim: &Value) -> String {
    let mut states = Vec::new();
    let deleted = claim.has("metadata.deletionTimestamp");
    if deleted {
        states.push("deleted");
    }
    if claim.has("status.allocation") {
        states.push("allocated");
        if !claim.items("status.reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    states.join(",")
}

fn validate_claim(path: &Path, spec: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    devices::claim(&mut errors, &path.child("devices"), spec.at("devices"));
    errors
}

fn validate_taint_rule(rule: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), rule.at("spec"));
    let (of, selector) = (path.child("deviceSelector"), spec.at("deviceSelector"));
    if let Some(name) = selector.some_text("driver") {
        devices::driver(&mut errors, &of.child("driver"), name);
    }
    if let Some(name) = selector.some_text("pool") {
        devices::pool(&mut errors, &of.child("pool"), name);
    }
    if let Some(name) = selector.some_text("device") {
        names(&mut errors, &of.child("device"), name, labels::dns_label(name));
    }
    devices::taint(&mut errors, &path.child("taint"), spec.at("taint"));
    errors
}

fn validate_class(class: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), class.at("spec"));
    devices::selectors(&mut errors, &path.child("selectors"), spec.items("selectors"));
    devices::configurations(&mut errors, &path.child("config"), spec.items("config"));
    if let Some(name) = spec.some_text("extendedResourceName") {
        names(&mut errors, &path.child("extendedResourceName"), name, labels::qualified_name(name));
    }
    errors
}

fn change_claim(claim: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    immutable_unshown(&mut errors, &Path::new("spec"), claim.at("spec"), old.at("spec"));
    errors
}

fn change_slice(slice: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    for field in ["driver", "pool.name", "nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"] {
        immutable(&mut errors, &path.child(field), slice.at("spec").at(field), old.at("spec").at(field));
    }
    errors
}
use crate::registry::named;
