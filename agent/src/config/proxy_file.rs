//! What is read of a `kubeproxy.config.k8s.io/v1alpha1` KubeProxyConfiguration: the fields that mean something without
//! iptables, IPVS or nftables. Checked in [`super::services`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// The fields this agent acts on.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyFile {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    /// Ranges of pods, separated by commas.
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    /// Ranges of node addresses at which NodePorts are reached; `primary`: the node's own addresses.
    pub node_port_addresses: Option<Vec<String>>,
    /// Connection tracking.
    pub conntrack: Conntrack,
    /// Address (and port) of kube-proxy's health check.
    pub healthz_bind_address: String,
    /// Address (and port) of kube-proxy's metrics.
    pub metrics_bind_address: String,
    /// Name of the node.
    pub hostname_override: String,
    /// How the API server is reached.
    pub client_connection: ClientConnection,
    /// Fields that are there and of which nothing is used.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// `conntrack` of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conntrack {
    /// Idle established TCP connections.
    pub tcp_established_timeout: Option<String>,
    /// Half-closed TCP connections.
    pub tcp_close_wait_timeout: Option<String>,
    /// Datagrams in one direction.
    pub udp_timeout: Option<String>,
    /// Datagrams in both directions.
    pub udp_stream_timeout: Option<String>,
    /// Connections for each core.
    pub max_per_core: Option<u32>,
    /// Least number of connections.
    pub min: Option<u32>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// `clientConnection` of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    /// File with the API server's address and our credentials; empty: those of the pod we run in.
    pub kubeconfig: PathBuf,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// Fields of other ways to balance Services: without effect whatever they say, so that a file written for kube-proxy is
/// taken without a word about each of its defaults.
const WITHOUT_EFFECT: [&str; 22] = [
    "acceptContentTypes",
    "tcpBeLiberal",
    "bindAddress",
    "bindAddressHardFail",
    "burst",
    "configSyncPeriod",
    "contentType",
    "detectLocal",
    "detectLocalMode",
    "enableProfiling",
    "featureGates",
    "iptables",
    "ipvs",
    "logging",
    "mode",
    "nftables",
    "oomScoreAdj",
    "portRange",
    "qps",
    "showHiddenMetricsForVersion",
    "windowsRunAsService",
    "winkernel",
];

impl ProxyFile {
    /// Names of the fields that are set but that this agent does not act on.
    pub fn ignored(&self) -> impl Iterator<Item = &str> {
        let all = self
            .others
            .keys()
            .chain(self.conntrack.others.keys())
            .chain(self.client_connection.others.keys());
        all.map(String::as_str).filter(|name| !WITHOUT_EFFECT.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_of_kubeadm() {
        let file: ProxyFile = serde_json::from_value(json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "bindAddress": "0.0.0.0", "bindAddressHardFail": false, "configSyncPeriod": "0s",
            "clientConnection": {"acceptContentTypes": "", "burst": 0, "contentType": "",
                                 "kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf", "qps": 0},
            "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56",
            "conntrack": {"maxPerCore": null, "min": null, "tcpBeLiberal": false, "tcpCloseWaitTimeout": null,
                          "tcpEstablishedTimeout": "24h0m0s", "udpStreamTimeout": "0s", "udpTimeout": "0s"},
            "detectLocal": {"bridgeInterface": "", "interfaceNamePrefix": ""}, "detectLocalMode": "",
            "enableProfiling": false, "healthzBindAddress": "", "hostnameOverride": "",
            "iptables": {"masqueradeAll": false}, "ipvs": {}, "nftables": {}, "logging": {},
            "metricsBindAddress": "", "mode": "", "nodePortAddresses": null, "oomScoreAdj": null,
            "portRange": "", "showHiddenMetricsForVersion": "", "winkernel": {}, "novelty": 1
        }))
        .expect("decodes");
        assert_eq!(file.cluster_cidr, "10.244.0.0/16,fd00:10:244::/56");
        assert_eq!(file.conntrack.tcp_established_timeout.as_deref(), Some("24h0m0s"));
        assert_eq!(file.client_connection.kubeconfig, PathBuf::from("/var/lib/kube-proxy/kubeconfig.conf"));
        assert_eq!(file.ignored().collect::<Vec<_>>(), ["novelty"]);
    }
}
