//! Cluster IPs: from pods and nodes, with socket programs and without, to pods of every node and to oneself.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::addr::Protocol;
use pagurus_tests::topology::{CLIENT, tcp_ask, tcp_server, udp_ask, udp_server, udp_socket};

use super::{CLUSTER_IPS, Ground, PORTS, ask, ask_all, web};

/// Every address and port of the Service.
fn frontends() -> Result<Vec<(Protocol, SocketAddr)>> {
    let mut all = Vec::new();
    for ip in CLUSTER_IPS {
        let ip: IpAddr = ip.parse()?;
        all.extend(PORTS.iter().map(|(_, protocol, port, _, _)| (*protocol, SocketAddr::new(ip, *port))));
    }
    Ok(all)
}

pub(super) fn from_everywhere(ground: &mut Ground) -> Result<()> {
    ground.serve(&web(), &[0, 1, 2])?;
    let servers: Vec<String> = (0..3).map(|node| ground.server(node).to_owned()).collect();
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let (pod, node) = (&ground.client, ground.node(0));
    for (place, ips) in [
        (pod.host.clone(), pod.ips),
        (pod.host.unhooked(), pod.ips),
        (node.host.clone(), node.ips),
        (node.host.unhooked(), node.ips),
    ] {
        for (protocol, to) in frontends()? {
            let what = || format!("from {place:?}");
            for answer in ask_all(&place, protocol, to, &servers).with_context(what)? {
                // In the cluster everybody is seen as who they are.
                let expected = ips.like(to.ip());
                ensure!(answer.client.ip() == expected, "{}: {protocol} to {to}: {answer:?}", place.name);
            }
        }
    }
    Ok(())
}

pub(super) fn a_pod_reaches_itself(ground: &mut Ground) -> Result<()> {
    ground.serve(&web(), &[0])?;
    let pod = &ground.pods[0];
    for (protocol, to) in frontends()? {
        for place in [pod.host.clone(), pod.host.unhooked()] {
            let answer = ask(&place, protocol, to).with_context(|| format!("from {place:?}"))?;
            ensure!(answer.server == pod.host.name, "{answer:?}");
        }
    }
    Ok(())
}

pub(super) fn without_endpoints_it_refuses_at_once(ground: &mut Ground) -> Result<()> {
    ground.serve(&web(), &[])?;
    let (pod, node) = (ground.client.host.clone(), ground.node(0).host.clone());
    for place in [pod.clone(), pod.unhooked(), node.clone(), node.unhooked()] {
        for (protocol, to) in frontends()? {
            super::refused(&place, protocol, to)?;
        }
    }
    Ok(())
}

pub(super) fn long_datagrams(ground: &mut Ground) -> Result<()> {
    ground.serve(&web(), &[1])?;
    for ip in CLUSTER_IPS {
        let to = SocketAddr::new(ip.parse()?, PORTS[1].2);
        for place in [ground.client.host.clone(), ground.client.host.unhooked()] {
            let socket = udp_socket(&place, to)?;
            // In fragments there and back.
            for size in [100, 1472, 1473, 4000, 30_000] {
                let answer = udp_ask(&socket, to, &vec![b'?'; size]);
                answer.with_context(|| format!("{size} bytes to {to} from {place:?}"))?;
            }
        }
    }
    Ok(())
}

pub(super) fn pods_leave_the_cluster_with_the_nodes_address(ground: &mut Ground) -> Result<()> {
    let world = pagurus_tests::topology::WORLD;
    for (host, ips) in [(&ground.cluster.topology.world, world), (&ground.cluster.topology.client, CLIENT)] {
        for ip in ips.both() {
            let tcp = tcp_server(host, ip, 8000, "outside")?;
            let udp = udp_server(host, ip, 8001, "outside")?;
            let node = ground.node(0).ips.like(ip);
            for place in [ground.client.host.clone(), ground.client.host.unhooked()] {
                let answer = tcp_ask(&place, tcp.address)?;
                ensure!(answer.client.ip() == node, "{answer:?}");
                let answer = udp_ask(&udp_socket(&place, udp.address)?, udp.address, &[b'?'; 4000])?;
                ensure!(answer.client.ip() == node, "{answer:?}");
            }
        }
    }
    // In the cluster they keep their own.
    for ip in ground.pods[1].ips.both() {
        let answer = tcp_ask(&ground.client.host, SocketAddr::new(ip, PORTS[0].4))?;
        ensure!(answer.client.ip() == ground.client.ips.like(ip), "{answer:?}");
    }
    Ok(())
}
