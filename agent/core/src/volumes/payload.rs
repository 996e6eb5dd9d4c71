//! The files of a volume that is made from objects of the API: config map, secret, fields of the pod, tokens.
//! Must not write them.

use std::collections::BTreeMap;

use crate::pods::env::{self, ObjectData, Surroundings};
use crate::pods::resources;
use crate::pods::spec::{DownwardApi, ObjectVolume, Pod, Projected, TokenProjection, VolumeSource};

/// Permissions where nothing is said.
const DEFAULT_MODE: i32 = 0o644;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
}

/// The files of a volume by their path inside it.
pub type Payload = BTreeMap<String, File>;

/// Why the files of a volume cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The object is not there.
    #[error("{kind} \"{name}\" not found")]
    Missing {
        /// configmap or secret.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object has no such key.
    #[error("references non-existent {kind} key: {key}")]
    Key {
        /// config or secret.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A path leads out of the volume.
    #[error("path {0:?} must be relative and stay inside the volume")]
    Path(String),
    /// A field of the pod has no value.
    #[error(transparent)]
    Field(#[from] env::EnvError),
    /// A limit or request has no value.
    #[error(transparent)]
    Resource(#[from] resources::ReferenceError),
    /// No token was issued.
    #[error("no token was issued for {path}")]
    Token {
        /// The file it was for.
        path: String,
    },
    /// A source that this node cannot make.
    #[error("projected source {0} is not supported by this node")]
    Unsupported(&'static str),
}

/// The tokens that were issued, by audience and duration as asked for.
pub type Tokens = BTreeMap<(String, i64), String>;

/// The key under which a token is kept.
pub fn token_key(wanted: &TokenProjection) -> (String, i64) {
    (wanted.audience.clone(), wanted.expiration_seconds.unwrap_or(3600))
}

/// The files of this volume; `None` if its content does not come from the API.
pub fn payload(
    pod: &Pod,
    source: &VolumeSource,
    around: &Surroundings,
    tokens: &Tokens,
) -> Result<Option<Payload>, PayloadError> {
    let mut files = Payload::new();
    match source {
        VolumeSource::ConfigMap(wanted) => config_map(wanted, wanted.default_mode, around, &mut files)?,
        VolumeSource::Secret(wanted) => secret(wanted, wanted.default_mode, around, &mut files)?,
        VolumeSource::DownwardApi(wanted) => downward(pod, wanted, wanted.default_mode, around, &mut files)?,
        VolumeSource::Projected(wanted) => projected(pod, wanted, around, tokens, &mut files)?,
        VolumeSource::EmptyDir(_) | VolumeSource::HostPath(_) | VolumeSource::Unsupported(_) => {
            return Ok(None);
        }
    }
    Ok(Some(files))
}

fn projected(
    pod: &Pod,
    wanted: &Projected,
    around: &Surroundings,
    tokens: &Tokens,
    files: &mut Payload,
) -> Result<(), PayloadError> {
    let mode = wanted.default_mode;
    for part in &wanted.sources {
        if part.cluster_trust_bundle.is_some() {
            return Err(PayloadError::Unsupported("clusterTrustBundle"));
        }
        if part.pod_certificate.is_some() {
            return Err(PayloadError::Unsupported("podCertificate"));
        }
        if let Some(source) = &part.config_map {
            config_map(source, mode, around, files)?;
        }
        if let Some(source) = &part.secret {
            secret(source, mode, around, files)?;
        }
        if let Some(source) = &part.downward_api {
            downward(pod, source, mode, around, files)?;
        }
        if let Some(source) = &part.service_account_token {
            let missing = || PayloadError::Token { path: source.path.clone() };
            let token = tokens.get(&token_key(source)).ok_or_else(missing)?;
            add(files, &source.path, token.clone().into_bytes(), None, mode)?;
        }
    }
    Ok(())
}

fn config_map(
    wanted: &ObjectVolume,
    mode: Option<i32>,
    around: &Surroundings,
    files: &mut Payload,
) -> Result<(), PayloadError> {
    let found = around.objects.config_maps.get(&wanted.name);
    object(wanted, found.map(AsRef::as_ref), ("configmap", "config"), mode, files)
}

fn secret(
    wanted: &ObjectVolume,
    mode: Option<i32>,
    around: &Surroundings,
    files: &mut Payload,
) -> Result<(), PayloadError> {
    let found = around.objects.secrets.get(&wanted.name);
    object(wanted, found.map(AsRef::as_ref), ("secret", "secret"), mode, files)
}

fn object(
    wanted: &ObjectVolume,
    found: Option<&ObjectData>,
    (kind, key_kind): (&'static str, &'static str),
    mode: Option<i32>,
    files: &mut Payload,
) -> Result<(), PayloadError> {
    let Some(found) = found else {
        if wanted.optional {
            return Ok(());
        }
        return Err(PayloadError::Missing { kind, name: wanted.name.clone() });
    };
    if wanted.items.is_empty() {
        for (key, value) in found.data.iter().chain(&found.binary) {
            add(files, key, value.clone(), None, mode)?;
        }
        return Ok(());
    }
    for item in &wanted.items {
        match found.get(&item.key) {
            Some(value) => add(files, &item.path, value.clone(), item.mode, mode)?,
            None if wanted.optional => {}
            None => return Err(PayloadError::Key { kind: key_kind, key: item.key.clone() }),
        }
    }
    Ok(())
}

fn downward(
    pod: &Pod,
    wanted: &DownwardApi,
    mode: Option<i32>,
    around: &Surroundings,
    files: &mut Payload,
) -> Result<(), PayloadError> {
    for item in &wanted.items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(reference), _) => env::field(pod, reference, around)?,
            (None, Some(reference)) => resources::reference(pod, None, reference, &around.allocatable)?,
            (None, None) => String::new(),
        };
        add(files, &item.path, value.into_bytes(), item.mode, mode)?;
    }
    Ok(())
}

fn add(
    files: &mut Payload,
    path: &str,
    data: Vec<u8>,
    own_mode: Option<i32>,
    mode: Option<i32>,
) -> Result<(), PayloadError> {
    let leaves = path.is_empty()
        || path.starts_with('/')
        || path.split('/').any(|part| part == "..")
        || path.starts_with("..");
    if leaves {
        return Err(PayloadError::Path(path.to_owned()));
    }
    let mode = own_mode.or(mode).unwrap_or(DEFAULT_MODE);
    files.insert(path.to_owned(), File { data, mode: u32::try_from(mode).unwrap_or(0o644) & 0o7777 });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn around() -> Surroundings {
        let mut around = Surroundings::default();
        let data = BTreeMap::from([("k".to_owned(), b"v".to_vec()), ("l".to_owned(), b"w".to_vec())]);
        let binary = BTreeMap::from([("bin".to_owned(), vec![0, 255])]);
        around.objects.config_maps.insert("cm".into(), Arc::new(ObjectData { data: data.clone(), binary }));
        around.objects.secrets.insert("s".into(), Arc::new(ObjectData { data, binary: BTreeMap::new() }));
        around
    }

    fn check(volume: Value, expected: Result<&[(&str, &str, u32)], &str>) {
        let pod = Pod::decode(json!({
            "metadata": {"namespace": "n", "name": "p", "uid": "u", "labels": {"a": "b"}},
            "spec": {"volumes": [volume]},
        }))
        .unwrap();
        let tokens = Tokens::from([
            (("".to_owned(), 3600), "t0".to_owned()),
            (("vault".to_owned(), 600), "t1".to_owned()),
        ]);
        let found = payload(&pod, &pod.spec.volumes[0].source, &around(), &tokens).map_err(|e| e.to_string());
        let expected = expected.map(|files| {
            let file = |mode: u32, data: &str| File { data: data.as_bytes().to_vec(), mode };
            Some(
                files
                    .iter()
                    .map(|(path, data, mode)| ((*path).to_owned(), file(*mode, data)))
                    .collect::<Payload>(),
            )
        });
        assert_eq!(found, expected.map_err(str::to_owned), "{:?}", pod.spec.volumes);
    }

    #[test]
    fn objects() {
        check(
            json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 256}}),
            Ok(&[("k", "v", 0o400), ("l", "w", 0o400)]),
        );
        check(
            json!({"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "a/b", "mode": 511}]}}),
            Ok(&[("a/b", "v", 0o777)]),
        );
        check(json!({"name": "v", "configMap": {"name": "no"}}), Err("configmap \"no\" not found"));
        check(json!({"name": "v", "configMap": {"name": "no", "optional": true}}), Ok(&[]));
        check(
            json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "no", "path": "a"}]}}),
            Err("references non-existent config key: no"),
        );
        check(
            json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "k", "path": "../a"}]}}),
            Err("path \"../a\" must be relative and stay inside the volume"),
        );
    }

    #[test]
    fn projections() {
        let sources = json!([
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
            {"serviceAccountToken": {"path": "vault", "expirationSeconds": 600, "audience": "vault"}},
            {"configMap": {"name": "cm", "items": [{"key": "k", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}},
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        ]);
        check(
            json!({"name": "v", "projected": {"sources": sources, "defaultMode": 420}}),
            Ok(&[
                ("ca.crt", "v", 0o644),
                ("labels", "a=\"b\"", 0o644),
                ("ns", "n", 0o644),
                ("token", "t0", 0o644),
                ("vault", "t1", 0o644),
            ]),
        );
        check(
            json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "other"}}]}}),
            Err("no token was issued for t"),
        );
        check(
            json!({"name": "v", "projected": {"sources": [{"podCertificate": {}}]}}),
            Err("projected source podCertificate is not supported by this node"),
        );
    }
}
