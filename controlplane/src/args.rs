//! The command line, exactly as typed. What it means is decided in `config`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// The Kubernetes control plane: API server, scheduler and controllers.
#[derive(Debug, Parser)]
#[command(
    name = "pagurus-controlplane",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: ServeArgs,
}

impl Args {
    /// Reads the process's command line; a mistake ends the process with the usual message.
    pub fn parse_command_line() -> Self {
        Self::parse()
    }
}

/// What the program does besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes a kubeconfig with a new client certificate of the cluster's CA.
    Kubeconfig(KubeconfigArgs),
}

/// The parts of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Component {
    /// The API server.
    Apiserver,
    /// The scheduler.
    Scheduler,
    /// The controllers.
    Controllers,
}

/// Where objects are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// In the data directory, by this process.
    Embedded,
}

/// The flags of the control plane.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// The directory of the store, keys and certificates
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub secure_port: u16,
    /// The address at which cluster members reach the API server [default: the bind address, or that of the default route]
    #[arg(long, value_name = "ADDRESS")]
    pub advertise_address: Option<IpAddr>,
    /// Where objects are stored
    #[arg(long, value_name = "KIND", default_value = "embedded")]
    pub store: StoreKind,
    /// For how long overwritten and deleted states can be read, by histories and at an exact revision; 0: until there are more than --history-changes
    #[arg(long, value_name = "DURATION", default_value = "5m0s")]
    pub etcd_compaction_interval: String,
    /// How many changes are kept at most, however young
    #[arg(long, value_name = "COUNT", default_value_t = 250_000)]
    pub history_changes: usize,
    /// The parts to run
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "apiserver,scheduler,controllers"
    )]
    pub components: Vec<Component>,
    /// The range of ClusterIPs; a second one of the other family makes the cluster dual-stack
    #[arg(long, value_name = "CIDR[,CIDR]", value_delimiter = ',', default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: Vec<String>,
    /// The ports that NodePort Services get
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767")]
    pub service_node_port_range: String,
    /// Allow privileged containers, which the agent as a DaemonSet needs [default: false, as kube-apiserver's]
    #[arg(
        long,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value = "false",
        hide_default_value = true,
        hide_possible_values = true,
        action = clap::ArgAction::Set
    )]
    pub allow_privileged: bool,
    /// The range of pod addresses; a second one of the other family makes the cluster dual-stack
    #[arg(long, value_name = "CIDR[,CIDR]", value_delimiter = ',', default_value = "10.244.0.0/16")]
    pub cluster_cidr: Vec<String>,
    /// The prefix length of a node's IPv4 podCIDR
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    pub node_cidr_mask_size_ipv4: u8,
    /// The prefix length of a node's IPv6 podCIDR
    #[arg(long, value_name = "BITS", default_value_t = 64)]
    pub node_cidr_mask_size_ipv6: u8,
    /// How scheduler and controllers reach the API server when it is not among the components
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// The flags of `kubeconfig`.
#[derive(Debug, clap::Args)]
pub struct KubeconfigArgs {
    /// The data directory whose CA signs
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The user's name (the certificate's common name)
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// The user's group (the certificate's organization)
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// The API server's address, such as https://192.0.2.1:6443
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// The file to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn subcommand_needs_no_serve_flags() {
        let args = Args::try_parse_from([
            "pagurus-controlplane",
            "kubeconfig",
            "--data-dir",
            "/d",
            "--user",
            "system:node:a",
            "--group",
            "system:nodes",
            "--server",
            "https://192.0.2.1:6443",
        ])
        .expect("parses");
        assert!(matches!(args.command, Some(Command::Kubeconfig(k)) if k.user == "system:node:a"));
    }
}
