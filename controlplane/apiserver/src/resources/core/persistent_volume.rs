//! PersistentVolumes.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::quantity::Quantity;
use pagurus_controlplane_api::time;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, items_mut, object_at, same, set};
use crate::resources::internal::volume::{VOLUME_NODE_AFFINITY, VOLUME_SOURCE};
use crate::resources::pod_spec::{self, defaults, warnings};
use crate::resources::rules::{Errors, IMMUTABLE, immutable, names, nothing, one_of};
use crate::resources::{internal, line_diff};
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

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate(object);
        change(&mut errors, object.at("spec"), old.at("spec"));
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::persistent_volume(object)
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
    for field in ["storageClassName", "volumeAttributesClassName"] {
        let class = spec.text(field);
        if !class.is_empty() {
            names(errors, &path.child(field), class, labels::dns_subdomain(class));
        }
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

/// Labels by which volumes once named their place, and what they are called now.
const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

/// A node affinity whose old labels are called what they are called in another one.
fn renamed(affinity: &Value, like: &Value) -> Value {
    let keys = |term: &Value| -> Vec<String> {
        term.items("matchExpressions").iter().map(|e| e.text("key").to_owned()).collect()
    };
    let mut out = affinity.clone();
    let wanted: Vec<Vec<String>> = like.items("required.nodeSelectorTerms").iter().map(keys).collect();
    for (term, wanted) in items_mut(&mut out, "required.nodeSelectorTerms").zip(wanted) {
        for (entry, wanted) in items_mut(term, "matchExpressions").zip(wanted) {
            if OLD_LABELS.contains(&(entry.text("key"), wanted.as_str())) {
                entry["key"] = wanted.into();
            }
        }
    }
    out
}

/// Where a volume's data is stays; where it can be used from is said once.
fn change(errors: &mut Errors, new: &Value, old: &Value) {
    let mut now = new.clone();
    if old.has("csi") && !old.has("csi.controllerExpandSecretRef") && now.has("csi") {
        set(&mut now["csi"], "controllerExpandSecretRef", None);
    }
    let [from, to] = [old, &now].map(|spec| internal::indented(spec, VOLUME_SOURCE));
    if from != to {
        let text = format!(
            "spec.persistentvolumesource is immutable after creation\n{}",
            line_diff::unified(&from, &to)
        );
        errors.push(FieldError::forbidden("spec.persistentvolumesource", text));
    }
    immutable(errors, &Path::new("volumeMode"), new.at("volumeMode"), old.at("volumeMode"));
    let (affinity, was) = (new.at("nodeAffinity"), old.at("nodeAffinity"));
    if !was.is_null() && !same(affinity, &renamed(was, affinity)) {
        let value =
            if affinity.is_null() { nothing() } else { internal::shown(affinity, VOLUME_NODE_AFFINITY) };
        errors.push(FieldError::invalid("nodeAffinity", value, IMMUTABLE));
    }
    if old.has("volumeAttributesClassName") && !new.has("volumeAttributesClassName") {
        let text = "update from non-nil value to nil is forbidden";
        errors.push(FieldError::forbidden("spec.volumeAttributesClassName", text));
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
        pod_spec::persistent_source(errors, path, kind, source);
        if kind == "local" && !spec.has("nodeAffinity.required") {
            let text = "Local volume requires node affinity";
            errors.push(FieldError::required(path.child("nodeAffinity"), text));
        }
    }
    if first {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}
