//! How Services are balanced: flags and KubeProxyConfiguration together, checked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ipnet::IpNet;
use pagurus_agent_datapath::devices::Early;

use super::proxy_file::ProxyFile;

/// The ports NodePorts are taken from where nothing else is said.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// kube-proxy's port for health checks.
const HEALTH_PORT: u16 = 10_256;
/// kube-proxy's figures for the number of connections.
const CONNECTIONS_PER_CORE: u32 = 32_768;
const CONNECTIONS_MIN: u32 = 131_072;
/// More entries than this are more memory than a node has for it.
const CONNECTIONS_MOST: u32 = 64 << 20;

/// What was asked for on the command line, before it is checked.
#[derive(Debug, Default)]
pub struct ServiceSettings {
    /// `--cluster-cidr`
    pub cluster_cidr: Vec<IpNet>,
    /// `--nodeport-addresses`
    pub node_port_addresses: Vec<String>,
    /// `--service-node-port-range`
    pub node_port_range: Option<String>,
    /// `--masquerade`
    pub masquerade: Masquerade,
    /// `--non-masquerade-cidrs`
    pub non_masquerade_cidrs: Vec<IpNet>,
    /// `--load-balancer-mode`
    pub mode: Mode,
    /// `--load-balancer-algorithm`
    pub algorithm: Choice,
    /// `--devices`
    pub devices: Vec<String>,
    /// `--pod-devices`
    pub pod_devices: Vec<String>,
    /// `--xdp`
    pub xdp: Early,
    /// `--conntrack-max`
    pub conntrack_max: Option<u32>,
    /// `--proxy-healthz-bind-address`
    pub health_bind_address: Option<String>,
}

/// Whether pods' connections out of the cluster get the node's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masquerade {
    /// If this agent connects the pods.
    #[default]
    Auto,
    /// Yes.
    On,
    /// No: somebody else does it, or the network knows pods' addresses.
    Off,
}

/// How connections from outside get to backends of other nodes, where the Service says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// With this node's address.
    #[default]
    Snat,
    /// As they are; the other node answers.
    Dsr,
}

/// How backends are chosen for connections from outside, where the Service says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// By a table that all nodes make alike.
    #[default]
    Maglev,
    /// At random.
    Random,
}

/// Addresses of a node at which NodePorts are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// All of them.
    All,
    /// Those of the Node object.
    Primary,
    /// Those in these ranges.
    Ranges(Vec<IpNet>),
}

/// How Services are balanced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Ranges of pods; empty: what the nodes say.
    pub cluster_networks: Vec<IpNet>,
    /// Where NodePorts are reached.
    pub node_port_addresses: NodePortAddresses,
    /// NodePorts.
    pub node_ports: RangeInclusive<u16>,
    /// Whether pods' connections out of the cluster get the node's address.
    pub masquerade: Masquerade,
    /// Networks outside the cluster that pods reach with their own address.
    pub non_masquerade: Vec<IpNet>,
    /// How connections from outside get to backends of other nodes.
    pub mode: Mode,
    /// How backends are chosen for connections from outside.
    pub algorithm: Choice,
    /// Patterns of the names of uplinks; empty: they are found out.
    pub devices: Vec<String>,
    /// Patterns of the names of pods' devices; empty: they are found out.
    pub pod_devices: Vec<String>,
    /// How packets from outside are taken early.
    pub xdp: Early,
    /// Most connections remembered.
    pub conntrack_max: u32,
    /// Idle seconds of TCP connections: not yet established, established, half closed, closed.
    pub tcp_seconds: [u32; 4],
    /// Idle seconds of datagrams: one-way, answered.
    pub udp_seconds: [u32; 2],
    /// Where kube-proxy's health check is served; none: nowhere.
    pub health: Option<SocketAddr>,
    /// Where the agent's metrics are served as kube-proxy's are; none: nowhere.
    pub metrics: Option<SocketAddr>,
}

