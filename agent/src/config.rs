//! The validated configuration, and the context every subsystem is handed. It exists only if the flags make sense
//! together; whether the machine allows it is [`crate::process::preflight`]'s question.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use pagurus_agent_core::node::{Signal, Threshold, Thresholds};
use pagurus_cni::overlay;
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::quantity::Quantity;
use pagurus_cri_api::Runtime;

use crate::dns::Source;
use crate::process::debug_state::DebugState;
use crate::process::metrics::Metrics;
use crate::process::readiness::Readiness;
use crate::report::events::{self, Recorder, Writer};

mod addresses;
mod file;
mod proxy_file;
mod services;
mod taint;

pub use file::ConfigFiles;
pub use services::{Choice, Masquerade, Mode, NodePortAddresses, ServiceConfig, ServiceSettings};
pub use taint::Taint;

/// Who gets addresses of load balancers, and which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Networks and ranges of a pool for everybody, beside those of the ConfigMap.
    pub pools: Vec<String>,
    /// Services without `loadBalancerClass` get addresses too.
    pub unclassed: bool,
}

/// What was asked for on the command line, before it is checked.
#[derive(Debug)]
pub struct Settings {
    /// `--kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// `--node-name`
    pub node_name: Option<String>,
    /// `--node-ip`
    pub node_ips: Vec<IpAddr>,
    /// `--container-runtime-endpoint`
    pub runtime_endpoint: String,
    /// `--root-dir`
    pub root_dir: PathBuf,
    /// `--pod-logs-dir`
    pub pod_logs_dir: PathBuf,
    /// `--kubelet`
    pub kubelet: bool,
    /// `--dataplane`
    pub dataplane: bool,
    /// `--pod-network`
    pub pod_network: bool,
    /// `--cgroup-root`
    pub cgroup_root: Option<PathBuf>,
    /// `--bpffs`
    pub bpffs: PathBuf,
    /// `--cni-socket`
    pub cni_socket: PathBuf,
    /// `--cni-conf-dir`
    pub cni_conf_dir: PathBuf,
    /// `--routing`, `--vxlan-id` and `--vxlan-port`
    pub routing: overlay::Options,
    /// `--cluster-dns-server`
    pub cluster_dns_server: Option<bool>,
    /// `--dns-upstream`
    pub dns_upstreams: Vec<String>,
    /// `--load-balancer-pool` and `--load-balancer-unclassed`
    pub load_balancer: LoadBalancer,
    /// `--cluster-dns`
    pub cluster_dns: Vec<IpAddr>,
    /// `--cluster-domain`
    pub cluster_domain: Option<String>,
    /// `--address`
    pub address: Option<IpAddr>,
    /// `--port`
    pub port: Option<u16>,
    /// `--healthz-bind-address`
    pub healthz_bind_address: Option<IpAddr>,
    /// `--healthz-port`
    pub healthz_port: Option<u16>,
    /// `--tls-cert-file` and `--tls-private-key-file`
    pub tls_files: Option<(PathBuf, PathBuf)>,
    /// `--client-ca-file`
    pub client_ca_file: Option<PathBuf>,
    /// `--max-pods`
    pub max_pods: Option<u32>,
    /// `--node-labels`
    pub node_labels: Vec<String>,
    /// `--register-with-taints`
    pub taints: Vec<String>,
    /// `--eviction-hard`
    pub eviction_hard: Vec<String>,
    /// The flags of Service load balancing.
    pub services: ServiceSettings,
    /// `--log`
    pub log: String,
}

