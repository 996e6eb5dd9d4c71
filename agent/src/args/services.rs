//! The flags of Service load balancing exactly as typed. What they mean together is decided in [`crate::config`].

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use pagurus_agent_datapath::devices::Early;

use crate::config::{Choice, Masquerade, Mode, ServiceSettings};

/// How Services are balanced.
#[derive(Args, Debug)]
#[command(next_help_heading = "Services")]
pub struct ServiceArgs {
    /// Ranges of the cluster's pods, at most one of each family or more [default: the podCIDRs of all nodes]
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNet>,
    /// Ranges of node addresses at which NodePorts are reached, or `primary` for those of the Node object [default: all]
    #[arg(long, alias = "node-port-addresses", value_name = "CIDR,...", value_delimiter = ',')]
    pub nodeport_addresses: Vec<String>,
    /// Range of NodePorts, as the API server was given it [default: 30000-32767]
    #[arg(long, value_name = "FIRST-LAST")]
    pub service_node_port_range: Option<String>,
    /// Whether pods' connections to places outside the cluster get the node's address
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub masquerade: MasqueradeArg,
    /// Networks outside the cluster that pods reach with their own address
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
    pub non_masquerade_cidrs: Vec<IpNet>,
    /// How connections from outside get to backends of other nodes (annotation service.pagurus.dev/load-balancer-mode)
    #[arg(long, value_name = "MODE", default_value = "snat")]
    pub load_balancer_mode: ModeArg,
    /// How backends are chosen for connections from outside (annotation service.pagurus.dev/load-balancer-algorithm)
    #[arg(long, value_name = "ALGORITHM", default_value = "maglev")]
    pub load_balancer_algorithm: AlgorithmArg,
    /// Devices through which clients and other nodes are reached; * and ? are patterns [default: those with the node's
    /// addresses or a default route, and network cards]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub devices: Vec<String>,
    /// Devices of pods on the host's side; * and ? are patterns [default: all others that can be]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub pod_devices: Vec<String>,
    /// Whether packets from outside are balanced in the network driver
    #[arg(long, value_name = "WHERE", default_value = "off")]
    pub xdp: XdpArg,
    /// Most connections remembered [default: 32768 per core, at least 131072]; each takes about 300 bytes of the kernel, and with
    /// --xdp 32 bytes at once, as far as that is no more than a 512th of the memory
    #[arg(long, value_name = "N")]
    pub conntrack_max: Option<u32>,
    /// Address of the health check of Services, for load balancers in front of the cluster; port 0 is none
    /// [default: 0.0.0.0:10256]
    #[arg(long, value_name = "IP:PORT")]
    pub proxy_healthz_bind_address: Option<String>,
}

/// `--masquerade`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MasqueradeArg {
    /// If this agent connects the pods
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

/// `--load-balancer-mode`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ModeArg {
    /// With this node's address as the source
    Snat,
    /// Direct server return
    Dsr,
}

/// `--load-balancer-algorithm`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum AlgorithmArg {
    /// Consistent over nodes
    Maglev,
    /// Random
    Random,
}

/// `--xdp`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum XdpArg {
    /// In drivers that can
    Auto,
    /// In drivers; one that cannot is an error
    Native,
    /// Behind drivers
    Generic,
    /// Nowhere
    Off,
}

impl ServiceArgs {
    /// As the configuration takes them.
    pub fn into_settings(self) -> ServiceSettings {
        ServiceSettings {
            cluster_cidr: self.cluster_cidr,
            node_port_addresses: self.nodeport_addresses,
            node_port_range: self.service_node_port_range,
            masquerade: match self.masquerade {
                MasqueradeArg::Auto => Masquerade::Auto,
                MasqueradeArg::On => Masquerade::On,
                MasqueradeArg::Off => Masquerade::Off,
            },
            non_masquerade_cidrs: self.non_masquerade_cidrs,
            mode: match self.load_balancer_mode {
                ModeArg::Snat => Mode::Snat,
                ModeArg::Dsr => Mode::Dsr,
            },
            algorithm: match self.load_balancer_algorithm {
                AlgorithmArg::Maglev => Choice::Maglev,
                AlgorithmArg::Random => Choice::Random,
            },
            devices: self.devices,
            pod_devices: self.pod_devices,
            xdp: match self.xdp {
                XdpArg::Auto => Early::Auto,
                XdpArg::Native => Early::Native,
                XdpArg::Generic => Early::Generic,
                XdpArg::Off => Early::Off,
            },
            conntrack_max: self.conntrack_max,
            health_bind_address: self.proxy_healthz_bind_address,
        }
    }
}
