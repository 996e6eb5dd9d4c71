//! The flags exactly as typed. What they mean together is decided in [`crate::config`]; nothing else reads this type.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use pagurus_cni::overlay;

use crate::config::{Config, ConfigFiles, LoadBalancer, Settings};
use crate::inspect;

mod services;

pub use services::ServiceArgs;

/// The node agent of Pagurus: runs this node's pods and its Service load balancing.
#[derive(Debug, Parser)]
#[command(name = "pagurus-agent", version, about, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Instead of running the agent
    #[command(subcommand)]
    pub command: Option<inspect::Command>,
    /// File with the address of the API server and this node's credentials [default: those of the pod this runs in]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node's Node object [default: the machine's name]
    #[arg(long, alias = "hostname-override", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Addresses of this node: one, or one IPv4 and one IPv6 [default: the addresses this machine reaches the API server from]
    #[arg(long, value_name = "IP[,IP6]", value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Socket of the container runtime (CRI v1)
    #[arg(long, value_name = "unix://SOCKET", default_value = "unix:///run/containerd/containerd.sock")]
    pub container_runtime_endpoint: String,
    /// Directory for pods' volumes and the agent's own state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Directory for the logs of containers
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub pod_logs_dir: PathBuf,
    /// Register the node and run its pods
    #[arg(long, value_name = "SWITCH", default_value = "on")]
    pub kubelet: Switch,
    /// Balance Services with BPF programs and connect the pods
    #[arg(long, value_name = "SWITCH", default_value = "on")]
    pub dataplane: Switch,
    /// Connect the pods of this node (CNI) and route to those of others; off where another plugin does
    #[arg(long, value_name = "SWITCH", default_value = "on")]
    pub pod_network: Switch,
    /// File with a KubeletConfiguration (kubelet.config.k8s.io/v1beta1), a KubeProxyConfiguration
    /// (kubeproxy.config.k8s.io/v1alpha1) or both; can be given twice; flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// cgroup2 directory to attach the socket programs to [default: where cgroup2 is mounted]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// BPF file system in which programs and maps are pinned
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// Socket on which the CNI plugin reaches the agent
    #[arg(long, value_name = "SOCKET", default_value = "/run/pagurus/cni.sock")]
    pub cni_socket: PathBuf,
    /// Directory in which the CNI configuration is written
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// The way to pods of other nodes: through the node's address, through VXLAN, or VXLAN only to nodes that are not on a
    /// link of this one
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub routing: Routing,
    /// Network number (VNI) of the VXLAN device, the same on all nodes
    #[arg(long, value_name = "N", default_value_t = overlay::DEFAULT_ID, value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    pub vxlan_id: u32,
    /// UDP port of the VXLAN device, the same on all nodes
    #[arg(long, value_name = "PORT", default_value_t = overlay::DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: u16,
    /// Answer the DNS questions of this node's pods; off where DNS servers run in pods [default: as --dataplane]
    #[arg(long, value_name = "SWITCH")]
    pub cluster_dns_server: Option<Switch>,
    /// DNS servers to ask about names outside the cluster [default: those in the node's resolv.conf]
    #[arg(long, value_name = "IP[:PORT],...", value_delimiter = ',')]
    pub dns_upstream: Vec<String>,
    /// Networks or ranges (FIRST-LAST) that Services of type LoadBalancer get addresses of, beside the pools of the ConfigMap
    /// kube-system/pagurus-load-balancer
    #[arg(long, value_name = "CIDR|RANGE,...", value_delimiter = ',')]
    pub load_balancer_pool: Vec<String>,
    /// Give addresses also to Services without loadBalancerClass; otherwise only to those of class pagurus.dev/l2
    #[arg(long, value_name = "SWITCH", default_value = "on")]
    pub load_balancer_unclassed: Switch,
    /// Addresses of the cluster's DNS service, put into pods' resolv.conf [default: those of Service kube-system/kube-dns]
    #[arg(long, value_name = "IP,...", value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster
    #[arg(long, value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// Address on which the node API listens [default: every address]
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Port of the node API
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Address of the health checks, which are served without TLS [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub healthz_bind_address: Option<IpAddr>,
    /// Port of the health checks, metrics and state; 0 is none [default: 10248]
    #[arg(long, value_name = "PORT")]
    pub healthz_port: Option<u16>,
    /// Certificate file of the node API (PEM) [default: self-signed]
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key file of the node API (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// CA whose client certificates the node API accepts [default: the cluster CA of the kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Most pods this node takes
    #[arg(long, value_name = "N")]
    pub max_pods: Option<u32>,
    /// Labels to put on the Node when it registers
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',')]
    pub node_labels: Vec<String>,
    /// Taints to put on the Node when it registers
    #[arg(long, value_name = "KEY=VALUE:EFFECT,...", value_delimiter = ',')]
    pub register_with_taints: Vec<String>,
    /// From when on something is scarce; `nodefs.available<0%` switches one off [default: as the kubelet]
    #[arg(long, value_name = "SIGNAL<AMOUNT,...", value_delimiter = ',')]
    pub eviction_hard: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a comment would take the place of the text about the program")]
    pub services: ServiceArgs,
    /// What to log: a level, or a tracing filter such as `info,pagurus_agent::serve=debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// A part of the agent that is switched on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// The part runs.
    #[value(alias = "true")]
    On,
    /// The part does not run and leaves what it governs alone.
    #[value(alias = "false")]
    Off,
}