/// The configuration of this agent, all of it checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// File with the API server's address and our credentials; none: those of the pod we run in.
    pub kubeconfig: Option<PathBuf>,
    /// Name of the Node object.
    pub node_name: String,
    /// Addresses given for the node; empty when they are to be found out.
    pub node_ips: Vec<IpAddr>,
    /// Path of the runtime's socket.
    pub runtime_socket: PathBuf,
    /// Directory for volumes and the agent's own state (`pods/UID/...` below it, as with the kubelet).
    pub root_dir: PathBuf,
    /// Directory for container logs (`NAMESPACE_POD_UID/CONTAINER/N.log` below it).
    pub pod_logs_dir: PathBuf,
    /// Whether this agent registers the node and runs its pods.
    pub kubelet: bool,
    /// Whether this agent balances Services.
    pub dataplane: bool,
    /// Whether it connects pods, too.
    pub pod_network: bool,
    /// cgroup2 directory to attach socket programs to.
    pub cgroup_root: PathBuf,
    /// BPF file system.
    pub bpffs: PathBuf,
    /// Socket for the CNI plugin.
    pub cni_socket: PathBuf,
    /// Directory for the CNI configuration.
    pub cni_conf_dir: PathBuf,
    /// How packets get to pods of other nodes.
    pub routing: overlay::Options,
    /// Whether this agent answers its pods' DNS questions.
    pub dns_server: bool,
    /// Who is asked about names outside the cluster.
    pub dns_upstreams: Source,
    /// The node's own DNS configuration.
    pub resolv_conf: PathBuf,
    /// Addresses of Services of type LoadBalancer.
    pub load_balancer: LoadBalancer,
    /// DNS servers of pods with `dnsPolicy: ClusterFirst`; empty if they are those of the Service `kube-dns`.
    pub cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Where the node API listens; `None` is every address.
    pub address: Option<IpAddr>,
    /// Port of the node API.
    pub port: u16,
    /// Certificate and key of the node API; `None` is self-signed.
    pub tls_files: Option<(PathBuf, PathBuf)>,
    /// CA of the node API's clients; `None` is the cluster CA.
    pub client_ca_file: Option<PathBuf>,
    /// Most pods.
    pub max_pods: u32,
    /// Labels for the Node object at registration.
    pub node_labels: Vec<(String, String)>,
    /// Taints for the Node object at registration.
    pub taints: Vec<Taint>,
    /// From when on memory, disk or process ids are scarce.
    pub eviction_hard: Thresholds,
    /// How Services are balanced.
    pub services: ServiceConfig,
    /// A container's log file is rotated at this size.
    pub container_log_max_size: u64,
    /// Log files kept per container, the current one among them.
    pub container_log_max_files: u32,
    /// How long a lease of this node is good for.
    pub lease_duration: Duration,
    /// How often the node's status is written though nothing changed.
    pub status_report_interval: Duration,
    /// Where health checks are served without TLS; `None` is nowhere.
    pub healthz: Option<SocketAddr>,
    /// What to log.
    pub log: String,
    /// Fields of the configuration file that this agent does not act on, for a warning.
    pub ignored: Vec<String>,
}