impl ServiceConfig {
    /// Checks settings and file together.
    pub fn new(settings: ServiceSettings, file: &ProxyFile) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(1 << 16) as u32);
        let conntrack = &file.conntrack;
        let cluster_networks = if settings.cluster_cidr.is_empty() {
            networks("clusterCIDR", file.cluster_cidr.split(','))?
        } else {
            settings.cluster_cidr
        };
        let listed = if settings.node_port_addresses.is_empty() {
            file.node_port_addresses.clone().unwrap_or_default()
        } else {
            settings.node_port_addresses
        };
        let seconds = |name: &str, text: &Option<String>, default: u32| match text.as_deref().map(duration) {
            // 0 leaves the kernel's own figure, which is our default.
            None | Some(Some(Duration::ZERO)) => Ok(default),
            Some(Some(time)) => Ok(u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1)),
            Some(None) => {
                anyhow::bail!("{name} {:?} is no duration such as 1h30m", text.as_deref().unwrap_or(""))
            }
        };
        let conntrack_max = settings.conntrack_max.unwrap_or_else(|| {
            let per_core = conntrack.max_per_core.filter(|n| *n != 0).unwrap_or(CONNECTIONS_PER_CORE);
            per_core.saturating_mul(cores).max(conntrack.min.unwrap_or(CONNECTIONS_MIN)).min(CONNECTIONS_MOST)
        });
        ensure!(
            (1024..=CONNECTIONS_MOST).contains(&conntrack_max),
            "--conntrack-max {conntrack_max} is not between 1024 and {CONNECTIONS_MOST}"
        );
        let health = settings.health_bind_address.as_deref().unwrap_or(&file.healthz_bind_address);
        Ok(Self {
            cluster_networks: cluster_networks.iter().map(IpNet::trunc).collect(),
            node_port_addresses: node_port_addresses(&listed)?,
            node_ports: settings.node_port_range.as_deref().map_or(Ok(NODE_PORTS), port_range)?,
            masquerade: settings.masquerade,
            non_masquerade: settings.non_masquerade_cidrs.iter().map(IpNet::trunc).collect(),
            mode: settings.mode,
            algorithm: settings.algorithm,
            devices: settings.devices,
            pod_devices: settings.pod_devices,
            xdp: settings.xdp,
            conntrack_max,
            tcp_seconds: [
                60,
                seconds("conntrack.tcpEstablishedTimeout", &conntrack.tcp_established_timeout, 86_400)?,
                seconds("conntrack.tcpCloseWaitTimeout", &conntrack.tcp_close_wait_timeout, 3600)?,
                60,
            ],
            udp_seconds: [
                seconds("conntrack.udpTimeout", &conntrack.udp_timeout, 30)?,
                seconds("conntrack.udpStreamTimeout", &conntrack.udp_stream_timeout, 120)?,
            ],
            health: match health {
                "" => Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), HEALTH_PORT)),
                text => socket("healthzBindAddress", text, HEALTH_PORT)?,
            },
            metrics: match file.metrics_bind_address.as_str() {
                "" => None,
                text => socket("metricsBindAddress", text, 10_249)?,
            },
        })
    }

    /// Whether NodePorts are reached at an address of a node; `primary`: the address is in the Node object.
    pub fn is_node_port_address(&self, address: &IpAddr, primary: bool) -> bool {
        match &self.node_port_addresses {
            NodePortAddresses::All => true,
            NodePortAddresses::Primary => primary,
            NodePortAddresses::Ranges(ranges) => ranges.iter().any(|range| range.contains(address)),
        }
    }
}

fn networks<'a>(field: &str, list: impl Iterator<Item = &'a str>) -> anyhow::Result<Vec<IpNet>> {
    let entries = list.map(str::trim).filter(|text| !text.is_empty());
    entries
        .map(|text| {
            text.parse().with_context(|| format!("{field}: {text:?} is no network such as 10.0.0.0/8"))
        })
        .collect()
}

fn node_port_addresses(listed: &[String]) -> anyhow::Result<NodePortAddresses> {
    match listed {
        [] => Ok(NodePortAddresses::All),
        [one] if one == "primary" => Ok(NodePortAddresses::Primary),
        _ => Ok(NodePortAddresses::Ranges(networks("nodePortAddresses", listed.iter().map(String::as_str))?)),
    }
}

