//! The KubeletConfiguration file: the fields this agent acts on, and a warning for each of the others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::Taint;

/// What is read of a `kubelet.config.k8s.io/v1beta1` KubeletConfiguration.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigFile {
    api_version: String,
    kind: String,
    /// Address of the node API.
    pub address: Option<IpAddr>,
    /// Port of the node API.
    pub port: Option<u16>,
    /// Address of the health checks.
    pub healthz_bind_address: Option<IpAddr>,
    /// Port of the health checks.
    pub healthz_port: Option<u16>,
    /// Serving certificate.
    pub tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate.
    pub tls_private_key_file: Option<PathBuf>,
    /// Who may use the node API.
    pub authentication: Authentication,
    /// DNS servers of pods.
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster.
    pub cluster_domain: Option<String>,
    /// The node's own DNS configuration.
    pub resolv_conf: Option<PathBuf>,
    /// Runtime socket.
    pub container_runtime_endpoint: Option<String>,
    /// Most pods.
    pub max_pods: Option<u32>,
    /// Size at which a log is rotated.
    pub container_log_max_size: Option<String>,
    /// Log files kept.
    pub container_log_max_files: Option<u32>,
    /// How long a lease is good for.
    pub node_lease_duration_seconds: Option<u32>,
    /// From when on memory, disk or process ids are scarce.
    pub eviction_hard: Option<BTreeMap<String, String>>,
    /// Taints to register with.
    pub register_with_taints: Vec<Taint>,
    /// Fields we know nothing to do with.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// `authentication` of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    /// Client certificates.
    pub x509: X509,
}

/// `authentication.x509` of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct X509 {
    /// CA of the clients.
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: Self = serde_saphyr::from_str(text).context("decode KubeletConfiguration")?;
        ensure!(
            file.kind == "KubeletConfiguration" && file.api_version == "kubelet.config.k8s.io/v1beta1",
            "this is {:?} of {:?}, not KubeletConfiguration of kubelet.config.k8s.io/v1beta1",
            file.kind,
            file.api_version
        );
        Ok(file)
    }

    /// Names of the fields that are set but that this agent does not act on.
    pub fn ignored(&self) -> impl Iterator<Item = &str> {
        self.others.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_knows_and_names_the_rest() {
        let file = ConfigFile::parse(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 42\n\
             clusterDNS: [10.96.0.10]\nauthentication:\n  x509:\n    clientCAFile: /ca\nevictionSoft: {}\n",
        )
        .expect("decodes");
        assert_eq!(file.max_pods, Some(42));
        assert_eq!(file.cluster_dns, ["10.96.0.10".parse::<IpAddr>().expect("address")]);
        assert_eq!(file.authentication.x509.client_ca_file, Some(PathBuf::from("/ca")));
        assert_eq!(file.ignored().collect::<Vec<_>>(), ["evictionSoft"]);
    }

    #[test]
    fn other_kinds_are_refused() {
        assert!(ConfigFile::parse("apiVersion: v1\nkind: Config\n").is_err());
        assert!(ConfigFile::parse("{").is_err());
    }
}