impl Config {
    /// Checks settings and file together.
    pub fn new(settings: Settings, files: ConfigFiles) -> anyhow::Result<Self> {
        let ignored = files.ignored().map(str::to_owned).collect();
        let (file, proxy) = (files.kubelet, files.proxy);
        let endpoint =
            file.container_runtime_endpoint.filter(|_| settings.runtime_endpoint == DEFAULT_RUNTIME);
        let overridden = Some(&proxy.hostname_override).filter(|name| !name.is_empty()).cloned();
        let node_name = match settings.node_name.or(overridden) {
            Some(name) => name,
            None => hostname()?,
        };
        let node_name = node_name.trim().to_lowercase();
        let problems = labels::dns_subdomain(&node_name);
        ensure!(problems.is_empty(), "--node-name {node_name:?}: {}", problems.join("; "));
        ensure!(
            settings.kubelet || settings.dataplane,
            "--kubelet=off and --dataplane=off leave nothing to run; switch one of them on"
        );
        let dns_server = settings.cluster_dns_server.unwrap_or(settings.dataplane);
        ensure!(
            settings.dataplane || !dns_server,
            "--cluster-dns-server=on needs --dataplane=on, which leads pods' questions to this node"
        );
        let resolv_conf = file.resolv_conf.unwrap_or_else(|| PathBuf::from("/etc/resolv.conf"));
        let config = Self {
            dns_server,
            dns_upstreams: dns_upstreams(&settings.dns_upstreams, &resolv_conf)?,
            resolv_conf,
            kubeconfig: kubeconfig(settings.kubeconfig, &proxy.client_connection.kubeconfig, settings.kubelet)?,
            node_ips: node_ips(settings.node_ips)?,
            node_name,
            runtime_socket: socket_path(&endpoint.unwrap_or(settings.runtime_endpoint))?,
            root_dir: absolute("--root-dir", settings.root_dir)?,
            pod_logs_dir: absolute("--pod-logs-dir", settings.pod_logs_dir)?,
            kubelet: settings.kubelet,
            dataplane: settings.dataplane,
            pod_network: settings.dataplane && settings.pod_network,
            cgroup_root: match settings.cgroup_root {
                Some(path) => unified(absolute("--cgroup-root", path)?),
                None => cgroup2_mount(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
                    .context("no cgroup2 file system is mounted: mount one (mount -t cgroup2 none /sys/fs/cgroup) or give --cgroup-root")?,
            },
            bpffs: absolute("--bpffs", settings.bpffs)?,
            cni_socket: absolute("--cni-socket", settings.cni_socket)?,
            cni_conf_dir: absolute("--cni-conf-dir", settings.cni_conf_dir)?,
            routing: settings.routing,
            load_balancer: settings.load_balancer,
            cluster_dns: if settings.cluster_dns.is_empty() { file.cluster_dns } else { settings.cluster_dns },
            cluster_domain: settings
                .cluster_domain
                .or(file.cluster_domain)
                .unwrap_or_else(|| "cluster.local".to_owned())
                .trim_matches('.')
                .to_owned(),
            address: settings.address.or(file.address).filter(|address| !address.is_unspecified()),
            port: settings.port.or(file.port).unwrap_or(10250),
            tls_files: settings.tls_files.or(file.tls_cert_file.zip(file.tls_private_key_file)),
            client_ca_file: settings.client_ca_file.or(file.authentication.x509.client_ca_file),
            max_pods: settings.max_pods.or(file.max_pods).unwrap_or(110),
            node_labels: settings.node_labels.iter().map(|label| node_label(label)).collect::<Result<_, _>>()?,
            taints: if settings.taints.is_empty() {
                file.register_with_taints
            } else {
                settings.taints.iter().map(|taint| Taint::parse(taint)).collect::<Result<_, _>>()?
            },
            eviction_hard: thresholds(&settings.eviction_hard, file.eviction_hard.as_ref())?,
            services: ServiceConfig::new(settings.services, &proxy)?,
            container_log_max_size: byte_size(file.container_log_max_size.as_deref().unwrap_or("10Mi"))?,
            container_log_max_files: file.container_log_max_files.unwrap_or(5).max(2),
            lease_duration: Duration::from_secs(file.node_lease_duration_seconds.unwrap_or(40).into()),
            status_report_interval: Duration::from_secs(300),
            healthz: healthz(
                settings.healthz_bind_address.or(file.healthz_bind_address),
                settings.healthz_port.or(file.healthz_port),
            ),
            log: settings.log,
            ignored,
        };
        Ok(config)
    }

    /// The configuration as the kubelet would show it at `/configz`.
    pub fn shown(&self) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "port": self.port,
            "clusterDNS": self.cluster_dns,
            "clusterDomain": self.cluster_domain,
            "containerLogMaxFiles": self.container_log_max_files,
            "containerLogMaxSize": self.container_log_max_size.to_string(),
            "containerRuntimeEndpoint": format!("unix://{}", self.runtime_socket.display()),
            "maxPods": self.max_pods,
            "nodeLeaseDurationSeconds": self.lease_duration.as_secs(),
            "nodeStatusReportFrequency": format!("{}s", self.status_report_interval.as_secs()),
        })
    }
}

fn healthz(address: Option<IpAddr>, port: Option<u16>) -> Option<SocketAddr> {
    let port = port.unwrap_or(10248);
    (port != 0).then(|| SocketAddr::new(address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port))
}

const DEFAULT_RUNTIME: &str = "unix:///run/containerd/containerd.sock";

/// At most one address of each family, the first being the primary one.
fn node_ips(ips: Vec<IpAddr>) -> anyhow::Result<Vec<IpAddr>> {
    match ips.as_slice() {
        [] | [_] => {}
        [a, b] if a.is_ipv4() != b.is_ipv4() => {}
        _ => bail!("--node-ip takes one address, or one IPv4 and one IPv6 address"),
    }
    if let Some(bad) = ips.iter().find(|ip| ip.is_unspecified() || ip.is_multicast()) {
        bail!("--node-ip {bad} is not the address of a node");
    }
    Ok(ips)
}

/// The servers given, or else those of the file.
fn dns_upstreams(given: &[String], resolv_conf: &Path) -> anyhow::Result<Source> {
    if given.is_empty() {
        return Ok(Source::File(resolv_conf.to_owned()));
    }
    let server = |text: &String| {
        let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        bare.or_else(|_| text.parse())
            .with_context(|| format!("--dns-upstream {text:?} is not IP or IP:PORT"))
    };
    Ok(Source::Fixed(given.iter().map(server).collect::<Result<_, _>>()?))
}

/// The flag, or else what the file of kube-proxy names. A pod's own credentials are not those of a kubelet.
fn kubeconfig(flag: Option<PathBuf>, file: &Path, kubelet: bool) -> anyhow::Result<Option<PathBuf>> {
    let given = flag.or_else(|| (!file.as_os_str().is_empty()).then(|| file.to_owned()));
    ensure!(
        given.is_some() || !kubelet,
        "--kubeconfig is missing: a file with the API server's address and this node's credentials"
    );
    Ok(given)
}

