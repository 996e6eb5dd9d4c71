//! The rules for where the data of a volume is: sources that volumes of pods and PersistentVolumes have in common.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{
    Errors, descending_path, in_range, names, no_backsteps, one_of, required, required_one_of,
};

/// What a hostPath may be said to be.
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Sources that need fields, and what they need. The path may have another name than the field.
const NEEDED: [(&str, &str, &[&str]); 16] = [
    ("awsElasticBlockStore", "awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", "azureDisk", &["diskURI", "diskName"]),
    ("azureFile", "azureFile", &["secretName", "shareName"]),
    ("cinder", "cinder", &["volumeID"]),
    ("flexVolume", "flexVolume", &["driver"]),
    ("gcePersistentDisk", "persistentDisk", &["pdName"]),
    ("gitRepo", "gitRepo", &["repository"]),
    ("glusterfs", "glusterfs", &["endpoints", "path"]),
    ("iscsi", "iscsi", &["targetPortal", "iqn"]),
    ("nfs", "nfs", &["server", "path"]),
    ("photonPersistentDisk", "photonPersistentDisk", &["pdID"]),
    ("portworxVolume", "portworxVolume", &["volumeID"]),
    ("rbd", "rbd", &["image"]),
    ("scaleIO", "scaleIO", &["gateway", "system", "volumeName"]),
    ("storageos", "storageos", &["volumeName"]),
    ("vsphereVolume", "vsphereVolume", &["volumePath"]),
];

/// A source in a volume at `volume`. That of a PersistentVolume names the namespaces of secrets too.
pub(super) fn check(errors: &mut Errors, volume: &Path, kind: &str, source: &Value, persistent: bool) {
    let needed = NEEDED.iter().find(|(of, ..)| *of == kind);
    let path = &volume.child(needed.map_or(kind, |(_, path, _)| path));
    for field in needed.map_or(&[][..], |(.., fields)| fields) {
        required(errors, &path.child(field), source.text(field));
    }
    match kind {
        "hostPath" => host_path(errors, path, source),
        "nfs" if !source.text("path").starts_with('/') => {
            let text = "must be an absolute path";
            errors.push(FieldError::invalid(path.child("path"), source.text("path"), text));
        }
        "awsElasticBlockStore" | "gcePersistentDisk" => byte(errors, path, source, "partition"),
        "rbd" | "cephfs" if source.items("monitors").is_empty() => {
            errors.push(FieldError::required(path.child("monitors"), ""));
        }
        "iscsi" => iscsi(errors, path, source),
        "gitRepo" => descending_path(errors, &path.child("directory"), source.text("directory")),
        "fc" => fibre_channel(errors, path, source),
        "flocker" => flocker(errors, path, source),
        "quobyte" => quobyte(errors, path, source),
        "azureDisk" => azure_disk(errors, path, source),
        "storageos" => storage_os(errors, path, source),
        "local" => {
            let place = source.text("path");
            if required(errors, &path.child("path"), place) {
                no_backsteps(errors, &path.child("path"), place);
            }
        }
        "csi" if persistent => persistent_csi(errors, path, source),
        _ => {}
    }
    let namespaced = persistent && matches!(kind, "cinder" | "iscsi" | "storageos");
    if matches!(kind, "cinder" | "storageos") && source.has("secretRef") {
        required(errors, &path.child("secretRef.name"), source.text("secretRef.name"));
        if namespaced {
            required(errors, &path.child("secretRef.namespace"), source.text("secretRef.namespace"));
        }
    }
    for (of, field) in [("glusterfs", "endpointsNamespace"), ("azureFile", "secretNamespace")] {
        if persistent && kind == of {
            namespace(errors, &path.child(field), kind, source.some_text(field));
        }
    }
}

/// The source of a PersistentVolume.
pub(crate) fn persistent(errors: &mut Errors, volume: &Path, kind: &str, source: &Value) {
    check(errors, volume, kind, source, true);
}

fn namespace(errors: &mut Errors, path: &Path, kind: &str, name: Option<&str>) {
    match name {
        None => {}
        Some("") if kind == "azureFile" => {
            let text = "secretNamespace may not be empty";
            errors.push(FieldError::invalid(path, "", text));
        }
        Some("") => {
            let text = "if the endpointnamespace is set, it must be a valid namespace name";
            errors.push(FieldError::invalid(path, "", text));
        }
        Some(name) if kind == "glusterfs" => names(errors, path, name, labels::dns_label(name)),
        Some(_) => {}
    }
}

/// A path on the node.
fn host_path(errors: &mut Errors, path: &Path, source: &Value) {
    let place = source.text("path");
    if required(errors, &path.child("path"), place) {
        no_backsteps(errors, &path.child("path"), place);
        if let Some(kind) = source.some_text("type") {
            one_of(errors, &path.child("type"), kind, &HOST_PATH_TYPES);
        }
    }
}

fn byte(errors: &mut Errors, path: &Path, source: &Value, field: &str) {
    in_range(errors, &path.child(field), source.int(field), 0, 255);
}

fn iscsi(errors: &mut Errors, path: &Path, source: &Value) {
    let (name, of) = (source.text("iqn"), path.child("iqn"));
    if !name.is_empty() && !["iqn", "eui", "naa"].iter().any(|prefix| name.starts_with(prefix)) {
        let text = "must be valid format starting with iqn, eui, or naa";
        errors.push(FieldError::invalid(of, name, text));
    }
    byte(errors, path, source, "lun");
    let asks = source.flag("chapAuthDiscovery") || source.flag("chapAuthSession");
    if asks && !source.has("secretRef") {
        errors.push(FieldError::required(path.child("secretRef"), ""));
    }
}