/// `FIRST-LAST`, or `FIRST+COUNT` as kube-apiserver takes it, too.
fn port_range(text: &str) -> anyhow::Result<RangeInclusive<u16>> {
    let parsed = match (text.split_once('-'), text.split_once('+')) {
        (Some((first, last)), _) => first.trim().parse().ok().zip(last.trim().parse().ok()),
        (None, Some((first, more))) => {
            let first: Option<u16> = first.trim().parse().ok();
            first
                .zip(more.trim().parse().ok())
                .and_then(|(first, more)| Some((first, first.checked_add(more)?)))
        }
        _ => None,
    };
    parsed
        .filter(|(first, last)| *first > 0 && first <= last)
        .map(|(first, last)| first..=last)
        .with_context(|| format!("--service-node-port-range {text:?} is not FIRST-LAST, such as 30000-32767"))
}

/// `ADDRESS` or `ADDRESS:PORT`; port 0 is nowhere.
fn socket(field: &str, text: &str, port: u16) -> anyhow::Result<Option<SocketAddr>> {
    let bare = text.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port));
    let address = text.parse::<SocketAddr>().or(bare);
    let address = address.with_context(|| format!("{field} {text:?} is not ADDRESS:PORT"))?;
    Ok(Some(address).filter(|address| address.port() != 0))
}

/// A duration as Go writes it: `24h0m0s`, `1.5s`, `300ms`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        seconds += number
            * match &rest[digits..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(file: Value) -> anyhow::Result<ServiceConfig> {
        ServiceConfig::new(ServiceSettings::default(), &serde_json::from_value(file).expect("a file"))
    }

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text).map(|time| time.as_millis()), expected.map(u128::from), "{text}");
        };
        check("24h0m0s", Some(86_400_000));
        check("1h30m", Some(5_400_000));
        check("1.5s", Some(1500));
        check("300ms", Some(300));
        check("0s", Some(0));
        check("0", Some(0));
        check("", None);
        check("5", None);
        check("5x", None);
        check("h", None);
    }

    #[test]
    fn what_kube_proxys_file_means() {
        let none = config(json!({})).expect("nothing said");
        assert_eq!(none.health, Some("0.0.0.0:10256".parse().expect("an address")));
        assert_eq!((none.tcp_seconds, none.udp_seconds), ([60, 86_400, 3600, 60], [30, 120]));
        assert_eq!((none.node_ports.clone(), none.metrics), (30_000..=32_767, None));
        assert!(none.conntrack_max >= 131_072);
        let some = config(json!({
            "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56", "nodePortAddresses": ["192.168.0.0/16"],
            "conntrack": {"tcpEstablishedTimeout": "2h", "udpTimeout": "0s", "udpStreamTimeout": "250s", "min": 500_000},
            "healthzBindAddress": "127.0.0.1:0", "metricsBindAddress": "0.0.0.0"
        }))
        .expect("good");
        assert_eq!(some.cluster_networks.len(), 2);
        assert_eq!((some.tcp_seconds[1], some.udp_seconds, some.health), (7200, [30, 250], None));
        assert_eq!(some.metrics, Some("0.0.0.0:10249".parse().expect("an address")));
        let at = |ip: &str| some.is_node_port_address(&ip.parse().expect("an address"), true);
        assert!(at("192.168.1.1") && !at("10.0.0.1"));
        let primary = config(json!({"nodePortAddresses": ["primary"]})).expect("good");
        assert_eq!(primary.node_port_addresses, NodePortAddresses::Primary);
        for bad in [
            json!({"clusterCIDR": "10.244.0.0"}),
            json!({"nodePortAddresses": ["primary", "10.0.0.0/8"]}),
            json!({"conntrack": {"udpTimeout": "long"}}),
            json!({"healthzBindAddress": "nowhere"}),
        ] {
            assert!(config(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_ranges() {
        let check = |text: &str, expected: Option<RangeInclusive<u16>>| {
            assert_eq!(port_range(text).ok(), expected, "{text}");
        };
        check("30000-32767", Some(30_000..=32_767));
        check("30000+99", Some(30_000..=30_099));
        check("30000-29999", None);
        check("0-5", None);
        check("30000", None);
        check("60000+9999", None);
    }
}
