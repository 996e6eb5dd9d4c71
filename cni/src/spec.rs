//! The CNI specification's words: versions, results, errors. Wire types only.
//!
//! Must not know: what a command does.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::ipam::Attachment;
use crate::veth::{self, Wiring};

/// The versions of the specification we speak, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A protocol version that is not ours.
pub const INCOMPATIBLE_VERSION: u32 = 1;
/// An environment variable is missing or wrong.
pub const INVALID_ENVIRONMENT: u32 = 4;
/// Reading or writing failed.
pub const IO_FAILURE: u32 = 5;
/// The configuration is not JSON of the right shape.
pub const DECODING_FAILURE: u32 = 6;
/// The configuration makes no sense.
pub const INVALID_CONFIGURATION: u32 = 7;
/// Something passing is missing: the same command may work later.
pub const TRY_AGAIN_LATER: u32 = 11;
/// STATUS: the plugin cannot serve ADD.
pub const NOT_AVAILABLE: u32 = 50;
/// Ours: the network refused to be wired.
pub const WIRING_FAILED: u32 = 100;
/// Ours: CHECK found the network not as it should be.
pub const CHECK_FAILED: u32 = 101;

/// The specification's error object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}")]
pub struct Error {
    /// One of the numbers above.
    pub code: u32,
    /// What happened.
    pub msg: String,
    /// The causes, if there is more to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl Error {
    /// With a message.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// From an error and what caused it.
    pub fn from_source(code: u32, error: &dyn std::error::Error) -> Self {
        let causes: Vec<String> =
            std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string).collect();
        // Runtimes show the message and often drop the details.
        let msg = std::iter::once(error.to_string()).chain(causes).collect::<Vec<_>>().join(": ");
        Self::new(code, msg)
    }

    /// As a plugin prints it.
    pub fn to_json(&self, version: &str) -> Value {
        json!({ "cniVersion": version, "code": self.code, "msg": self.msg, "details": self.details })
    }
}

/// What VERSION answers.
pub fn versions(asked: &str) -> Value {
    let newest = VERSIONS[VERSIONS.len() - 1];
    let version = if VERSIONS.contains(&asked) { asked } else { newest };
    json!({ "cniVersion": version, "supportedVersions": VERSIONS })
}

/// Whether results of this version name the family of each address.
fn names_family(version: &str) -> bool {
    version.starts_with("0.")
}

/// The result of an attachment, in the form of a version of the specification.
pub fn result(version: &str, attachment: &Attachment, wiring: &Wiring) -> Value {
    let sandbox = attachment.netns.display().to_string();
    let mut host = json!({ "name": wiring.host_link, "mac": wiring.host_mac().to_string() });
    let mut pod = json!({ "name": wiring.pod_link, "mac": wiring.pod_mac().to_string(), "sandbox": sandbox });
    if version == "1.1.0" {
        host["mtu"] = wiring.mtu.into();
        pod["mtu"] = wiring.mtu.into();
    }
    let ips: Vec<Value> = wiring
        .ips
        .iter()
        .map(|ip| {
            let address = ipnet::IpNet::from(*ip).to_string();
            let mut entry = json!({ "address": address, "gateway": veth::gateway(ip), "interface": 1 });
            if names_family(version) {
                entry["version"] = if ip.is_ipv4() { "4" } else { "6" }.into();
            }
            entry
        })
        .collect();
    let routes: Vec<Value> = wiring
        .ips
        .iter()
        .map(|ip| json!({ "dst": veth::default_route(ip).to_string(), "gw": veth::gateway(ip) }))
        .collect();
    json!({ "cniVersion": version, "interfaces": [host, pod], "ips": ips, "routes": routes, "dns": {} })
}

/// The result of the loopback device.
pub fn loopback_result(version: &str, netns: &Path) -> Value {
    let mut ips = [
        json!({ "address": "127.0.0.1/8", "interface": 0 }),
        json!({ "address": "::1/128", "interface": 0 }),
    ];
    if names_family(version) {
        ips[0]["version"] = "4".into();
        ips[1]["version"] = "6".into();
    }
    let link = json!({ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns.display().to_string() });
    json!({ "cniVersion": version, "interfaces": [link], "ips": ips, "dns": {} })
}

/// The network configuration a runtime hands over, as far as we look at it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkConfig {
    /// Version of the specification.
    pub cni_version: String,
    /// Name of the network.
    pub name: String,
    /// Name of the plugin.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where the agent listens.
    pub agent_socket: Option<String>,
    /// Arguments for the capabilities that the configuration names.
    pub runtime_config: Map<String, Value>,
    /// Result of the plugin before us, or of our own ADD.
    pub prev_result: Option<Value>,
    /// GC: the attachments that are alive.
    #[serde(rename = "cni.dev/valid-attachments", alias = "cni.dev/attachments")]
    pub valid_attachments: Option<Vec<ValidAttachment>>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// An attachment that GC must keep.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ValidAttachment {
    /// The runtime's id of the container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Name of the device in the container.
    pub ifname: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::Key;

    #[test]
    fn results_follow_the_version() {
        let key = Key { container_id: "c".into(), ifname: "eth0".into() };
        let ips = vec!["10.244.0.7".parse().expect("ip"), "fd00::7".parse().expect("ip")];
        let wiring = Wiring {
            host_link: "pgr0".into(),
            pod_link: "eth0".into(),
            ips: ips.clone(),
            node_ips: Vec::new(),
            mtu: 1500,
        };
        let attachment = Attachment {
            key,
            netns: "/run/netns/c".into(),
            pod: "ns/pod".into(),
            pod_uid: String::new(),
            ips,
            host_ports: Vec::new(),
            boot_id: String::new(),
        };
        let old = result("0.3.1", &attachment, &wiring);
        assert_eq!(
            old["ips"][1],
            json!({ "address": "fd00::7/128", "gateway": "fe80::1", "interface": 1, "version": "6" })
        );
        let new = result("1.0.0", &attachment, &wiring);
        assert_eq!(
            new["ips"][0],
            json!({ "address": "10.244.0.7/32", "gateway": "169.254.1.1", "interface": 1 })
        );
        assert_eq!(new["routes"][1], json!({ "dst": "::/0", "gw": "fe80::1" }));
        assert_eq!(new["interfaces"][1]["sandbox"], "/run/netns/c");
        assert_eq!(new["interfaces"][1].get("mtu"), None);
        assert_eq!(result("1.1.0", &attachment, &wiring)["interfaces"][1]["mtu"], 1500);
    }

    #[test]
    fn configurations() {
        let config: NetworkConfig = serde_json::from_value(json!({
            "cniVersion": "1.1.0", "name": "pagurus", "type": "pagurus-cni",
            "cni.dev/valid-attachments": [{ "containerID": "a", "ifname": "eth0" }], "capabilities": {}
        }))
        .expect("a configuration");
        assert_eq!(config.kind, "pagurus-cni");
        assert_eq!(config.valid_attachments.map(|valid| valid.len()), Some(1));
    }
}
