//! Networks that are not ours: pods on a bridge of another CNI plugin, and ways to clients with a smaller MTU in the middle.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::services::Service;
use pagurus_agent_datapath::Datapath;
use pagurus_cni::sysctl;
use pagurus_tests::dataplane::{Cluster, Options, Target, With as _, service};
use pagurus_tests::netns::{ip, isolated};
use pagurus_tests::topology::{
    CLIENT, Host, Pod, Server, tcp_ask, tcp_connect, tcp_server, udp_ask, udp_server, udp_socket,
};

const CLUSTER_IPS: [&str; 2] = ["10.96.0.10", "fd00:96::10"];

fn with_programs(name: &str, body: impl FnOnce(&pagurus_tests::netns::Sandbox) -> Result<()>) {
    if !Datapath::is_built() {
        println!("SKIPPED: built without BPF programs (`cargo xtask build` makes them)");
        return;
    }
    isolated(name, body);
}

fn web() -> Service {
    service("web", &CLUSTER_IPS)
        .port("web", Protocol::Tcp, 80)
        .node_port(30_080)
        .port("dns", Protocol::Udp, 53)
        .node_port(30_053)
}

fn target(pod: &Pod) -> Target {
    Target::new(pod.ips, &[("web", 8080), ("dns", 8080)])
}

fn serve(pod: &Pod) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for ip in pod.ips.both() {
        servers.push(tcp_server(&pod.host, ip, 8080, &pod.host.name)?);
        servers.push(udp_server(&pod.host, ip, 8080, &pod.host.name)?);
    }
    Ok(servers)
}

/// Asks over TCP and UDP until each of these servers has answered both ways, and checks whom they see.
fn all_answer(host: &Host, ip: IpAddr, ports: [u16; 2], wanted: &[&Pod], seen_as: &[IpAddr]) -> Result<()> {
    for (tcp, port) in [true, false].into_iter().zip(ports) {
        let to = SocketAddr::new(ip, port);
        let mut missing: Vec<&str> = wanted.iter().map(|pod| pod.host.name.as_str()).collect();
        for _ in 0..60 {
            let answer = if tcp { tcp_ask(host, to) } else { udp_ask(&udp_socket(host, to)?, to, b"?") };
            let answer = answer.with_context(|| format!("{} to {to}, TCP: {tcp}", host.name))?;
            ensure!(seen_as.contains(&answer.client.ip()), "{} to {to}: {answer:?}", host.name);
            missing.retain(|name| *name != answer.server);
        }
        ensure!(missing.is_empty(), "{} to {to}: {missing:?} never answered", host.name);
    }
    Ok(())
}

#[test]
fn services_for_pods_on_the_bridge_of_another_plugin() {
    with_programs("foreign::services_for_pods_on_the_bridge_of_another_plugin", |sandbox| {
        // As under --pod-network=off: routes, delivery and masquerade are the other plugin's.
        let options = Options { own_network: false, masquerade: false, ..Options::default() };
        let mut cluster = Cluster::new(sandbox, 3, &options)?;
        let client = cluster.pod_on_bridge(0)?;
        let mut pods = Vec::new();
        let mut servers = Vec::new();
        for node in 0..3 {
            let pod = cluster.pod_on_bridge(node)?;
            servers.extend(serve(&pod)?);
            pods.push(pod);
        }
        let targets: Vec<Target> = pods.iter().map(target).collect();
        let everybody: Vec<&Pod> = pods.iter().collect();
        cluster.serve(&web(), &targets)?;
        let checked = (|| -> Result<()> {
            for ip in CLUSTER_IPS {
                let ip: IpAddr = ip.parse()?;
                // By the socket programs.
                all_answer(&client.host, ip, [80, 53], &everybody, &[client.ips.like(ip)])?;
                let node = &cluster.topology.nodes[1];
                // A node has an address on the bridge, too.
                let bridge: IpAddr = if ip.is_ipv4() { "10.244.2.1" } else { "fd10:244:2::1" }.parse()?;
                all_answer(&node.host, ip, [80, 53], &everybody, &[node.ips.like(ip), bridge])?;
                let own = &cluster.topology.nodes[0];
                let at = own.ips.like(ip);
                // From outside: the pod of the node asked sees the client, others see the node.
                let seen_as = [CLIENT.like(ip), own.ips.like(ip)];
                all_answer(&cluster.topology.client, at, [30_080, 30_053], &everybody, &seen_as)?;
            }
            Ok(())
        })();
        checked.with_context(|| cluster.said())?;
        // Sockets that no program sees: to pods of other nodes, whose answers come back over the uplink. Those of the same bridge answer
        // each other without the node.
        cluster.serve(&web(), &targets[1..])?;
        for ip in CLUSTER_IPS {
            let ip: IpAddr = ip.parse()?;
            let host = client.host.unhooked();
            all_answer(&host, ip, [80, 53], &everybody[1..], &[client.ips.like(ip)])
                .with_context(|| cluster.said())?;
        }
        Ok(())
    });
}

