//! Configuration files: the fields this agent acts on, and a warning for each of the others. A file holds a
//! KubeletConfiguration, a KubeProxyConfiguration, or one of each as two YAML documents.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::Taint;
use super::proxy_file::ProxyFile;

/// Everything that configuration files say.
#[derive(Debug, Default)]
pub struct ConfigFiles {
    /// What the kubelet would read.
    pub kubelet: ConfigFile,
    /// What kube-proxy would read.
    pub proxy: ProxyFile,
}

impl ConfigFiles {
    /// Reads and checks files; each kind may be there once.
    pub fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut found = (None, None);
        for path in paths {
            let read = std::fs::read_to_string(path).map_err(anyhow::Error::from);
            read.and_then(|text| take(&text, &mut found))
                .with_context(|| format!("read configuration {}", path.display()))?;
        }
        Ok(Self { kubelet: found.0.unwrap_or_default(), proxy: found.1.unwrap_or_default() })
    }

    /// Names of the fields that are set but that this agent does not act on.
    pub fn ignored(&self) -> impl Iterator<Item = &str> {
        self.kubelet.ignored().chain(self.proxy.ignored())
    }
}

/// Takes the documents of one file.
fn take(text: &str, found: &mut (Option<ConfigFile>, Option<ProxyFile>)) -> anyhow::Result<()> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("decode YAML")?;
    let mut empty = true;
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        empty = false;
        let named = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        match (named("apiVersion").as_str(), named("kind").as_str()) {
            ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration") => {
                let file = serde_json::from_value(document).context("decode KubeletConfiguration")?;
                ensure!(found.0.replace(file).is_none(), "KubeletConfiguration is there twice");
            }
            ("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration") => {
                let file = serde_json::from_value(document).context("decode KubeProxyConfiguration")?;
                ensure!(found.1.replace(file).is_none(), "KubeProxyConfiguration is there twice");
            }
            (version, kind) => bail!(
                "this is {kind:?} of {version:?}, neither KubeletConfiguration of kubelet.config.k8s.io/v1beta1 nor \
                 KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1"
            ),
        }
    }
    ensure!(!empty, "there is no configuration in it");
    Ok(())
}

/// What is read of a `kubelet.config.k8s.io/v1beta1` KubeletConfiguration.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigFile {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
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
    /// Names of the fields that are set but that this agent does not act on.
    pub fn ignored(&self) -> impl Iterator<Item = &str> {
        self.others.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<ConfigFiles> {
        let mut found = (None, None);
        take(text, &mut found)?;
        Ok(ConfigFiles { kubelet: found.0.unwrap_or_default(), proxy: found.1.unwrap_or_default() })
    }

    #[test]
    fn reads_what_it_knows_and_names_the_rest() {
        let file = parse(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 42\n\
             clusterDNS: [10.96.0.10]\nauthentication:\n  x509:\n    clientCAFile: /ca\nevictionSoft: {}\n",
        )
        .expect("decodes");
        assert_eq!(file.kubelet.max_pods, Some(42));
        assert_eq!(file.kubelet.cluster_dns, ["10.96.0.10".parse::<IpAddr>().expect("address")]);
        assert_eq!(file.kubelet.authentication.x509.client_ca_file, Some(PathBuf::from("/ca")));
        assert_eq!(file.ignored().collect::<Vec<_>>(), ["evictionSoft"]);
    }

    #[test]
    fn two_kinds_in_one_file() {
        let file = parse(
            "---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.0.0.0/8\n\
             ---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 42\n---\n",
        )
        .expect("decodes");
        assert_eq!((file.kubelet.max_pods, file.proxy.cluster_cidr.as_str()), (Some(42), "10.0.0.0/8"));
        let twice = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        assert!(parse(&format!("{twice}---\n{twice}")).is_err());
    }

    #[test]
    fn other_kinds_are_refused() {
        assert!(parse("apiVersion: v1\nkind: Config\n").is_err());
        assert!(parse("{").is_err());
        assert!(parse("").is_err());
    }
}
