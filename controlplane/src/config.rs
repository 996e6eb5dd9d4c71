//! The command line as a configuration that makes sense as a whole. Reads no file and opens no socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use pagurus_controlplane_apiserver::bootstrap::first_address;

use crate::args::{Component, ServeArgs, StoreKind};

/// What the process is to do.
#[derive(Debug, Clone)]
pub struct Config {
    /// The API server, if it runs here.
    pub apiserver: Option<ApiserverConfig>,
    /// Whether the scheduler runs here.
    pub scheduler: bool,
    /// The controllers, if they run here.
    pub controllers: Option<ControllersConfig>,
    /// The file that says where the API server is, if it does not run here.
    pub kubeconfig: Option<PathBuf>,
}

/// What the API server needs to know.
#[derive(Debug, Clone)]
pub struct ApiserverConfig {
    /// The directory of the store, keys and certificates.
    pub data_dir: PathBuf,
    /// For how long overwritten and deleted states are kept; none: until there are too many changes.
    pub history: Option<Duration>,
    /// How many changes are kept at most.
    pub history_changes: usize,
    /// The socket to listen on.
    pub bind: SocketAddr,
    /// The address cluster members are told.
    pub advertise: IpAddr,
    /// The ranges of ClusterIPs, the primary family first.
    pub service_ranges: Vec<IpNet>,
    /// The ports of NodePort Services.
    pub node_ports: RangeInclusive<u16>,
    /// Whether containers may be privileged.
    pub allow_privileged: bool,
}

/// What the controllers need to know.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// The ranges of pod addresses, the primary family first.
    pub cluster_cidrs: Vec<IpNet>,
    /// The prefix length of a node's IPv4 range.
    pub node_mask_v4: u8,
    /// The prefix length of a node's IPv6 range.
    pub node_mask_v6: u8,
}

impl Config {
    /// Checks what was typed.
    pub fn new(args: ServeArgs) -> Result<Self> {
        let ServeArgs {
            data_dir,
            bind_address,
            secure_port,
            advertise_address,
            store: StoreKind::Embedded,
            etcd_compaction_interval,
            history_changes,
            components,
            service_cluster_ip_range,
            service_node_port_range,
            allow_privileged,
            cluster_cidr,
            node_cidr_mask_size_ipv4,
            node_cidr_mask_size_ipv6,
            kubeconfig,
        } = args;
        let service_ranges = parse_ranges("--service-cluster-ip-range", &service_cluster_ip_range)?;
        let cluster_cidrs = parse_ranges("--cluster-cidr", &cluster_cidr)?;
        check_disjoint(&service_ranges, &cluster_cidrs)?;
        check_service_sizes(&service_ranges)?;
        check_masks(&cluster_cidrs, node_cidr_mask_size_ipv4, node_cidr_mask_size_ipv6)?;
        let runs = |component| components.contains(&component);
        let apiserver = if runs(Component::Apiserver) {
            ensure!(
                kubeconfig.is_none(),
                "--kubeconfig is for scheduler and controllers without an API server in the same process; leave it out or leave apiserver out of --components"
            );
            Some(ApiserverConfig {
                data_dir: data_dir.context("--data-dir is required")?,
                history: parse_history(&etcd_compaction_interval)?,
                history_changes: {
                    ensure!(history_changes > 0, "--history-changes: at least one change must be kept");
                    history_changes
                },
                bind: SocketAddr::new(bind_address, secure_port),
                advertise: {
                    let advertise = advertise_address.unwrap_or_else(|| default_advertise(bind_address));
                    check_advertised(advertise, &service_ranges, &cluster_cidrs)?;
                    advertise
                },
                service_ranges,
                node_ports: parse_ports(&service_node_port_range)?,
                allow_privileged,
            })
        } else {
            ensure!(
                kubeconfig.is_some(),
                "--kubeconfig is required when apiserver is not among --components"
            );
            None
        };
        Ok(Self {
            apiserver,
            scheduler: runs(Component::Scheduler),
            controllers: runs(Component::Controllers).then_some(ControllersConfig {
                cluster_cidrs,
                node_mask_v4: node_cidr_mask_size_ipv4,
                node_mask_v6: node_cidr_mask_size_ipv6,
            }),
            kubeconfig,
        })
    }
}

