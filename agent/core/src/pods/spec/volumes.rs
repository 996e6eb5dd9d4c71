//! Volumes as the API describes them. A kind that this node cannot make is kept as a name, so that it can say so.

use serde::Deserialize;
use serde_json::Value;

use super::{FieldReference, ResourceReference};

/// A volume of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volume {
    /// Name, unique in the pod.
    pub name: String,
    /// Where its content comes from.
    pub source: VolumeSource,
}

/// Where the content of a volume comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeSource {
    /// Empty at the pod's start.
    EmptyDir(EmptyDir),
    /// A path of the node.
    HostPath(HostPath),
    /// A config map.
    ConfigMap(ObjectVolume),
    /// A secret.
    Secret(ObjectVolume),
    /// Fields of the pod.
    DownwardApi(DownwardApi),
    /// Several of the above, and tokens, in one.
    Projected(Projected),
    /// A kind that this node does not know.
    Unsupported(String),
}

impl Default for VolumeSource {
    fn default() -> Self {
        Self::EmptyDir(EmptyDir::default())
    }
}

impl<'de> Deserialize<'de> for Volume {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = serde_json::Map::deserialize(deserializer)?;
        let name = object.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let source = object.into_iter().find(|(key, _)| key != "name");
        let source =
            source.map_or(Ok(VolumeSource::default()), |(kind, value)| VolumeSource::decode(&kind, value));
        Ok(Self { name, source: source.map_err(serde::de::Error::custom)? })
    }
}

impl VolumeSource {
    fn decode(kind: &str, value: Value) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            "emptyDir" => Self::EmptyDir(serde_json::from_value(value)?),
            "hostPath" => Self::HostPath(serde_json::from_value(value)?),
            "configMap" => Self::ConfigMap(serde_json::from_value(value)?),
            "secret" => Self::Secret(ObjectVolume::of_secret(serde_json::from_value(value)?)),
            "downwardAPI" => Self::DownwardApi(serde_json::from_value(value)?),
            "projected" => Self::Projected(serde_json::from_value(value)?),
            other => Self::Unsupported(other.to_owned()),
        })
    }
}

/// A directory that is empty at the pod's start.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmptyDir {
    /// `Memory` or the node's disk.
    pub medium: String,
    /// Most bytes.
    pub size_limit: Option<Value>,
}

/// A path of the node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HostPath {
    /// The path.
    pub path: String,
    /// What must be there.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A config map or a secret as files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectVolume {
    /// Name of the object.
    pub name: String,
    /// Which keys; all without it.
    pub items: Vec<KeyToPath>,
    /// Permissions.
    pub default_mode: Option<i32>,
    /// It need not be there.
    pub optional: bool,
}

impl ObjectVolume {
    fn of_secret(secret: SecretVolume) -> Self {
        let SecretVolume { secret_name, items, default_mode, optional } = secret;
        Self { name: secret_name, items, default_mode, optional }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SecretVolume {
    secret_name: String,
    items: Vec<KeyToPath>,
    default_mode: Option<i32>,
    optional: bool,
}

/// A key and its file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct KeyToPath {
    /// The key.
    pub key: String,
    /// Path of the file inside the volume.
    pub path: String,
    /// Permissions.
    pub mode: Option<i32>,
}

/// Fields of the pod as files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DownwardApi {
    /// The files.
    pub items: Vec<DownwardFile>,
    /// Permissions.
    pub default_mode: Option<i32>,
}

/// A field of the pod and its file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DownwardFile {
    /// Path of the file inside the volume.
    pub path: String,
    /// A field of the pod.
    pub field_ref: Option<FieldReference>,
    /// A limit or request.
    pub resource_field_ref: Option<ResourceReference>,
    /// Permissions.
    pub mode: Option<i32>,
}

/// Several sources in one volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Projected {
    /// The sources; later ones win.
    pub sources: Vec<Projection>,
    /// Permissions.
    pub default_mode: Option<i32>,
}

/// One source of a projected volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Projection {
    /// A config map.
    pub config_map: Option<ObjectVolume>,
    /// A secret (by `name`, unlike in a secret volume).
    pub secret: Option<ObjectVolume>,
    /// Fields of the pod.
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<DownwardApi>,
    /// A token for the pod's service account.
    pub service_account_token: Option<TokenProjection>,
    /// Trust anchors; this node cannot make them.
    pub cluster_trust_bundle: Option<Value>,
    /// A certificate; this node cannot make it.
    pub pod_certificate: Option<Value>,
}

/// A token for the pod's service account.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenProjection {
    /// Whom the token is for; the API server without it.
    pub audience: String,
    /// How long it is good for; an hour without it.
    pub expiration_seconds: Option<i64>,
    /// Path of the file inside the volume.
    pub path: String,
}