fn hostname() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("read the machine's name; give --node-name")?;
    name.into_string()
        .map_err(|name| anyhow::anyhow!("the machine's name {name:?} is no text; give --node-name"))
}

fn absolute(flag: &str, path: PathBuf) -> anyhow::Result<PathBuf> {
    ensure!(path.is_absolute(), "{flag} {} is not an absolute path", path.display());
    Ok(path)
}

/// Where version 1 is mounted as well, its directory holds cgroup2 as `unified`: a manifest for all nodes cannot know.
fn unified(root: PathBuf) -> PathBuf {
    const LISTED: &str = "cgroup.procs";
    let below = root.join("unified");
    if !root.join(LISTED).exists() && below.join(LISTED).exists() { below } else { root }
}

fn socket_path(endpoint: &str) -> anyhow::Result<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    ensure!(
        path.starts_with('/'),
        "--container-runtime-endpoint {endpoint:?} is not a unix socket; write unix:///path/of.sock"
    );
    Ok(PathBuf::from(path))
}

fn node_label(label: &str) -> anyhow::Result<(String, String)> {
    let (key, value) =
        label.split_once('=').with_context(|| format!("--node-labels {label:?} is not KEY=VALUE"))?;
    let mut problems = labels::qualified_name(key);
    problems.extend(labels::label_value(value));
    ensure!(problems.is_empty(), "--node-labels {label:?}: {}", problems.join("; "));
    Ok((key.to_owned(), value.to_owned()))
}

/// `signal<threshold` of the flag, or else the entries of the file, or else the kubelet's.
fn thresholds(flag: &[String], file: Option<&BTreeMap<String, String>>) -> anyhow::Result<Thresholds> {
    let flag = flag.iter().map(|entry| {
        entry.split_once('<').with_context(|| format!("--eviction-hard {entry:?}: no '<' in it"))
    });
    let mut entries: Vec<(&str, &str)> = flag.collect::<Result<_, _>>()?;
    match file {
        Some(file) if entries.is_empty() => {
            entries.extend(file.iter().map(|(signal, amount)| (&**signal, &**amount)))
        }
        None if entries.is_empty() => return Ok(Thresholds::default()),
        _ => {}
    }
    let parse = |(signal, amount): (&str, &str)| {
        let parsed = Signal::parse(signal.trim())
            .with_context(|| format!("eviction signal {signal:?} is not known"))?;
        let amount = Threshold::parse(amount.trim())
            .map_err(|error| anyhow::anyhow!("eviction signal {signal:?}: {error}"))?;
        anyhow::Ok((parsed, amount))
    };
    Ok(Thresholds::new(entries.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?))
}

fn byte_size(text: &str) -> anyhow::Result<u64> {
    let quantity: Quantity = text.parse().with_context(|| format!("read containerLogMaxSize {text:?}"))?;
    u64::try_from(quantity.value()).with_context(|| format!("containerLogMaxSize {text:?} is negative"))
}

/// Where cgroup2 is mounted, from the text of `/proc/self/mountinfo`. The last mount of it wins, as it does for paths.
fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    let mounted_at = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        (filesystem.split(' ').next()? == "cgroup2").then(|| mount.split(' ').nth(4))?.map(PathBuf::from)
    };
    mountinfo.lines().filter_map(mounted_at).next_back()
}

/// What every subsystem of the agent is handed at its start.
pub struct NodeContext {
    /// Client of the API server, with this node's identity.
    pub client: kube::Client,
    /// The container runtime; connects at the first call and again after a restart of the runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The configuration.
    pub config: Config,
    /// Name of this node (`config.node_name`).
    pub node_name: String,
    /// Addresses of this node: one, or one of each family; the first is the primary one.
    pub node_ips: Vec<IpAddr>,
    /// Certificates (DER) of the cluster's CA, as the kubeconfig names it; empty if it names none.
    pub cluster_ca: Vec<Vec<u8>>,
    /// Tells the API server what happened: `events.normal(..)`, `events.warning(..)` never blocks.
    pub events: Recorder,
    /// Where a subsystem says whether it is up: `readiness.register("name")`.
    pub readiness: Readiness,
    /// Where a subsystem registers what it wants, sees and has yet to do, for `/debug/state`.
    pub debug: DebugState,
    /// Where a subsystem registers its metrics.
    pub metrics: Metrics,
}

