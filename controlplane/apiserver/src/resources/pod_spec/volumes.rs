//! The rules for a pod's volumes.

use std::collections::HashSet;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::quantity::Quantity;
use serde_json::Value;

use super::volume_sources::{self, csi_driver};
use super::{containers, env};
use crate::resources::core::persistent_volume_claim;
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, label_selector, names, required, shown, unreserved_path};

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
        one(errors, path, kind, source);
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

fn one(errors: &mut Errors, volume: &Path, kind: &str, source: &Value) {
    let path = &volume.child(kind);
    match kind {
        "emptyDir" => {
            if Quantity::from_json(source.at("sizeLimit")).is_ok_and(|q| q.sign() < 0) {
                let text = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(path.child("sizeLimit"), text));
            }
        }
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
                let name = source.text("nodePublishSecretRef.name");
                if required(errors, &path.child("nodePublishSecretRef.name"), name) {
                    names(errors, &path.child("name"), name, labels::dns_subdomain(name));
                }
            }
        }
        "image" => volume_sources::image(errors, path, source, &containers::PULL_POLICIES),
        other => volume_sources::check(errors, volume, other, source, false),
    }
}

fn mode(errors: &mut Errors, path: &Path, mode: Option<i64>) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        let text = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(path, mode, text));
    }
}

/// The files that a volume makes, to tell when two have the same path.
type Files<'a> = Option<(&'a Path, &'a mut HashSet<String>)>;

fn file(errors: &mut Errors, files: &mut Files<'_>, place: &str, told: &str) {
    if let Some((path, taken)) = files
        && !place.is_empty()
        && !taken.insert(place.to_owned())
    {
        errors.push(FieldError::invalid(&**path, told, "conflicting duplicate paths"));
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
        // What the files are made of is told, not where they are.
        file(errors, files, place, source.text("name"));
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
        let kinds = [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ];
        for kind in kinds.iter().filter(|kind| part.has(kind)) {
            projection(errors, path, &part_path, kind, part.at(kind), &mut files);
        }
        if kinds.iter().filter(|kind| part.has(kind)).count() > 1 {
            errors.push(FieldError::forbidden(&part_path, "may not specify more than 1 volume type"));
        }
    }
}

fn projection(
    errors: &mut Errors,
    volume: &Path,
    path: &Path,
    kind: &str,
    of: &Value,
    files: &mut Files<'_>,
) {
    let path = path.child(kind);
    match kind {
        "secret" | "configMap" => {
            required(errors, &path.child("name"), of.text("name"));
            key_paths(errors, &path.child("items"), of, files);
        }
        "downwardAPI" => {
            for item in of.items("items") {
                downward_file(errors, &path, item);
                file(errors, files, item.text("path"), item.text("path"));
            }
        }
        "serviceAccountToken" => token(errors, volume, &path, of),
        "clusterTrustBundle" => {
            // The path says what the bundle is made of, the field does not.
            trust_bundle(errors, &volume_part(&path, "clusterTrustBundle", "clusterTrustBundlePEM"), of);
            file(errors, files, of.text("path"), of.text("path"));
        }
        _ => {
            required(errors, &path.child("signerName"), of.text("signerName"));
            required(errors, &path.child("keyType"), of.text("keyType"));
        }
    }
}

/// The path with another name for its last part.
fn volume_part(path: &Path, name: &str, other: &str) -> Path {
    Path::new(format!("{}{other}", path.as_str().strip_suffix(name).unwrap_or_default()))
}

fn trust_bundle(errors: &mut Errors, path: &Path, bundle: &Value) {
    match (bundle.some_text("name"), bundle.some_text("signerName")) {
        (None, None) => {
            errors.push(FieldError::required(path, "either name or signerName must be specified"));
        }
        (Some(_), Some(_)) => {
            let text = "only one of name and signerName may be used";
            errors.push(FieldError::invalid(path, shown(bundle), text));
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.push(FieldError::required(path.child("name"), "must be a valid object name"));
            }
            if bundle.has("labelSelector") {
                let text = "labelSelector must be unset if name is specified";
                let value = shown(bundle.at("labelSelector"));
                errors.push(FieldError::invalid(path.child("labelSelector"), value, text));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(FieldError::required(path.child("signerName"), "must be a valid signer name"));
            }
            label_selector(errors, &path.child("labelSelector"), bundle.at("labelSelector"), false);
        }
    }
    let place = bundle.text("path");
    required(errors, &path.child("path"), place);
    unreserved_path(errors, &path.child("path"), place);
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