impl ApiserverConfig {
    /// The address of the Service `kubernetes` in each family: the first of each range.
    pub fn service_addresses(&self) -> Vec<IpAddr> {
        self.service_ranges.iter().map(first_address).collect()
    }
}

fn parse_ranges(flag: &str, texts: &[String]) -> Result<Vec<IpNet>> {
    let mut ranges = Vec::new();
    for text in texts {
        let range: IpNet = text.trim().parse().ok().with_context(|| {
            format!("{flag}: \"{text}\" is not a CIDR; write it like 10.96.0.0/16 or fd00:10:96::/112")
        })?;
        ensure!(
            range.addr() == range.network(),
            "{flag}: {range} has bits set beyond its prefix; did you mean {}?",
            range.trunc()
        );
        ranges.push(range);
    }
    match ranges.as_slice() {
        [_] => {}
        [a, b] => ensure!(
            a.addr().is_ipv4() != b.addr().is_ipv4(),
            "{flag}: {a} and {b} are of the same family; two ranges must be one IPv4 and one IPv6"
        ),
        _ => bail!("{flag}: {} ranges given; give one, or one IPv4 and one IPv6", ranges.len()),
    }
    Ok(ranges)
}

fn check_disjoint(services: &[IpNet], pods: &[IpNet]) -> Result<()> {
    for service in services {
        for pod in pods {
            ensure!(
                !service.contains(&pod.network()) && !pod.contains(&service.network()),
                "--service-cluster-ip-range {service} and --cluster-cidr {pod} overlap; choose disjoint ranges"
            );
        }
    }
    Ok(())
}

/// A machine whose own address is one of the cluster's ranges could not be told from a pod or a Service.
fn check_advertised(address: IpAddr, services: &[IpNet], pods: &[IpNet]) -> Result<()> {
    for (flag, ranges) in [("--service-cluster-ip-range", services), ("--cluster-cidr", pods)] {
        for range in ranges {
            ensure!(
                !range.contains(&address),
                "{flag} {range} holds {address}, the address of this API server; choose another range or --advertise-address"
            );
        }
    }
    Ok(())
}

fn check_service_sizes(ranges: &[IpNet]) -> Result<()> {
    for range in ranges {
        let host_bits = range.max_prefix_len() - range.prefix_len();
        ensure!(host_bits >= 3, "--service-cluster-ip-range: {range} holds fewer than 8 addresses");
        ensure!(
            host_bits <= 64,
            "--service-cluster-ip-range: {range} is too large; the prefix must be at least 64 bits long"
        );
    }
    Ok(())
}

fn check_masks(ranges: &[IpNet], v4: u8, v6: u8) -> Result<()> {
    for range in ranges {
        let (flag, mask, max) = match range {
            IpNet::V4(_) => ("--node-cidr-mask-size-ipv4", v4, 32),
            IpNet::V6(_) => ("--node-cidr-mask-size-ipv6", v6, 128),
        };
        ensure!(
            mask >= range.prefix_len() && mask <= max,
            "{flag} {mask} does not fit into --cluster-cidr {range}; it must be between {} and {max}",
            range.prefix_len()
        );
    }
    Ok(())
}

/// A duration as Go writes them; none for zero.
fn parse_history(text: &str) -> Result<Option<Duration>> {
    let flag = "--etcd-compaction-interval";
    if text.trim() == "0" {
        return Ok(None);
    }
    let parsed: Option<jiff::SignedDuration> = text.trim().parse().ok();
    let Some(duration) = parsed.and_then(|parsed| Duration::try_from(parsed).ok()) else {
        bail!("{flag}: \"{text}\" is not a duration; write it like 5m0s or 2h");
    };
    ensure!(
        duration.is_zero() || duration >= Duration::from_secs(1),
        "{flag}: {text} is too short; it must be a second at least, or 0"
    );
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>> {
    let parsed = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)))
        .filter(|(first, last): &(u16, u16)| *first >= 1 && first <= last);
    let Some((first, last)) = parsed else {
        bail!("--service-node-port-range: \"{text}\" is not a range of ports; write it like 30000-32767");
    };
    Ok(first..=last)
}

