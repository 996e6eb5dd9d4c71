//! The ground on which tests of Services stand, by itself: who reaches whom with no programs attached, and who sees whom as what.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use pagurus_tests::netns::isolated;
use pagurus_tests::topology::{
    CLIENT, Topology, WORLD, tcp_ask, tcp_server, udp_ask, udp_server, udp_socket,
};

#[test]
fn nodes_pods_and_clients_reach_each_other() {
    isolated("topology::nodes_pods_and_clients_reach_each_other", |sandbox| {
        let mut topology = Topology::new(sandbox, 3)?;
        let pods = [topology.nodes[0].pod()?, topology.nodes[0].pod()?, topology.nodes[1].pod()?];
        let bridged = topology.nodes[2].pod_on_bridge()?;
        let mut servers = Vec::new();
        for pod in pods.iter().chain([&bridged]) {
            for ip in pod.ips.both() {
                servers.push((tcp_server(&pod.host, ip, 80, &pod.host.name)?, pod.host.name.clone()));
                servers.push((udp_server(&pod.host, ip, 53, &pod.host.name)?, pod.host.name.clone()));
            }
        }
        let places = [
            (&pods[0].host, pods[0].ips),
            (&pods[2].host, pods[2].ips),
            (&bridged.host, bridged.ips),
            (&topology.nodes[1].host, topology.nodes[1].ips),
        ];
        for (place, ips) in places {
            for (server, name) in &servers {
                let expected = ips.like(server.address.ip());
                let answer = if server.address.port() == 80 {
                    tcp_ask(place, server.address)?
                } else {
                    let socket = udp_socket(place, server.address)?;
                    udp_ask(&socket, server.address, &[b'?'; 4000])?
                };
                ensure!(answer.server == *name, "{name} answered as {}", answer.server);
                ensure!(answer.client.ip() == expected, "{} was seen as {}", place.name, answer.client);
            }
        }
        // The world answers nodes, and clients by the nodes' network; of pods it knows nothing.
        for ip in WORLD.both() {
            let server = tcp_server(&topology.world, ip, 80, "world")?;
            let answer = tcp_ask(&topology.nodes[0].host, server.address)?;
            ensure!(answer.client.ip() == topology.nodes[0].ips.like(ip), "{answer:?}");
        }
        let server = tcp_server(&topology.nodes[0].host, topology.nodes[0].ips.v4.into(), 8080, "node1")?;
        let answer = tcp_ask(&topology.client, server.address)?;
        ensure!(answer.client.ip() == CLIENT.v4, "{answer:?}");
        // A server that has gone refuses.
        let gone: SocketAddr = server.address;
        drop(server);
        ensure!(tcp_ask(&topology.client, gone).is_err());
        Ok(())
    });
}

#[test]
fn places_are_in_their_cgroups() {
    isolated("topology::places_are_in_their_cgroups", |sandbox| {
        let mut topology = Topology::new(sandbox, 2)?;
        let pod = topology.nodes[1].pod()?;
        let cgroup = || -> Result<String> {
            let text = std::fs::read_to_string("/proc/thread-self/cgroup")?;
            Ok(text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned())
        };
        ensure!(pod.host.run(cgroup)?.ends_with("/node2"));
        ensure!(topology.nodes[0].host.run(cgroup)?.ends_with("/node1"));
        ensure!(pod.host.unhooked().run(cgroup)? == cgroup()?);
        ensure!(!cgroup()?.contains("node"));
        Ok(())
    });
}