/// How packets get to pods of other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Routing {
    /// Through the other node's address, which must be on a link of this node.
    Direct,
    /// Through a VXLAN device.
    Vxlan,
    /// Direct where the other node's address is on a link of this node, else VXLAN.
    Auto,
}

impl From<Routing> for overlay::Mode {
    fn from(routing: Routing) -> Self {
        match routing {
            Routing::Direct => Self::Direct,
            Routing::Vxlan => Self::Vxlan,
            Routing::Auto => Self::Auto,
        }
    }
}

impl Args {
    /// Checks the flags together with the configuration file and makes the configuration of them.
    pub fn into_config(self) -> anyhow::Result<Config> {
        // Taken apart without `..`, so that a flag nobody uses does not compile.
        let Self {
            command: _,
            kubeconfig,
            node_name,
            node_ip,
            container_runtime_endpoint,
            root_dir,
            pod_logs_dir,
            kubelet,
            dataplane,
            pod_network,
            config,
            cgroup_root,
            bpffs,
            cni_socket,
            cni_conf_dir,
            routing,
            vxlan_id,
            vxlan_port,
            load_balancer_pool,
            load_balancer_unclassed,
            cluster_dns_server,
            dns_upstream,
            cluster_dns,
            cluster_domain,
            address,
            port,
            healthz_bind_address,
            healthz_port,
            tls_cert_file,
            tls_private_key_file,
            client_ca_file,
            max_pods,
            node_labels,
            register_with_taints,
            eviction_hard,
            services,
            log,
        } = self;
        let files = ConfigFiles::read(&config)?;
        Config::new(
            Settings {
                kubeconfig,
                node_name,
                node_ips: node_ip,
                runtime_endpoint: container_runtime_endpoint,
                root_dir,
                pod_logs_dir,
                kubelet: kubelet == Switch::On,
                dataplane: dataplane == Switch::On,
                pod_network: pod_network == Switch::On,
                cgroup_root,
                bpffs,
                cni_socket,
                cni_conf_dir,
                routing: overlay::Options { mode: routing.into(), id: vxlan_id, port: vxlan_port },
                load_balancer: LoadBalancer {
                    pools: load_balancer_pool,
                    unclassed: load_balancer_unclassed == Switch::On,
                },
                cluster_dns_server: cluster_dns_server.map(|switch| switch == Switch::On),
                dns_upstreams: dns_upstream,
                cluster_dns,
                cluster_domain,
                address,
                port,
                healthz_bind_address,
                healthz_port,
                tls_files: tls_cert_file.zip(tls_private_key_file),
                client_ca_file,
                max_pods,
                node_labels,
                taints: register_with_taints,
                eviction_hard,
                services: services.into_settings(),
                log,
            },
            files,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn least_command_line() {
        let args = Args::try_parse_from(["pagurus-agent", "--kubeconfig", "/k", "--node-name", "n1"])
            .expect("parses");
        assert_eq!(args.kubelet, Switch::On);
        assert_eq!(args.dataplane, Switch::On);
        let args = Args::try_parse_from([
            "pagurus-agent",
            "--kubeconfig=/k",
            "--node-name=n1",
            "--node-ip=10.0.0.1,fd00::1",
            "--kubelet=off",
        ])
        .expect("parses");
        assert_eq!(args.kubelet, Switch::Off);
        assert_eq!(args.node_ip.len(), 2);
    }
}
