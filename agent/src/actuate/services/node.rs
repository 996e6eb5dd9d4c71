//! What the programs must know of this node: the facts, gathered.
//!
//! Must not know: what is made of them (`agent-core`), how it gets to the programs.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use pagurus_agent_core::node_config::Facts;

use crate::config::{Config, Masquerade};
use crate::index::node::Nodes;
use crate::observe::devices::Seen;

/// The overlay's device.
const OVERLAY: &str = pagurus_cni::overlay::DEVICE;
/// What the kernel gives to sockets unless told otherwise.
const LOCAL_PORTS: RangeInclusive<u16> = 32_768..=60_999;

/// What is known now.
pub(super) fn facts(config: &Config, node_ips: &[IpAddr], nodes: Option<&Nodes>, seen: &Seen) -> Facts {
    let services = &config.services;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let overlay = seen.links.iter().find(|link| link.name == OVERLAY && link.up);
    Facts {
        node_ips: node_ips.to_vec(),
        node_ports: services.node_ports.clone(),
        local_ports: local_ports(&read("/proc/sys/net/ipv4/ip_local_port_range")).unwrap_or(LOCAL_PORTS),
        cluster_networks: services.cluster_networks.clone(),
        pod_ranges: nodes.into_iter().flatten().flat_map(|(_, node)| node.pod_ranges.clone()).collect(),
        exclusions: services.non_masquerade.clone(),
        masquerade: match services.masquerade {
            Masquerade::Auto => config.pod_network,
            Masquerade::On => true,
            Masquerade::Off => false,
        },
        own_network: config.pod_network,
        overlay: overlay.map(|link| (link.index, link.mtu)),
        tcp_seconds: services.tcp_seconds,
        udp_seconds: services.udp_seconds,
    }
}

/// `net.ipv4.ip_local_port_range`: two numbers.
fn local_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    Some(numbers.next()??..=numbers.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_kernel() {
        assert_eq!(local_ports("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(local_ports("x"), None);
    }
}
