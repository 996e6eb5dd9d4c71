//! The environment of a container, from all its sources, and the expansion of `$(NAME)`.
//! Must not know where config maps and secrets come from: it is handed those that the pod refers to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use pagurus_controlplane_api::quantity::Quantity;

use super::resources;
use super::spec::{Container, EnvSource, FieldReference, Pod};

/// The config maps and secrets of one namespace that a pod refers to, by name. What is absent does not exist.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Config maps.
    pub config_maps: BTreeMap<String, Arc<ObjectData>>,
    /// Secrets.
    pub secrets: BTreeMap<String, Arc<ObjectData>>,
}

/// The content of a config map or secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectData {
    /// Entries that may become environment.
    pub data: BTreeMap<String, Vec<u8>>,
    /// Entries that may only become files.
    pub binary: BTreeMap<String, Vec<u8>>,
}

impl ObjectData {
    /// The entry of this key.
    pub fn get(&self, key: &str) -> Option<&Vec<u8>> {
        self.data.get(key).or_else(|| self.binary.get(key))
    }
}

/// A Service as containers are told about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceLink {
    /// Name.
    pub name: String,
    /// Address.
    pub ip: String,
    /// Name, number and protocol of each port.
    pub ports: Vec<(String, i32, String)>,
}

/// What a container's environment can show besides its own spec.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Config maps and secrets.
    pub objects: Objects,
    /// Services of the pod's namespace, if it wants them, and the API server's.
    pub services: Vec<ServiceLink>,
    /// Addresses of the pod.
    pub pod_ips: Vec<IpAddr>,
    /// Addresses of the node.
    pub host_ips: Vec<IpAddr>,
    /// What the node can give.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// Why an environment cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// The object is not there.
    #[error("{kind} \"{name}\" not found")]
    Missing {
        /// configmap or secret.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// ConfigMap or Secret.
        kind: &'static str,
        /// Where.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A source that this node cannot use.
    #[error("environment from {0} is not supported by this node")]
    Unsupported(&'static str),
    /// There is no such field.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// A limit or request has no value.
    #[error(transparent)]
    Resource(#[from] resources::ReferenceError),
}

/// The environment of this container, in order. Later entries of the same name have replaced earlier ones.
pub fn environment(
    pod: &Pod,
    container: &Container,
    around: &Surroundings,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut made = Environment::default();
    for source in &container.env_from {
        let (kind, reference) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(reference), _) => ("configmap", reference),
            (None, Some(reference)) => ("secret", reference),
            (None, None) => continue,
        };
        let objects = if kind == "secret" { &around.objects.secrets } else { &around.objects.config_maps };
        match objects.get(&reference.name) {
            Some(object) => {
                for (key, value) in &object.data {
                    made.set(format!("{}{key}", source.prefix), String::from_utf8_lossy(value).into_owned());
                }
            }
            None if reference.optional => {}
            None => return Err(EnvError::Missing { kind, name: reference.name.clone() }),
        }
    }
    let links: BTreeMap<String, String> = around.services.iter().flat_map(link_variables).collect();
    for variable in &container.env {
        let value = match &variable.value_from {
            Some(source) => value_from(pod, container, source, around)?,
            None => Some(expand(&variable.value, |name| made.get(name).or_else(|| links.get(name)).cloned())),
        };
        if let Some(value) = value {
            made.set(variable.name.clone(), value);
        }
    }
    for (name, value) in links {
        if made.get(&name).is_none() {
            made.set(name, value);
        }
    }
    Ok(made.entries)
}

#[derive(Default)]
struct Environment {
    entries: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
}

impl Environment {
    fn get(&self, name: &str) -> Option<&String> {
        self.places.get(name).map(|place| &self.entries[*place].1)
    }

    fn set(&mut self, name: String, value: String) {
        match self.places.get(&name) {
            Some(place) => self.entries[*place].1 = value,
            None => {
                self.places.insert(name.clone(), self.entries.len());
                self.entries.push((name, value));
            }
        }
    }
}

