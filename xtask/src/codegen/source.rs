//! Reads the published facts. It must not know what the table looks like.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

/// Everything that codegen reads.
pub(crate) struct Spec {
    /// Messages by full OpenAPI name (`io.k8s.api.core.v1.Pod`).
    pub(crate) messages: BTreeMap<String, Message>,
    /// OpenAPI definitions by full name.
    pub(crate) definitions: serde_json::Map<String, Value>,
    /// OpenAPI paths.
    pub(crate) paths: serde_json::Map<String, Value>,
    /// Facts per kind, by full name.
    pub(crate) kinds: BTreeMap<String, Value>,
    /// Values of named string types, by full name.
    pub(crate) enums: BTreeMap<String, Vec<Value>>,
    /// Constants by full name.
    pub(crate) consts: BTreeMap<String, Value>,
    /// Aggregated discovery: `/api` and `/apis`.
    pub(crate) discovery: Value,
    /// Table columns by `version/plural` or `group/version/plural`.
    pub(crate) columns: BTreeMap<String, Vec<Value>>,
}

/// A protobuf message.
#[derive(Deserialize)]
pub(crate) struct Message {
    #[serde(default)]
    pub(crate) fields: BTreeMap<String, MessageField>,
    #[serde(default)]
    pub(crate) markers: Vec<String>,
}

/// A field of a protobuf message.
#[derive(Deserialize)]
pub(crate) struct MessageField {
    #[serde(default)]
    pub(crate) label: String,
    #[serde(default)]
    pub(crate) optional: bool,
    pub(crate) tag: u64,
    #[serde(rename = "type")]
    pub(crate) type_: String,
    #[serde(default)]
    pub(crate) markers: Vec<String>,
}

impl MessageField {
    /// The values of a marker such as `+listMapKey=name`, in order; both spellings.
    pub(crate) fn marker(&self, name: &str) -> Vec<&str> {
        let plain = format!("+{name}=");
        let prefixed = format!("+k8s:{name}=");
        let found: Vec<&str> = self.markers.iter().filter_map(|m| m.strip_prefix(&plain)).collect();
        if found.is_empty() {
            self.markers.iter().filter_map(|m| m.strip_prefix(&prefixed)).collect()
        } else {
            found
        }
    }
}

#[derive(Deserialize)]
struct KindsFile {
    kinds: BTreeMap<String, Value>,
    enums: BTreeMap<String, Vec<Value>>,
    consts: BTreeMap<String, Value>,
}

impl Spec {
    pub(crate) fn read(dir: &Path, version: &str) -> anyhow::Result<Spec> {
        let messages: BTreeMap<String, Message> = read_json(&dir.join(format!("facts-v{version}.json")))?;
        let kinds: KindsFile = read_json(&dir.join(format!("kinds-v{version}.json")))?;
        let mut openapi: Value = read_gzipped(&dir.join(format!("openapi-v{version}.json.gz")))?;
        let Value::Object(definitions) = openapi["definitions"].take() else {
            anyhow::bail!("the OpenAPI document has no definitions");
        };
        let Value::Object(paths) = openapi["paths"].take() else {
            anyhow::bail!("the OpenAPI document has no paths");
        };
        Ok(Spec {
            paths,
            messages: renamed(messages),
            definitions,
            kinds: renamed(kinds.kinds),
            enums: renamed(kinds.enums),
            consts: renamed(kinds.consts),
            discovery: read_json(&dir.join(format!("discovery-v{version}.json")))?,
            columns: read_json(&dir.join(format!("columns-v{version}.json")))?,
        })
    }
}

/// The facts name packages as Go does, with `_` for `-`; OpenAPI turns the host around.
pub(crate) fn openapi_name(name: &str) -> String {
    let name = name.trim_start_matches('.');
    let Some(rest) = name.strip_prefix("k8s.io.") else { return name.to_owned() };
    let rest = rest.replacen("apiextensions_apiserver", "apiextensions-apiserver", 1).replacen(
        "kube_aggregator",
        "kube-aggregator",
        1,
    );
    format!("io.k8s.{rest}")
}

fn renamed<T>(map: BTreeMap<String, T>) -> BTreeMap<String, T> {
    map.into_iter().map(|(name, value)| (openapi_name(&name), value)).collect()
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
}

fn read_gzipped(path: &Path) -> anyhow::Result<Value> {
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .with_context(|| format!("unpack {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
}
