//! Who gets which endpoint: clients that stay, policies inside the cluster.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::services::Service;
use pagurus_tests::topology::Host;

use super::{CLUSTER_IPS, Ground, PORTS, ask, ask_all, silent, web};

/// Asks many times at these ports; the only server that answered.
fn only_one(host: &Host, ip: IpAddr, ports: &[super::Port], node_ports: bool) -> Result<String> {
    let mut only: Option<String> = None;
    for _ in 0..6 {
        for (_, protocol, port, node_port, _) in ports {
            let to = SocketAddr::new(ip, if node_ports { *node_port } else { *port });
            let server = ask(host, *protocol, to).with_context(|| format!("{protocol} to {to}"))?.server;
            let first = only.get_or_insert_with(|| server.clone());
            ensure!(*first == server, "{protocol} to {to} from {host:?}: {first} and {server}");
        }
    }
    only.context("nobody answered")
}

pub(super) fn clients_stay_with_their_endpoint(ground: &mut Ground) -> Result<()> {
    let service = Service { affinity: 10_800, ..web() };
    ground.serve(&service, &[0, 1, 2])?;
    for ip in CLUSTER_IPS {
        let ip: IpAddr = ip.parse()?;
        // At every port of the Service. What the socket programs do not see is SCTP, and they know a pod by another name.
        only_one(&ground.client.host, ip, &PORTS[..2], false)?;
        only_one(&ground.client.host, ip, &PORTS[2..], false)?;
        only_one(&ground.client.host.unhooked(), ip, &PORTS, false)?;
    }
    for ip in ground.node(1).ips.both() {
        let kept = only_one(&ground.cluster.topology.client, ip, &PORTS, true)?;
        // Another node leads the client to the same one.
        let other = ground.node(2).ips.like(ip);
        let elsewhere = only_one(&ground.cluster.topology.client, other, &PORTS, true)?;
        ensure!(kept == elsewhere, "{kept} at node 2, {elsewhere} at node 3");
    }
    Ok(())
}

pub(super) fn internal_local_policy(ground: &mut Ground) -> Result<()> {
    let service = Service { internal_local: true, ..web() };
    ground.serve(&service, &[0, 1, 2])?;
    let client = ground.client.host.clone();
    let own = [ground.server(0).to_owned()];
    let own = [own[0].as_str()];
    let all: Vec<String> = (0..3).map(|node| ground.server(node).to_owned()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for ip in CLUSTER_IPS {
        let ip: IpAddr = ip.parse()?;
        for (_, protocol, port, node_port, _) in PORTS {
            for place in [client.clone(), client.unhooked()] {
                for _ in 0..10 {
                    ask_all(&place, protocol, SocketAddr::new(ip, port), &own)?;
                }
                // NodePorts have a policy of their own.
                let node = SocketAddr::new(ground.node(0).ips.like(ip), node_port);
                ask_all(&place, protocol, node, &all)?;
            }
        }
    }
    // Without an endpoint here there is none, and it is not refused: there are some elsewhere.
    ground.serve(&service, &[1])?;
    for ip in CLUSTER_IPS {
        let to = SocketAddr::new(ip.parse()?, PORTS[0].2);
        silent(&client.unhooked(), PORTS[0].1, to)?;
    }
    Ok(())
}