/// The value from this source; `None` where an optional reference leads nowhere.
fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvSource,
    around: &Surroundings,
) -> Result<Option<String>, EnvError> {
    if source.file_key_ref.is_some() {
        return Err(EnvError::Unsupported("fileKeyRef"));
    }
    if let Some(reference) = &source.field_ref {
        return field(pod, reference, around).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return Ok(Some(resources::reference(pod, Some(container), reference, &around.allocatable)?));
    }
    let (kind, lower, reference, objects) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(reference), _) => ("ConfigMap", "configmap", reference, &around.objects.config_maps),
        (None, Some(reference)) => ("Secret", "secret", reference, &around.objects.secrets),
        (None, None) => return Ok(Some(String::new())),
    };
    let object = match objects.get(&reference.name) {
        Some(object) => object,
        None if reference.optional => return Ok(None),
        None => return Err(EnvError::Missing { kind: lower, name: reference.name.clone() }),
    };
    match object.data.get(&reference.key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if reference.optional => Ok(None),
        None => Err(EnvError::Key {
            kind,
            namespace: pod.name.namespace.clone(),
            name: reference.name.clone(),
            key: reference.key.clone(),
        }),
    }
}

/// The value of a field of the pod.
pub fn field(pod: &Pod, reference: &FieldReference, around: &Surroundings) -> Result<String, EnvError> {
    let path = reference.field_path.as_str();
    let all = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(IpAddr::to_string).unwrap_or_default();
    let unsupported = || EnvError::Field(path.to_owned());
    if let Some((map, key)) = path.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        let entries = match map {
            "metadata.labels" => &pod.labels,
            "metadata.annotations" => &pod.annotations,
            _ => return Err(unsupported()),
        };
        return Ok(entries.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod.name.name.clone(),
        "metadata.namespace" => pod.name.namespace.clone(),
        "metadata.uid" => pod.uid.to_string(),
        "metadata.labels" => lines(&pod.labels),
        "metadata.annotations" => lines(&pod.annotations),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" => first(&around.host_ips),
        "status.hostIPs" => all(&around.host_ips),
        "status.podIP" => first(&around.pod_ips),
        "status.podIPs" => all(&around.pod_ips),
        _ => return Err(unsupported()),
    })
}

/// One `key="value"` per line, in order of the keys.
fn lines(entries: &BTreeMap<String, String>) -> String {
    entries.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect::<Vec<_>>().join("\n")
}

/// A text in double quotes, with the escapes that Go's `%q` makes.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar; what has no value stays as it is.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        match after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            Some((name, tail)) => {
                match lookup(name) {
                    Some(value) => out.push_str(&value),
                    None => {
                        out.push_str("$(");
                        out.push_str(name);
                        out.push(')');
                    }
                }
                rest = tail;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The variables by which a Service makes itself known.
fn link_variables(service: &ServiceLink) -> Vec<(String, String)> {
    let Some((_, first, _)) = service.ports.first() else { return Vec::new() };
    let upper = |text: &str| text.replace('-', "_").to_uppercase();
    let prefix = upper(&service.name);
    let host = if service.ip.contains(':') { format!("[{}]", service.ip) } else { service.ip.clone() };
    let mut out = vec![
        (format!("{prefix}_SERVICE_HOST"), service.ip.clone()),
        (format!("{prefix}_SERVICE_PORT"), first.to_string()),
    ];
    let named = service.ports.iter().filter(|(name, ..)| !name.is_empty());
    out.extend(
        named.map(|(name, port, _)| (format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.to_string())),
    );
    for (place, (_, port, protocol)) in service.ports.iter().enumerate() {
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{host}:{port}");
        if place == 0 {
            out.push((format!("{prefix}_PORT"), url.clone()));
        }
        let one = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        out.push((format!("{one}_PROTO"), lower));
        out.push((format!("{one}_PORT"), port.to_string()));
        out.push((format!("{one}_ADDR"), service.ip.clone()));
        out.push((one, url));
    }
    out
}

#[cfg(test)]
mod tests;