/// A client two routers away, both of whose links take long packets while the one between the routers does not.
fn far_client(world: &Host) -> Result<Host> {
    let (middle, far) = (Host::new("middle", None)?, Host::new("far", None)?);
    world.ip(&["link", "add", "narrow", "type", "veth", "peer", "name", "narrow", "netns", "middle"])?;
    middle.ip(&["link", "add", "wide", "type", "veth", "peer", "name", "wide", "netns", "far"])?;
    for (host, device, mtu, addresses) in [
        (world, "narrow", "1300", ["198.18.0.1/24", "2001:db8:18::1/64"]),
        (&middle, "narrow", "1300", ["198.18.0.2/24", "2001:db8:18::2/64"]),
        (&middle, "wide", "1500", ["198.18.1.1/24", "2001:db8:19::1/64"]),
        (&far, "wide", "1500", ["198.18.1.2/24", "2001:db8:19::2/64"]),
    ] {
        for address in addresses {
            host.ip(&["addr", "add", address, "dev", device, "nodad"])?;
        }
        host.ip(&["link", "set", device, "mtu", mtu, "up"])?;
    }
    for host in [world, &middle] {
        host.run(|| Ok(sysctl::route_packets()?))?;
    }
    for (host, to, via) in [
        (world, "198.18.1.0/24", "198.18.0.2"),
        (world, "2001:db8:19::/64", "2001:db8:18::2"),
        (&middle, "default", "198.18.0.1"),
        (&middle, "default", "2001:db8:18::1"),
        (&far, "default", "198.18.1.1"),
        (&far, "default", "2001:db8:19::1"),
    ] {
        host.run(|| ip(&["route", "add", to, "via", via]).map(drop))?;
    }
    Ok(far)
}

#[test]
fn long_answers_get_through_a_narrow_way() {
    with_programs("foreign::long_answers_get_through_a_narrow_way", |sandbox| {
        let options = Options { own_network: true, ..Options::default() };
        let mut cluster = Cluster::new(sandbox, 2, &options)?;
        let pods = [cluster.pod(0)?, cluster.pod(1)?];
        let _servers = [serve(&pods[0])?, serve(&pods[1])?];
        let far = far_client(&cluster.topology.world)?;
        // The pod of the node asked, and one behind another node, which sees the node in place of the client.
        for (place, pod) in pods.iter().enumerate() {
            cluster.serve(&web(), &[target(pod)])?;
            for ip in cluster.topology.nodes[0].ips.both() {
                let to = SocketAddr::new(ip, 30_080);
                let what = || format!("{to}, pod of node {place}: {}", cluster.said());
                // What the client knows of the way it would tell the server at once, as the size of its segments.
                for family in ["-4", "-6"] {
                    far.ip(&[family, "route", "flush", "cache"])?;
                }
                let mut stream = far.run(|| tcp_connect(to)).with_context(what)?;
                let mut lines = BufReader::new(stream.try_clone()?);
                let mut line = String::new();
                lines.read_line(&mut line).with_context(what)?;
                let mut question = vec![b'?'; 300_000];
                question.push(b'\n');
                let writing =
                    std::thread::spawn(move || stream.write_all(&question).map(|()| question.len()));
                line.clear();
                lines.read_line(&mut line).with_context(what)?;
                ensure!(matches!(writing.join(), Ok(Ok(length)) if length == line.len()), "{}", line.len());
            }
            // It was no matter of small segments from the start: the pods have learnt of the narrow way.
            for (ip, to) in pod.ips.both().into_iter().zip(["198.18.1.2", "2001:db8:19::2"]) {
                let to = if place == 0 {
                    to.to_owned()
                } else {
                    cluster.topology.nodes[0].ips.like(ip).to_string()
                };
                let route = pod.host.ip(&["route", "get", &to])?;
                ensure!(route.contains("mtu 1300"), "pod of node {place}: {route}");
            }
        }
        Ok(())
    });
}
