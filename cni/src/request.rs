//! A command of the runtime: as it comes (environment and standard input), and as it is once everything is checked.
//!
//! Must not know: what a command does.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ipam::{HostPort, Key, PodName, host_port};
use crate::spec::{
    DECODING_FAILURE, Error, INCOMPATIBLE_VERSION, INVALID_CONFIGURATION, INVALID_ENVIRONMENT, NetworkConfig,
    VERSIONS,
};

/// What the runtime gave the plugin; also what the plugin sends to the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// `CNI_COMMAND`
    pub command: String,
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// `CNI_NETNS`
    pub netns: String,
    /// `CNI_IFNAME`
    pub ifname: String,
    /// `CNI_ARGS`
    pub args: String,
    /// Standard input.
    pub config: Value,
}

impl Call {
    /// From the environment, as `get` tells it, and standard input.
    pub fn read(get: impl Fn(&str) -> Option<String>, stdin: &[u8]) -> Result<Self, Error> {
        let variable = |name| get(name).unwrap_or_default();
        let config = match stdin.trim_ascii() {
            [] => Value::Object(serde_json::Map::new()),
            bytes => serde_json::from_slice(bytes).map_err(|error| {
                Error::new(DECODING_FAILURE, format!("read network configuration: {error}"))
            })?,
        };
        Ok(Self {
            command: variable("CNI_COMMAND"),
            container_id: variable("CNI_CONTAINERID"),
            netns: variable("CNI_NETNS"),
            ifname: variable("CNI_IFNAME"),
            args: variable("CNI_ARGS"),
            config,
        })
    }

    /// The version the configuration asks for; empty if it names none.
    pub fn version(&self) -> &str {
        self.config.get("cniVersion").and_then(Value::as_str).unwrap_or_default()
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Connect a container.
    Add,
    /// Disconnect it.
    Del,
    /// See whether it is connected as it should be.
    Check,
    /// See whether ADD would work.
    Status,
    /// Disconnect every container that is not named.
    Gc,
    /// Name the versions spoken.
    Version,
}

impl Command {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "STATUS" => Self::Status,
            "GC" => Self::Gc,
            "VERSION" => Self::Version,
            _ => return None,
        })
    }

    /// The oldest version that has the command.
    fn since(self) -> &'static str {
        match self {
            Self::Add | Self::Del | Self::Version => "0.3.0",
            Self::Check => "0.4.0",
            Self::Status | Self::Gc => "1.1.0",
        }
    }

    /// Whether it is about one container.
    fn has_container(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
}

/// A command that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// Version of the specification to answer in.
    pub version: String,
    /// Which attachment; empty for commands about none.
    pub key: Key,
    /// The container's network namespace; DEL may have none.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS` by name.
    pub args: BTreeMap<String, String>,
    /// Ports of the node that are to lead to the container.
    pub host_ports: Vec<HostPort>,
    /// The configuration.
    pub config: NetworkConfig,
}

