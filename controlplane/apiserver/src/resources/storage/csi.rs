//! CSIDrivers, CSINodes and CSIStorageCapacities: what storage drivers say about themselves.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::deprecations;
use crate::resources::fields::{Fields, default, object_at, same};
use crate::resources::internal::{self, CSI_NODE_DRIVER};
use crate::resources::plain::Plain;
use crate::resources::pod_spec;
use crate::resources::rules::{
    Errors, immutable, label_name, label_selector, names, non_negative, one_of, required,
};

/// The strategy of `csidrivers`.
pub(crate) static CSI_DRIVERS: Plain = Plain {
    default: default_driver,
    cells: driver_cells,
    validate: driver,
    change: change_driver,
    warnings: driver_warnings,
    unconditional_update: false,
    ..Plain::NEW
};

/// The strategy of `csinodes`.
pub(crate) static CSI_NODES: Plain = Plain {
    cells: |object, now| {
        vec![cells::name(object), json!(object.items("spec.drivers").len()), cells::age(object, now)]
    },
    validate: node,
    change: change_node,
    unconditional_update: false,
    ..Plain::NEW
};

/// The strategy of `csistoragecapacities`.
pub(crate) static CSI_STORAGE_CAPACITIES: Plain = Plain {
    cells: |object, _| vec![cells::name(object), cells::created_at(object)],
    validate: capacity,
    warnings: |capacity, _| {
        let mut out = Vec::new();
        deprecations::node_expressions(
            &mut out,
            &Path::new("nodeTopology"),
            capacity.at("nodeTopology"),
            false,
        );
        for (key, _) in capacity.entries("nodeTopology.matchLabels") {
            if let Some(text) = deprecations::node_label(key) {
                out.push(format!("nodeTopology.matchLabels.{key}: {text}"));
            }
        }
        out
    },
    change: |capacity, old| {
        let mut errors = Errors::new();
        for field in ["nodeTopology", "storageClassName"] {
            immutable(&mut errors, &Path::new(field), capacity.at(field), old.at(field));
        }
        errors
    },
    unconditional_update: false,
    ..Plain::NEW
};

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

/// The shortest life of a token, in seconds.
const SHORTEST_TOKEN: i64 = 600;
const LONGEST_TOKEN: i64 = 1 << 32;
const SHORTEST_PERIOD: i64 = 10;

fn driver(driver: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), driver.at("spec"));
    let policies = ["ReadWriteOnceWithFSType", "File", "None"];
    one_of(&mut errors, &path.child("fsGroupPolicy"), spec.text("fsGroupPolicy"), &policies);
    let mut audiences: Vec<&str> = Vec::new();
    for (i, request) in spec.items("tokenRequests").iter().enumerate() {
        let path = path.child("tokenRequests").index(i);
        let audience = request.text("audience");
        if audiences.contains(&audience) {
            errors.push(FieldError::duplicate(path.child("audience"), audience));
            continue;
        }
        audiences.push(audience);
        let Some(seconds) = request.some_int("expirationSeconds") else { continue };
        let path = path.child("expirationSeconds");
        if seconds < SHORTEST_TOKEN {
            let text = "may not specify a duration less than 10 minutes";
            errors.push(FieldError::invalid(&path, seconds, text));
        }
        if seconds > LONGEST_TOKEN {
            let text = "may not specify a duration larger than 2^32 seconds";
            errors.push(FieldError::invalid(&path, seconds, text));
        }
    }
    for mode in spec.texts("volumeLifecycleModes") {
        one_of(&mut errors, &path.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
    }
    if let Some(seconds) =
        spec.some_int("nodeAllocatableUpdatePeriodSeconds").filter(|s| *s < SHORTEST_PERIOD)
    {
        let path = path.child("nodeAllocatableUpdatePeriodSeconds");
        errors.push(FieldError::invalid(path, seconds, "must be greater than or equal to 10 seconds"));
    }
    errors
}

fn change_driver(driver: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    // The path says "attached", the field does not.
    for (path, field) in [
        ("spec.attachedRequired", "spec.attachRequired"),
        ("spec.volumeLifecycleModes", "spec.volumeLifecycleModes"),
    ] {
        immutable(&mut errors, &Path::new(path), driver.at(field), old.at(field));
    }
    errors
}

fn driver_warnings(driver: &Value, _old: Option<&Value>) -> Vec<String> {
    let spec = driver.at("spec");
    if spec.items("tokenRequests").is_empty() || spec.has("serviceAccountTokenInSecrets") {
        return Vec::new();
    }
    let text = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, \
        set to true to prevent possible logging of tokens in volume attributes";
    vec![text.to_owned()]
}

const LONGEST_NODE_ID: usize = 256;

fn node(node: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let mut seen: Vec<&str> = Vec::new();
    for (i, driver) in node.items("spec.drivers").iter().enumerate() {
        let path = Path::new("spec.drivers").index(i);
        let name = driver.text("name");
        pod_spec::csi_driver(&mut errors, &path.child("name"), name);
        let id = driver.text("nodeID");
        required(&mut errors, &path.child("nodeID"), id);
        if id.len() > LONGEST_NODE_ID {
            let text = format!("must be {LONGEST_NODE_ID} characters or less");
            errors.push(FieldError::invalid(path.child("nodeID"), id, text));
        }
        if let Some(count) = driver.some_int("allocatable.count") {
            non_negative(&mut errors, &path.child("allocatable.count"), count);
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        seen.push(name);
        topology_keys(&mut errors, &path, driver);
    }
    errors
}

fn topology_keys(errors: &mut Errors, path: &Path, driver: &Value) {
    let mut seen: Vec<&str> = Vec::new();
    for key in driver.texts("topologyKeys") {
        required(errors, path, key);
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(path, key));
        }
        seen.push(key);
        label_name(errors, path, key);
    }
}

/// A driver's entry may come and go, but not change.
fn change_node(node: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    for was in old.items("spec.drivers") {
        let entry = node.items("spec.drivers").iter().find(|d| d.text("name") == was.text("name"));
        if let Some(entry) = entry.filter(|entry| !same(entry, was)) {
            let shown = internal::shown(entry, CSI_NODE_DRIVER);
            errors.push(FieldError::invalid("CSINodeDriver", shown, "field is immutable"));
        }
    }
    errors
}

fn capacity(capacity: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    label_selector(&mut errors, &Path::new("nodeTopology"), capacity.at("nodeTopology"), false);
    let class = capacity.text("storageClassName");
    names(&mut errors, &Path::new("storageClassName"), class, labels::dns_subdomain(class));
    for field in ["capacity", "maximumVolumeSize"] {
        if capacity.has(field) {
            pod_spec::quantity(&mut errors, &Path::new(field), "storage", capacity.at(field));
        }
    }
    errors
}
