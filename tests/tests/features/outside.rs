//! NodePorts, load balancers' and external addresses, from a client that is no node: to pods of the node it asks and of others, by
//! translation of its address and by direct answers.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::services::{Forwarding, Service};
use pagurus_tests::topology::{CLIENT, udp_ask, udp_socket};

use super::{Ground, PORTS, ask, ask_all, refused, silent, web};

/// Addresses of a load balancer, and external ones. Nobody answers ARP for them here: clients have a route.
const BALANCER: [&str; 2] = ["198.51.100.10", "2001:db8:51::10"];
const EXTERNAL: [&str; 2] = ["198.51.100.20", "2001:db8:51::20"];

/// The Service with all kinds of addresses.
pub(super) fn published() -> Result<Service> {
    let parse = |texts: [&str; 2]| -> Result<Vec<IpAddr>> { Ok(vec![texts[0].parse()?, texts[1].parse()?]) };
    Ok(Service { load_balancer_ips: parse(BALANCER)?, external_ips: parse(EXTERNAL)?, ..web() })
}

/// The client's way to load balancers' addresses: through a node.
pub(super) fn route_through(ground: &Ground, node: usize) -> Result<()> {
    for address in BALANCER.iter().chain(&EXTERNAL) {
        let ip: IpAddr = address.parse()?;
        let via = ground.node(node).ips.like(ip).to_string();
        ground.cluster.topology.client.ip(&["route", "replace", address, "via", &via])?;
    }
    Ok(())
}

/// Where the Service is reached through a node.
pub(super) fn frontends(ground: &Ground, node: usize) -> Result<Vec<(Protocol, SocketAddr)>> {
    let mut all = Vec::new();
    for (_, protocol, port, node_port, _) in PORTS {
        all.extend(ground.node(node).ips.both().map(|ip| (protocol, SocketAddr::new(ip, node_port))));
        for text in BALANCER.iter().chain(&EXTERNAL) {
            all.push((protocol, SocketAddr::new(text.parse()?, port)));
        }
    }
    Ok(all)
}

pub(super) fn to_pods_of_every_node(ground: &mut Ground) -> Result<()> {
    ground.serve(&published()?, &[0, 1, 2])?;
    route_through(ground, 0)?;
    let client = ground.cluster.topology.client.clone();
    let servers: Vec<&str> = (0..3).map(|node| ground.server(node)).collect();
    for (protocol, to) in frontends(ground, 0)? {
        for answer in ask_all(&client, protocol, to, &servers)? {
            let own = if answer.server == ground.server(0) { CLIENT } else { ground.node(0).ips };
            ensure!(answer.client.ip() == own.like(to.ip()), "{protocol} to {to}: {answer:?}");
        }
    }
    Ok(())
}

pub(super) fn long_datagrams(ground: &mut Ground) -> Result<()> {
    for node in [0, 1] {
        ground.serve(&web(), &[node])?;
        for ip in ground.node(0).ips.both() {
            let to = SocketAddr::new(ip, PORTS[1].3);
            let socket = udp_socket(&ground.cluster.topology.client, to)?;
            for size in [1472, 1473, 4000, 30_000] {
                let answer = udp_ask(&socket, to, &vec![b'?'; size]);
                answer.with_context(|| format!("{size} bytes to {to}, pod of node {node}"))?;
            }
        }
    }
    Ok(())
}

pub(super) fn direct_answers(ground: &mut Ground) -> Result<()> {
    let service = Service { forwarding: Forwarding::Dsr, ..published()? };
    ground.serve(&service, &[0, 1, 2])?;
    route_through(ground, 0)?;
    let client = ground.cluster.topology.client.clone();
    let servers: Vec<&str> = (0..3).map(|node| ground.server(node)).collect();
    for (protocol, to) in frontends(ground, 0)? {
        for answer in ask_all(&client, protocol, to, &servers)? {
            ensure!(answer.client.ip() == CLIENT.like(to.ip()), "{protocol} to {to}: {answer:?}");
        }
    }
    Ok(())
}

pub(super) fn without_endpoints_it_refuses_at_once(ground: &mut Ground) -> Result<()> {
    ground.serve(&published()?, &[])?;
    route_through(ground, 1)?;
    for (protocol, to) in frontends(ground, 1)? {
        refused(&ground.cluster.topology.client, protocol, to)?;
    }
    Ok(())
}

pub(super) fn local_policy_keeps_the_clients_address(ground: &mut Ground) -> Result<()> {
    let service = Service { external_local: true, ..published()? };
    ground.serve(&service, &[1, 2])?;
    let client = ground.cluster.topology.client.clone();
    // A node that has an endpoint leads to it alone, and shows it the client.
    route_through(ground, 1)?;
    for (protocol, to) in frontends(ground, 1)? {
        for answer in ask_all(&client, protocol, to, &[ground.server(1)])? {
            ensure!(answer.client.ip() == CLIENT.like(to.ip()), "{protocol} to {to}: {answer:?}");
        }
    }
    // One that has none keeps silent: a load balancer would ask another node.
    route_through(ground, 0)?;
    for (protocol, to) in frontends(ground, 0)? {
        if protocol != Protocol::Sctp {
            silent(&client, protocol, to)?;
        }
    }
    ensure!(ground.cluster.planes[0].drops("no_local_endpoint")? > 0);
    // Those in the cluster are served everywhere.
    for (protocol, to) in frontends(ground, 0)? {
        let servers = [ground.server(1), ground.server(2)];
        ask_all(&ground.client.host, protocol, to, &servers)?;
        ask_all(&ground.client.host.unhooked(), protocol, to, &servers)?;
    }
    Ok(())
}

pub(super) fn source_ranges(ground: &mut Ground) -> Result<()> {
    let ranges = vec!["192.168.77.96/28".parse()?, "fd77::60/124".parse()?];
    let service = Service { source_ranges: ranges, ..published()? };
    ground.serve(&service, &[0, 1])?;
    route_through(ground, 0)?;
    let client = ground.cluster.topology.client.clone();
    let servers = [ground.server(0), ground.server(1)];
    let others = Service {
        source_ranges: vec!["192.0.2.0/24".parse()?, "2001:db8:ff::/64".parse()?],
        ..service.clone()
    };
    let all = |ground: &Ground| frontends(ground, 0);
    for (protocol, to) in all(ground)? {
        ask_all(&client, protocol, to, &servers)?;
    }
    ground.serve(&others, &[0, 1])?;
    for (protocol, to) in all(ground)? {
        let balanced = BALANCER.contains(&to.ip().to_string().as_str());
        if balanced && protocol != Protocol::Sctp {
            silent(&client, protocol, to)?;
        } else if !balanced {
            // The ranges hold for the load balancer's addresses only.
            ask(&client, protocol, to)?;
        }
    }
    ensure!(ground.cluster.planes[0].drops("source_range")? > 0);
    Ok(())
}
