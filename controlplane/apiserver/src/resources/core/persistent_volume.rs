//! PersistentVolumes.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::quantity::Quantity;
use pagurus_controlplane_api::time;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, object_at};
use crate::resources::pod_spec::{self, defaults};
use crate::resources::rules::{Errors, names, nothing, one_of, required};
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

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        volume(&mut errors, &Path::new("spec"), object.at("spec"));
        errors
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

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// Fields of the specification that are not the source of the volume.
const PLAIN: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn volume(errors: &mut Errors, path: &Path, spec: &Value) {
    let modes = path.child("accessModes");
    if spec.items("accessModes").is_empty() {
        errors.push(FieldError::required(&modes, ""));
    }
    for mode in spec.texts("accessModes") {
        one_of(errors, &modes, mode, &MODES);
    }
    if spec.texts("accessModes").any(|m| m == "ReadWriteOncePod")
        && spec.texts("accessModes").any(|m| m != "ReadWriteOncePod")
    {
        let text = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(&modes, text));
    }
    capacity(errors, &path.child("capacity"), spec);
    source(errors, path, spec);
    let policy = spec.text("persistentVolumeReclaimPolicy");
    let of = path.child("persistentVolumeReclaimPolicy");
    one_of(errors, &of, policy, &["Delete", "Recycle", "Retain"]);
    if policy == "Recycle" && spec.text("hostPath.path") == "/" {
        errors.push(FieldError::forbidden(of, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        names(errors, &path.child("storageClassName"), class, labels::dns_subdomain(class));
    }
    if let Some(mode) = spec.some_text("volumeMode") {
        one_of(errors, &path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    if spec.has("nodeAffinity") {
        let path = path.child("nodeAffinity.required");
        match spec.at("nodeAffinity.required") {
            Value::Null => errors.push(FieldError::required(path, "must specify required node constraints")),
            selector => pod_spec::node_selector(errors, &path, selector),
        }
    }
}

fn capacity(errors: &mut Errors, path: &Path, spec: &Value) {
    let count = spec.entries("capacity").count();
    if count == 0 {
        errors.push(FieldError::required(path, ""));
    }
    if count != 1 || spec.at("capacity").get("storage").is_none() {
        let value = if spec.has("capacity") { spec.at("capacity").clone().into() } else { nothing() };
        errors.push(FieldError::not_supported(path, value, &["storage"]));
    }
    for (name, amount) in spec.entries("capacity") {
        let quantity = Quantity::from_json(amount).unwrap_or_default();
        if name == "storage" && quantity.sign() <= 0 {
            let path = path.key(name);
            errors.push(FieldError::invalid(path, quantity.to_string(), "must be greater than zero"));
        }
    }
}

fn source(errors: &mut Errors, path: &Path, spec: &Value) {
    let mut first = true;
    let sources =
        spec.as_object().into_iter().flatten().filter(|(k, v)| !PLAIN.contains(&k.as_str()) && !v.is_null());
    for (kind, source) in sources {
        let of = path.child(kind);
        if !std::mem::take(&mut first) {
            errors.push(FieldError::forbidden(of, "may not specify more than 1 volume type"));
            continue;
        }
        match kind.as_str() {
            "hostPath" => pod_spec::host_path(errors, &of, source),
            "csi" => {
                pod_spec::csi_driver(errors, &of.child("driver"), source.text("driver"));
                required(errors, &of.child("volumeHandle"), source.text("volumeHandle"));
            }
            "local" => {
                required(errors, &of.child("path"), source.text("path"));
                if !spec.has("nodeAffinity") {
                    let text = "Local volume requires node affinity";
                    errors.push(FieldError::required(path.child("nodeAffinity"), text));
                }
            }
            "nfs" => {
                required(errors, &of.child("server"), source.text("server"));
                required(errors, &of.child("path"), source.text("path"));
            }
            _ => {}
        }
    }
    if first {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}