impl Request {
    /// Checks a call.
    pub fn parse(call: &Call) -> Result<Self, Error> {
        let command = Command::parse(&call.command).ok_or_else(|| {
            Error::new(INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND {:?}", call.command))
        })?;
        let config: NetworkConfig = serde_json::from_value(call.config.clone())
            .map_err(|error| Error::new(DECODING_FAILURE, format!("read network configuration: {error}")))?;
        let version = version(&config, command)?;
        if command != Command::Version && config.name.is_empty() {
            return Err(Error::new(INVALID_CONFIGURATION, "the network configuration has no name"));
        }
        let key = Key { container_id: call.container_id.clone(), ifname: call.ifname.clone() };
        let netns = (!call.netns.is_empty()).then(|| PathBuf::from(&call.netns));
        if command.has_container() {
            check_key(&key)?;
            if netns.is_none() && command != Command::Del {
                return Err(Error::new(INVALID_ENVIRONMENT, "CNI_NETNS is missing"));
            }
        }
        let mappings = config.runtime_config.get("portMappings").unwrap_or(&Value::Null);
        let host_ports = host_port::read(mappings)
            .map_err(|problem| Error::new(INVALID_CONFIGURATION, format!("runtimeConfig: {problem}")))?;
        Ok(Self { command, version, key, netns, args: arguments(&call.args), host_ports, config })
    }

    /// The pod that the container is of.
    pub fn pod(&self) -> PodName {
        let arg = |name| self.args.get(name).map_or("", String::as_str);
        let name = format!("{}/{}", arg("K8S_POD_NAMESPACE"), arg("K8S_POD_NAME"));
        PodName { name, uid: arg("K8S_POD_UID").to_owned() }
    }
}

/// The version to answer in, if we speak it and it has the command.
fn version(config: &NetworkConfig, command: Command) -> Result<String, Error> {
    let asked = config.cni_version.as_str();
    if command == Command::Version {
        return Ok(asked.to_owned());
    }
    let position = |version| VERSIONS.iter().position(|known| *known == version);
    let Some(found) = position(asked) else {
        return Err(Error::new(
            INCOMPATIBLE_VERSION,
            format!("cniVersion {asked:?} is not supported; supported are {}", VERSIONS.join(", ")),
        ));
    };
    if Some(found) < position(command.since()) {
        return Err(Error::new(
            INCOMPATIBLE_VERSION,
            format!("cniVersion {asked} has no such command; it came with {}", command.since()),
        ));
    }
    Ok(asked.to_owned())
}

fn check_key(key: &Key) -> Result<(), Error> {
    let wrong = |msg: String| Err(Error::new(INVALID_ENVIRONMENT, msg));
    let id = key.container_id.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if id.is_empty() || id.len() > 200 || !id[0].is_ascii_alphanumeric() || !id.iter().all(allowed) {
        return wrong(format!("CNI_CONTAINERID {:?} is no container id", key.container_id));
    }
    let name = key.ifname.as_str();
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(forbidden) {
        return wrong(format!("CNI_IFNAME {name:?} is no device name"));
    }
    Ok(())
}

/// `A=1;B=2` by name; what is no pair is passed over, as plugins do.
fn arguments(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(command: &str, version: &str) -> Call {
        Call {
            command: command.into(),
            container_id: "4f1e".into(),
            netns: "/run/netns/x".into(),
            ifname: "eth0".into(),
            args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0".into(),
            config: json!({ "cniVersion": version, "name": "pagurus", "type": "pagurus-cni" }),
        }
    }

    fn check(call: &Call, code: Option<u32>) {
        assert_eq!(Request::parse(call).err().map(|error| error.code), code, "{call:?}");
    }

    #[test]
    fn commands_and_versions() {
        for version in VERSIONS {
            check(&call("ADD", version), None);
        }
        check(&call("CHECK", "0.3.1"), Some(INCOMPATIBLE_VERSION));
        check(&call("CHECK", "0.4.0"), None);
        check(&call("GC", "1.0.0"), Some(INCOMPATIBLE_VERSION));
        check(&call("STATUS", "1.1.0"), None);
        check(&call("ADD", "9.0.0"), Some(INCOMPATIBLE_VERSION));
        check(&call("ADD", ""), Some(INCOMPATIBLE_VERSION));
        check(&call("JUMP", "1.0.0"), Some(INVALID_ENVIRONMENT));
    }

    #[test]
    fn what_is_missing_or_dangerous_is_refused() {
        let with = |change: fn(&mut Call)| {
            let mut call = call("ADD", "1.0.0");
            change(&mut call);
            call
        };
        check(&with(|call| call.container_id.clear()), Some(INVALID_ENVIRONMENT));
        check(&with(|call| call.container_id = "../../etc/x".into()), Some(INVALID_ENVIRONMENT));
        check(&with(|call| call.ifname = "a/b".into()), Some(INVALID_ENVIRONMENT));
        check(&with(|call| call.ifname = "much-too-long-name".into()), Some(INVALID_ENVIRONMENT));
        check(&with(|call| call.netns.clear()), Some(INVALID_ENVIRONMENT));
        check(&with(|call| call.config = json!([])), Some(DECODING_FAILURE));
        check(&with(|call| call.config["name"] = json!("")), Some(INVALID_CONFIGURATION));
        let mappings = json!({ "portMappings": [{ "hostPort": 1, "containerPort": 1, "protocol": "x" }] });
        let mut wrong = call("ADD", "1.0.0");
        wrong.config["runtimeConfig"] = mappings;
        check(&wrong, Some(INVALID_CONFIGURATION));
        let mut del = call("DEL", "1.0.0");
        del.netns.clear();
        check(&del, None);
    }

    #[test]
    fn pods_are_named_by_arguments() {
        let mut call = call("ADD", "1.0.0");
        let pod = |call: &Call| Request::parse(call).expect("good").pod();
        assert_eq!(pod(&call), PodName::from("ns/web-0"));
        call.args.push_str(";K8S_POD_UID=1-2");
        assert_eq!(pod(&call), PodName { name: "ns/web-0".into(), uid: "1-2".into() });
    }

    #[test]
    fn calls_come_from_the_environment() {
        let get = |name: &str| (name == "CNI_COMMAND").then(|| "VERSION".to_owned());
        assert_eq!(Call::read(get, b"").expect("good").command, "VERSION");
        assert_eq!(Call::read(get, b"{").expect_err("no JSON").code, DECODING_FAILURE);
        let call = Call::read(get, b"{\"cniVersion\":\"1.0.0\"}\n").expect("good");
        assert_eq!(call.version(), "1.0.0");
    }
}
