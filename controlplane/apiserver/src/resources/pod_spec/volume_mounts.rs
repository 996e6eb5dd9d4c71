//! The rules for where a container mounts volumes and maps devices.

use std::collections::HashSet;

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, descending_path, no_backsteps, one_of, required};

/// `volumeMounts` and `volumeDevices` of a container; `volumes` are the names of the good volumes.
pub(super) fn check(
    errors: &mut Errors,
    path: &Path,
    container: &Value,
    volumes: &HashSet<String>,
    spec: &Value,
) {
    mounts(errors, &path.child("volumeMounts"), container, volumes);
    devices(errors, &path.child("volumeDevices"), container, volumes, spec);
}

fn mounts(errors: &mut Errors, path: &Path, container: &Value, volumes: &HashSet<String>) {
    let mut taken = HashSet::new();
    for (i, mount) in container.items("volumeMounts").iter().enumerate() {
        let path = path.index(i);
        let (name, at) = (mount.text("name"), mount.text("mountPath"));
        required(errors, &path.child("name"), name);
        if !volumes.contains(name) {
            errors.push(FieldError::not_found(path.child("name"), name));
        }
        let place = path.child("mountPath");
        required(errors, &place, at);
        if !taken.insert(at) {
            errors.push(FieldError::invalid(&place, at, "must be unique"));
        }
        for device in container.items("volumeDevices") {
            if device.text("devicePath") == at {
                let text = "must not already exist as a path in volumeDevices";
                errors.push(FieldError::invalid(&place, at, text));
            }
            if device.text("name") == name {
                let text = "must not already exist in volumeDevices";
                errors.push(FieldError::invalid(path.child("name"), name, text));
            }
        }
        let (part, pattern) = (mount.text("subPath"), mount.text("subPathExpr"));
        if !part.is_empty() {
            descending_path(errors, &path.child("subPath"), part);
        }
        if !pattern.is_empty() {
            let path = path.child("subPathExpr");
            if !part.is_empty() {
                let text = "subPathExpr and subPath are mutually exclusive";
                errors.push(FieldError::invalid(&path, pattern, text));
            }
            descending_path(errors, &path, pattern);
        }
        propagation(errors, &path.child("mountPropagation"), mount, container);
        recursive_read_only(errors, &path.child("recursiveReadOnly"), mount);
    }
}

fn propagation(errors: &mut Errors, path: &Path, mount: &Value, container: &Value) {
    let Some(mode) = mount.some_text("mountPropagation") else { return };
    one_of(errors, path, mode, &["Bidirectional", "HostToContainer", "None"]);
    if mode == "Bidirectional" && !container.flag("securityContext.privileged") {
        let text = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(path, text));
    }
}

fn recursive_read_only(errors: &mut Errors, path: &Path, mount: &Value) {
    let Some(mode) = mount.some_text("recursiveReadOnly") else { return };
    match mode {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.flag("readOnly") {
                let text = "may only be specified when readOnly is true";
                errors.push(FieldError::forbidden(path, text));
            }
            if !matches!(mount.text("mountPropagation"), "" | "None") {
                let text = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path, text));
            }
        }
        _ => one_of(errors, path, mode, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(errors: &mut Errors, path: &Path, container: &Value, volumes: &HashSet<String>, spec: &Value) {
    let (mut paths, mut taken) = (HashSet::new(), HashSet::new());
    for (i, device) in container.items("volumeDevices").iter().enumerate() {
        let path = path.index(i);
        let (name, at) = (device.text("name"), device.text("devicePath"));
        let (name_path, place) = (path.child("name"), path.child("devicePath"));
        required(errors, &name_path, name);
        required(errors, &place, at);
        if !taken.insert(name) {
            errors.push(FieldError::invalid(&name_path, name, "must be unique"));
        }
        if !paths.insert(at) {
            errors.push(FieldError::invalid(&place, at, "must be unique"));
        }
        let volume = spec.items("volumes").iter().find(|v| v.text("name") == name);
        match volume.filter(|_| volumes.contains(name)) {
            None => errors.push(FieldError::not_found(&name_path, name)),
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => {
                let text =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(&name_path, name, text));
            }
            Some(_) => {}
        }
        if !at.is_empty() {
            no_backsteps(errors, &place, at);
        }
        for mount in container.items("volumeMounts") {
            if mount.text("mountPath") == at {
                let text = "must not already exist as a path in volumeMounts";
                errors.push(FieldError::invalid(&place, at, text));
            }
            if mount.text("name") == name {
                let text = "must not already exist in volumeMounts";
                errors.push(FieldError::invalid(&name_path, name, text));
            }
        }
    }
}