fn fibre_channel(errors: &mut Errors, path: &Path, source: &Value) {
    let of = path.child("targetWWNs");
    match (source.items("targetWWNs").is_empty(), source.items("wwids").is_empty()) {
        (true, true) => {
            errors.push(FieldError::required(of, "must specify either targetWWNs or wwids, but not both"));
        }
        (false, false) => {
            let text = "targetWWNs and wwids can not be specified simultaneously";
            errors.push(FieldError::invalid(of, source.at("targetWWNs").clone(), text));
        }
        _ => {}
    }
    if source.items("targetWWNs").is_empty() {
        return;
    }
    match source.some_int("lun") {
        Some(lun) => in_range(errors, &path.child("lun"), lun, 0, 255),
        None => {
            let text = "lun is required if targetWWNs is specified";
            errors.push(FieldError::required(path.child("lun"), text));
        }
    }
}

fn flocker(errors: &mut Errors, path: &Path, source: &Value) {
    let (name, id) = (source.text("datasetName"), source.text("datasetUUID"));
    if name.is_empty() && id.is_empty() {
        errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !id.is_empty() {
        let text = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(FieldError::invalid(path, "resource", text));
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(path.child("datasetName"), name, "must not contain '/'"));
    }
}

fn quobyte(errors: &mut Errors, path: &Path, source: &Value) {
    let pairs = "must be a host:port pair or multiple pairs separated by commas";
    let registry = source.text("registry");
    if registry.is_empty() {
        errors.push(FieldError::required(path.child("registry"), pairs));
    } else if source.text("tenant").len() >= 65 {
        let text = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(path.child("tenant"), text));
    } else {
        for _ in registry.split(',').filter(|pair| pair.matches(':').count() != 1) {
            errors.push(FieldError::invalid(path.child("registry"), registry, pairs));
        }
    }
    required(errors, &path.child("volume"), source.text("volume"));
}

fn azure_disk(errors: &mut Errors, path: &Path, source: &Value) {
    if let Some(mode) = source.some_text("cachingMode") {
        one_of(errors, &path.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let kind = source.some_text("kind").unwrap_or("Shared");
    one_of(errors, &path.child("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let (uri, of) = (source.text("diskURI"), path.child("diskURI"));
    let managed = uri.starts_with("/subscriptions/");
    if kind == "Managed" && !managed {
        let text =
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
        errors.push(FieldError::not_supported(&of, uri, &[text]));
    }
    if kind != "Managed" && !uri.is_empty() && !uri.starts_with("https://") {
        let text = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
        errors.push(FieldError::not_supported(&of, uri, &[text]));
    }
}

fn storage_os(errors: &mut Errors, path: &Path, source: &Value) {
    for field in ["volumeName", "volumeNamespace"] {
        let name = source.text(field);
        if !name.is_empty() {
            names(errors, &path.child(field), name, labels::dns_label(name));
        }
    }
}

fn persistent_csi(errors: &mut Errors, path: &Path, source: &Value) {
    csi_driver(errors, &path.child("driver"), source.text("driver"));
    required(errors, &path.child("volumeHandle"), source.text("volumeHandle"));
    let secrets = [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ];
    for field in secrets.iter().filter(|field| source.has(field)) {
        let (path, secret) = (path.child(field), source.at(field));
        let (name, namespace) = (secret.text("name"), secret.text("namespace"));
        if required(errors, &path.child("name"), name) {
            names(errors, &path.child("name"), name, labels::dns_subdomain(name));
        }
        if required(errors, &path.child("namespace"), namespace) {
            names(errors, &path.child("namespace"), namespace, labels::dns_label(namespace));
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

/// A volume made of an image.
pub(super) fn image(errors: &mut Errors, path: &Path, source: &Value, policies: &[&str]) {
    required(errors, &path.child("reference"), source.text("reference"));
    required_one_of(errors, &path.child("pullPolicy"), source.text("pullPolicy"), policies);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sources() {
        for (kind, source, persistent, expected) in [
            ("nfs", json!({"server": "s", "path": "/x"}), false, ""),
            (
                "nfs",
                json!({"server": "s", "path": "x"}),
                false,
                "v.nfs.path: Invalid value: \"x\": must be an absolute path",
            ),
            ("gcePersistentDisk", json!({}), true, "v.persistentDisk.pdName: Required value"),
            ("fc", json!({"wwids": ["1"]}), true, ""),
            (
                "fc",
                json!({"targetWWNs": ["1"]}),
                true,
                "v.fc.lun: Required value: lun is required if targetWWNs is specified",
            ),
            (
                "iscsi",
                json!({"targetPortal": "p", "iqn": "x", "lun": 300}),
                true,
                "v.iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa; \
                 v.iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive",
            ),
            (
                "local",
                json!({"path": "/a/../b"}),
                true,
                "v.local.path: Invalid value: \"/a/../b\": must not contain '..'",
            ),
            (
                "csi",
                json!({"driver": "d", "volumeHandle": "h", "nodePublishSecretRef": {"name": "s"}}),
                true,
                "v.csi.nodePublishSecretRef.namespace: Required value",
            ),
            ("cinder", json!({"volumeID": "i", "secretRef": {"name": "s"}}), false, ""),
            (
                "cinder",
                json!({"volumeID": "i", "secretRef": {"name": "s"}}),
                true,
                "v.cinder.secretRef.namespace: Required value",
            ),
        ] {
            let mut errors = Errors::new();
            check(&mut errors, &Path::new("v"), kind, &source, persistent);
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(found.join("; "), expected, "{kind} {source}");
        }
    }
}