impl NodeContext {
    /// Makes the context: reads the credentials, finds the node's addresses. Does not speak to the API server yet, which
    /// may be away. The second part of the result is the task that writes events.
    pub async fn new(config: Config) -> anyhow::Result<(Arc<Self>, Writer)> {
        let connection = connection(config.kubeconfig.as_deref()).await?;
        let node_ips = if config.node_ips.is_empty() {
            addresses::of_this_machine(connection.cluster_url.host())
                .context("find this node's addresses; give --node-ip")?
        } else {
            config.node_ips.clone()
        };
        let cluster_ca = connection.root_cert.clone().unwrap_or_default();
        let client = kube::Client::try_from(connection).context("use the credentials for the API server")?;
        let metrics = Metrics::default();
        let (events, writer) = events::channel(&metrics);
        let runtime = pagurus_cri_api::Client::new(&config.runtime_socket.to_string_lossy())
            .context("use --container-runtime-endpoint")?;
        let context = Self {
            client,
            runtime: Arc::new(runtime),
            node_name: config.node_name.clone(),
            node_ips,
            cluster_ca,
            config,
            events,
            readiness: Readiness::default(),
            debug: DebugState::default(),
            metrics,
        };
        Ok((Arc::new(context), writer))
    }
}

/// Where the API server is and who we are.
async fn connection(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Config> {
    let Some(path) = kubeconfig else {
        return kube::Config::incluster()
            .context("use the credentials of this pod; outside of a pod give --kubeconfig");
    };
    let shown = path.display();
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("read --kubeconfig {shown}"))?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("use --kubeconfig {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_beside_version_1() {
        let top = tempfile::tempdir().expect("temporary directory");
        let below = top.path().join("unified");
        assert_eq!(unified(top.path().to_owned()), top.path());
        std::fs::create_dir(&below).expect("made");
        std::fs::write(below.join("cgroup.procs"), "").expect("written");
        assert_eq!(unified(top.path().to_owned()), below);
        std::fs::write(top.path().join("cgroup.procs"), "").expect("written");
        assert_eq!(unified(top.path().to_owned()), top.path());
    }

    #[test]
    fn cgroup2_is_found_in_mountinfo() {
        let check = |mountinfo: &str, expected: Option<&str>| {
            assert_eq!(cgroup2_mount(mountinfo), expected.map(PathBuf::from), "{mountinfo}");
        };
        check("", None);
        check("24 1 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", None);
        check("24 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate", Some("/sys/fs/cgroup"));
        check(
            "24 1 0:22 / /sys/fs/cgroup/cpu rw - cgroup c rw\n25 1 0:3 /../x /sys/fs/cgroup/unified rw shared:1 - cgroup2 c rw",
            Some("/sys/fs/cgroup/unified"),
        );
    }

    #[test]
    fn servers_to_ask() {
        let check = |given: &[&str], expected: Option<&[&str]>| {
            let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
            let expected = expected
                .map(|all| Source::Fixed(all.iter().map(|one| one.parse().expect("address")).collect()));
            assert_eq!(dns_upstreams(&given, Path::new("/r")).ok(), expected, "{given:?}");
        };
        check(
            &["192.0.2.1", "[fd00::1]:5353", "fd00::2"],
            Some(&["192.0.2.1:53", "[fd00::1]:5353", "[fd00::2]:53"]),
        );
        check(&["dns.example.com"], None);
        assert_eq!(dns_upstreams(&[], Path::new("/r")).ok(), Some(Source::File("/r".into())));
    }

    #[test]
    fn addresses_of_the_node() {
        let check = |ips: &[&str], good: bool| {
            let parsed = ips.iter().map(|ip| ip.parse().expect("address")).collect();
            assert_eq!(node_ips(parsed).is_ok(), good, "{ips:?}");
        };
        check(&[], true);
        check(&["10.0.0.1"], true);
        check(&["fd00::1", "10.0.0.1"], true);
        check(&["10.0.0.1", "10.0.0.2"], false);
        check(&["0.0.0.0"], false);
        check(&["10.0.0.1", "fd00::1", "fd00::2"], false);
    }

    #[test]
    fn runtime_endpoints() {
        assert_eq!(socket_path("unix:///run/x.sock").expect("good"), PathBuf::from("/run/x.sock"));
        assert_eq!(socket_path("/run/x.sock").expect("good"), PathBuf::from("/run/x.sock"));
        assert!(socket_path("tcp://127.0.0.1:1").is_err());
    }
}
