//! The rules for a pod's volumes.

use std::collections::HashSet;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::quantity::Quantity;
use serde_json::Value;

use super::{containers, env};
use crate::resources::core::persistent_volume_claim;
use crate::resources::fields::Fields;
use crate::resources::rules::{
    Errors, names, no_backsteps, one_of, required, required_one_of, unreserved_path,
};

/// What a hostPath may be said to be.
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Sources that name what they need, field by field, and have no further rules here.
const PLAIN_SOURCES: [(&str, &[&str]); 14] = [
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("rbd", &["image"]),
    ("flexVolume", &["driver"]),
    ("cinder", &["volumeID"]),
    ("azureFile", &["secretName", "shareName"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("vsphereVolume", &["volumePath"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("gcePersistentDisk", &["pdName"]),
    ("portworxVolume", &["volumeID"]),
    ("photonPersistentDisk", &["pdID"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
];

/// All volumes; returns the names of those with good sources.
pub(super) fn check(
    errors: &mut Errors,
    path: &Path,
    volumes: &[Value],
    pod_name: Option<&str>,
) -> HashSet<String> {
    let (mut taken, mut good) = (HashSet::new(), HashSet::new());
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let before = errors.len();
        let name = volume.text("name");
        source(errors, &path, volume, pod_name);
        let name_path = path.child("name");
        if required(errors, &name_path, name) {
            names(errors, &name_path, name, labels::dns_label(name));
        }
        if !taken.insert(name) {
            errors.push(FieldError::duplicate(&name_path, name));
        }
        if errors.len() == before {
            good.insert(name.to_owned());
        }
    }
    good
}

fn source(errors: &mut Errors, path: &Path, volume: &Value, pod_name: Option<&str>) {
    let mut first = true;
    let sources = volume.as_object().into_iter().flatten().filter(|(k, v)| *k != "name" && !v.is_null());
    for (kind, source) in sources {
        let path_of = path.child(kind);
        if !std::mem::take(&mut first) {
            errors.push(FieldError::forbidden(path_of, "may not specify more than 1 volume type"));
            continue;
        }
        one(errors, &path_of, kind, source);
        if kind == "ephemeral" {
            claim_name(errors, path, volume.text("name"), pod_name);
        }
    }
    if first {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

/// The claim made for an ephemeral volume gets a name of its own.
fn claim_name(errors: &mut Errors, path: &Path, volume: &str, pod_name: Option<&str>) {
    if let Some(pod) = pod_name.filter(|pod| !pod.is_empty() && !volume.is_empty()) {
        let name = format!("{pod}-{volume}");
        for complaint in labels::dns_subdomain(&name) {
            let text = format!("PVC name {}: {complaint}", pagurus_controlplane_api::go::quote(&name));
            errors.push(FieldError::invalid(path.child("name"), volume, text));
        }
    }
}

fn one(errors: &mut Errors, path: &Path, kind: &str, source: &Value) {
    match kind {
        "emptyDir" => {
            if Quantity::from_json(source.at("sizeLimit")).is_ok_and(|q| q.sign() < 0) {
                let text = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(path.child("sizeLimit"), text));
            }
        }
        "hostPath" => host_path(errors, path, source),
        "secret" => {
            required(errors, &path.child("secretName"), source.text("secretName"));
            mode(errors, &path.child("defaultMode"), source.some_int("defaultMode"));
            key_paths(errors, &path.child("items"), source, &mut None);
        }
        "configMap" => {
            required(errors, &path.child("name"), source.text("name"));
            mode(errors, &path.child("defaultMode"), source.some_int("defaultMode"));
            key_paths(errors, &path.child("items"), source, &mut None);
        }
        "downwardAPI" => {
            mode(errors, &path.child("defaultMode"), source.some_int("defaultMode"));
            for item in source.items("items") {
                downward_file(errors, path, item);
            }
        }
        "projected" => projected(errors, path, source),
        "persistentVolumeClaim" => {
            required(errors, &path.child("claimName"), source.text("claimName"));
        }
        "ephemeral" => {
            let path = path.child("volumeClaimTemplate");
            match source.at("volumeClaimTemplate") {
                Value::Null => errors.push(FieldError::required(path, "")),
                template => persistent_volume_claim::template(errors, &path, template),
            }
        }
        "csi" => {
            csi_driver(errors, &path.child("driver"), source.text("driver"));
            if source.has("nodePublishSecretRef") {
                required(
                    errors,
                    &path.child("nodePublishSecretRef.name"),
                    source.text("nodePublishSecretRef.name"),
                );
            }
        }
        "image" => {
            required(errors, &path.child("reference"), source.text("reference"));
            let policy = source.text("pullPolicy");
            required_one_of(errors, &path.child("pullPolicy"), policy, &containers::PULL_POLICIES);
        }
        other => plain(errors, path, other, source),
    }
}

fn plain(errors: &mut Errors, path: &Path, kind: &str, source: &Value) {
    let needed = PLAIN_SOURCES.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, fields)| fields);
    for field in needed {
        required(errors, &path.child(field), source.text(field));
    }
    if kind == "nfs" && !source.text("path").is_empty() && !source.text("path").starts_with('/') {
        errors.push(FieldError::invalid(path.child("path"), source.text("path"), "must be an absolute path"));
    }
    if matches!(kind, "rbd" | "cephfs") && source.items("monitors").is_empty() {
        errors.push(FieldError::required(path.child("monitors"), ""));
    }
}

/// A path on the node.
pub(crate) fn host_path(errors: &mut Errors, path: &Path, source: &Value) {
    let place = source.text("path");
    if required(errors, &path.child("path"), place) {
        no_backsteps(errors, &path.child("path"), place);
        if let Some(kind) = source.some_text("type") {
            one_of(errors, &path.child("type"), kind, &HOST_PATH_TYPES);
        }
    }
}

/// The name of a CSI driver.
pub(crate) fn csi_driver(errors: &mut Errors, path: &Path, name: &str) {
    if !required(errors, path, name) {
        return;
    }
    if name.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    names(errors, path, name, labels::dns_subdomain(&name.to_lowercase()));
}

fn mode(errors: &mut Errors, path: &Path, mode: Option<i64>) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        let text = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(path, mode, text));
    }
}

/// The files that a volume makes, to tell when two have the same path.
type Files<'a> = Option<(&'a Path, &'a mut HashSet<String>)>;

fn file(errors: &mut Errors, files: &mut Files<'_>, place: &str) {
    if let Some((path, taken)) = files
        && !place.is_empty()
        && !taken.insert(place.to_owned())
    {
        errors.push(FieldError::invalid(&**path, place, "conflicting duplicate paths"));
    }
}

fn key_paths(errors: &mut Errors, path: &Path, source: &Value, files: &mut Files<'_>) {
    for (i, item) in source.items("items").iter().enumerate() {
        let path = path.index(i);
        required(errors, &path.child("key"), item.text("key"));
        let place = item.text("path");
        required(errors, &path.child("path"), place);
        unreserved_path(errors, &path.child("path"), place);
        mode(errors, &path.child("mode"), item.some_int("mode"));
        file(errors, files, place);
    }
}

fn downward_file(errors: &mut Errors, path: &Path, item: &Value) {
    let place = item.text("path");
    required(errors, &path.child("path"), place);
    unreserved_path(errors, &path.child("path"), place);
    let (field, resource) = (item.at("fieldRef"), item.at("resourceFieldRef"));
    if !field.is_null() {
        env::field_reference(errors, &path.child("fieldRef"), field, &env::VOLUME_FIELDS);
        if !resource.is_null() {
            let text = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(FieldError::invalid(path, "resource", text));
        }
    } else if !resource.is_null() {
        env::resource_reference(errors, &path.child("resourceFieldRef"), resource, true);
    } else {
        errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
    }
    mode(errors, &path.child("mode"), item.some_int("mode"));
}

fn projected(errors: &mut Errors, path: &Path, source: &Value) {
    mode(errors, &path.child("defaultMode"), source.some_int("defaultMode"));
    let mut taken = HashSet::new();
    for (i, part) in source.items("sources").iter().enumerate() {
        let part_path = path.child("sources").index(i);
        let mut files: Files<'_> = Some((path, &mut taken));
        let mut first = true;
        for kind in [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ] {
            let projection = part.at(kind);
            if projection.is_null() {
                continue;
            }
            let kind_path = part_path.child(kind);
            if !std::mem::take(&mut first) {
                errors.push(FieldError::forbidden(kind_path, "may not specify more than 1 volume type"));
                continue;
            }
            match kind {
                "secret" | "configMap" => {
                    required(errors, &kind_path.child("name"), projection.text("name"));
                    key_paths(errors, &kind_path.child("items"), projection, &mut files);
                }
                "downwardAPI" => {
                    for item in projection.items("items") {
                        downward_file(errors, &kind_path, item);
                        file(errors, &mut files, item.text("path"));
                    }
                }
                "serviceAccountToken" => {
                    token(errors, path, &kind_path, projection);
                }
                "clusterTrustBundle" => {
                    required(errors, &kind_path.child("path"), projection.text("path"));
                    file(errors, &mut files, projection.text("path"));
                }
                _ => {
                    required(errors, &kind_path.child("signerName"), projection.text("signerName"));
                    required(errors, &kind_path.child("keyType"), projection.text("keyType"));
                }
            }
        }
    }
}

fn token(errors: &mut Errors, volume: &Path, path: &Path, token: &Value) {
    let seconds = token.int("expirationSeconds");
    let expiration = path.child("expirationSeconds");
    if seconds < 600 {
        let text = "may not specify a duration less than 10 minutes";
        errors.push(FieldError::invalid(&expiration, seconds, text));
    }
    if seconds > 1 << 32 {
        let text = "may not specify a duration larger than 2^32 seconds";
        errors.push(FieldError::invalid(&expiration, seconds, text));
    }
    let place = token.text("path");
    if required(errors, &volume.child("path"), place) {
        unreserved_path(errors, &volume.child("path"), place);
    }
}