/// The bind address if it is one particular address, else the address of the route to the world.
fn default_advertise(bind: IpAddr) -> IpAddr {
    if !bind.is_unspecified() {
        return bind;
    }
    // Connecting a UDP socket sends nothing; it only asks the routing table for the source address.
    let routed = |from: SocketAddr, to: SocketAddr| -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    let v4 = || routed((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into());
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let v6 = || routed((Ipv6Addr::UNSPECIFIED, 0).into(), (documentation, 9).into());
    v4().or_else(|_| v6()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    fn config(flags: &str) -> Result<Config> {
        let line = ["pagurus-controlplane"].into_iter().chain(flags.split_whitespace());
        Config::new(Args::try_parse_from(line)?.serve)
    }

    #[test]
    fn defaults() {
        let config = config("--data-dir /d --bind-address 127.0.0.1").expect("valid");
        let apiserver = config.apiserver.expect("on");
        assert_eq!(apiserver.bind.to_string(), "127.0.0.1:6443");
        assert_eq!(apiserver.advertise.to_string(), "127.0.0.1");
        assert_eq!(apiserver.service_addresses(), ["10.96.0.1".parse::<IpAddr>().expect("ip")]);
        assert!(config.scheduler && config.controllers.is_some());
        assert_eq!((apiserver.history, apiserver.history_changes), (Some(Duration::from_secs(300)), 250_000));
    }

    #[test]
    fn how_long_history_is_kept() {
        for (typed, seconds) in
            [("0", None), ("0s", None), ("1s", Some(1)), ("1h30m", Some(5400)), ("10m0s", Some(600))]
        {
            let config = config(&format!("--data-dir /d --etcd-compaction-interval {typed}")).expect(typed);
            assert_eq!(config.apiserver.expect("on").history, seconds.map(Duration::from_secs), "{typed}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let rows = [
            ("", "--data-dir is required"),
            ("--data-dir /d --etcd-compaction-interval soon", "is not a duration; write it like 5m0s"),
            ("--data-dir /d --etcd-compaction-interval=-5m", "is not a duration"),
            ("--data-dir /d --etcd-compaction-interval 10ms", "a second at least"),
            ("--data-dir /d --history-changes 0", "at least one change"),
            ("--data-dir /d --service-cluster-ip-range 10.96.0.0", "is not a CIDR"),
            ("--data-dir /d --service-cluster-ip-range 10.96.0.1/16", "did you mean 10.96.0.0/16?"),
            ("--data-dir /d --service-cluster-ip-range 10.96.0.0/16,10.97.0.0/16", "same family"),
            ("--data-dir /d --service-cluster-ip-range 10.96.0.0/31", "fewer than 8 addresses"),
            ("--data-dir /d --service-cluster-ip-range fd00::/48", "too large"),
            ("--data-dir /d --cluster-cidr 10.0.0.0/8", "overlap"),
            (
                "--data-dir /d --advertise-address 10.96.3.4",
                "--service-cluster-ip-range 10.96.0.0/16 holds 10.96.3.4",
            ),
            ("--data-dir /d --advertise-address 10.244.3.4", "--cluster-cidr 10.244.0.0/16 holds 10.244.3.4"),
            ("--data-dir /d --cluster-cidr 10.244.0.0/25", "does not fit"),
            ("--data-dir /d --service-node-port-range 5", "is not a range of ports"),
            ("--data-dir /d --kubeconfig /k", "leave it out"),
            ("--components scheduler", "--kubeconfig is required"),
        ];
        for (flags, want) in rows {
            let error = format!("{:#}", config(flags).expect_err(flags));
            assert!(error.contains(want) && !error.contains('\n'), "{flags}: {error}");
        }
    }

    #[test]
    fn dual_stack() {
        let flags = "--data-dir /d --service-cluster-ip-range fd00:10:96::/112,10.96.0.0/16 --cluster-cidr fd00:10:244::/56,10.244.0.0/16";
        let apiserver = config(flags).expect("valid").apiserver.expect("on");
        let got: Vec<_> = apiserver.service_addresses().iter().map(ToString::to_string).collect();
        assert_eq!(got, ["fd00:10:96::1", "10.96.0.1"]);
    }
}
