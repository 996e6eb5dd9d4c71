//! Ways between the pods of three nodes: direct and through VXLAN, both families, packets of all sizes, nodes that leave and come
//! back, and one way in place of the other under traffic.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pagurus_cni::netlink::{Netlink as _, Socket};
use pagurus_cni::overlay::{self, DEVICE, Mode, Options, Outcome};
use pagurus_tests::netns::isolated;
use pagurus_tests::topology::{
    Node, Pod, Server, Topology, tcp_ask, tcp_connect, tcp_server, udp_ask, udp_server, udp_socket,
};

fn options(mode: Mode) -> Options {
    Options { mode, ..Options::default() }
}

/// What all nodes know of one.
fn known(node: &Node) -> Result<overlay::Node> {
    let ranges = node.pod_cidrs().iter().map(|range| range.parse()).collect::<Result<_, _>>()?;
    Ok(overlay::Node { name: node.host.name.clone(), ips: node.ips.both().to_vec(), ranges })
}

/// One pass on one node, which knows of `others`.
fn pass(node: &Node, options: &Options, others: &[overlay::Node]) -> Result<Outcome> {
    let own = known(node)?;
    let others: Vec<overlay::Node> = others.iter().filter(|other| other.name != own.name).cloned().collect();
    let outcome = node.host.run(|| Ok(overlay::reconcile(&mut Socket::open()?, options, &own, &others)?))?;
    ensure!(outcome.problems.is_empty(), "{}: {:?}", node.host.name, outcome.problems);
    Ok(outcome)
}

/// One pass on every node, and one more that has nothing to do.
fn pass_all(topology: &Topology, options: &Options) -> Result<()> {
    let all: Vec<overlay::Node> = topology.nodes.iter().map(known).collect::<Result<_>>()?;
    for node in &topology.nodes {
        pass(node, options, &all)?;
        let own = known(node)?;
        let others: Vec<overlay::Node> = all.iter().filter(|other| **other != own).cloned().collect();
        let left = node.host.run(|| {
            let observed = overlay::observe(&mut Socket::open()?, &own.ips)?;
            Ok(overlay::plan(options, &own, &others, &observed).actions)
        })?;
        ensure!(left.is_empty(), "{}: {left:?}", node.host.name);
    }
    Ok(())
}

/// Three nodes without any routes to each other's pods, and a pod on each.
fn three(topology: &mut Topology) -> Result<Vec<Pod>> {
    for node in &topology.nodes {
        for other in topology.nodes.iter().filter(|other| other.number != node.number) {
            for cidr in other.pod_cidrs() {
                // It may have gone with the address it went through.
                let _ = node.host.ip(&["route", "del", &cidr]);
            }
        }
    }
    topology.nodes.iter_mut().map(Node::pod).collect()
}

fn servers(pods: &[Pod]) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for pod in pods {
        for ip in pod.ips.both() {
            servers.push(tcp_server(&pod.host, ip, 80, &pod.host.name)?);
            servers.push(udp_server(&pod.host, ip, 53, &pod.host.name)?);
        }
    }
    Ok(servers)
}

/// Every pod reaches every pod with its own address, with small and with fragmented packets.
fn all_reach_all(pods: &[Pod], servers: &[Server]) -> Result<()> {
    for pod in pods {
        for server in servers {
            let seen = if server.address.port() == 80 {
                tcp_ask(&pod.host, server.address)?
            } else {
                let socket = udp_socket(&pod.host, server.address)?;
                // The first question and the first answer may find that the way is smaller than the link.
                let ask = || udp_ask(&socket, server.address, &[b'?'; 4000]);
                ask().or_else(|_| ask()).or_else(|_| ask())?
            };
            let expected = pod.ips.like(server.address.ip());
            ensure!(seen.client.ip() == expected, "{} was seen as {}", pod.host.name, seen.client);
        }
    }
    Ok(())
}

/// Sends 4 MiB from one pod to another.
fn transfer(from: &Pod, to: &Pod, ip: IpAddr) -> Result<()> {
    const LENGTH: usize = 4 << 20;
    let listener = to.host.run(|| Ok(TcpListener::bind((ip, 0))?))?;
    let address: SocketAddr = listener.local_addr()?;
    let receiver = thread::spawn(move || -> Result<usize> {
        let (mut stream, _) = listener.accept()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes.len())
    });
    from.host.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))
            .with_context(|| format!("connect to {address}"))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(stream.write_all(&vec![7; LENGTH])?)
    })?;
    let received = receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
    ensure!(received == LENGTH, "{received} bytes of {LENGTH} came to {address}");
    Ok(())
}

fn device(node: &Node) -> Result<bool> {
    node.host.run(|| Ok(Socket::open()?.link(DEVICE)?.is_some()))
}

#[test]
fn pods_of_three_nodes_reach_each_other_either_way() {
    isolated("routing::pods_of_three_nodes_reach_each_other_either_way", |sandbox| {
        let mut topology = Topology::new(sandbox, 3)?;
        let pods = three(&mut topology)?;
        let servers = servers(&pods)?;
        ensure!(tcp_ask(&pods[0].host, servers[4].address).is_err(), "there is no way yet");
        for mode in [Mode::Direct, Mode::Vxlan, Mode::Auto, Mode::Vxlan] {
            pass_all(&topology, &options(mode))?;
            all_reach_all(&pods, &servers).with_context(|| format!("{mode:?}"))?;
            for ip in pods[2].ips.both() {
                transfer(&pods[0], &pods[2], ip).with_context(|| format!("{mode:?}"))?;
            }
            for node in &topology.nodes {
                ensure!(device(node)? == (mode == Mode::Vxlan), "{mode:?}");
            }
        }
        // The way was found to be smaller than the pod's link.
        let target = pods[2].ips.v4.to_string();
        let route = pods[0].host.ip(&["route", "get", &target])?;
        ensure!(route.contains("mtu 1450"), "{route}");
        // The node itself is seen with its address in the overlay, so that answers come back by it.
        for (index, own) in ["10.244.1.0", "fd10:244:1::"].into_iter().enumerate() {
            let server = tcp_server(&pods[1].host, pods[1].ips.both()[index], 8080, "pod")?;
            let seen = tcp_ask(&topology.nodes[0].host, server.address)?.client.ip();
            ensure!(seen == own.parse::<IpAddr>()?, "the node was seen as {seen}");
        }
        Ok(())
    });
}

#[test]
fn connections_live_through_a_change_of_the_way() {
    isolated("routing::connections_live_through_a_change_of_the_way", |sandbox| {
        let mut topology = Topology::new(sandbox, 3)?;
        let pods = three(&mut topology)?;
        pass_all(&topology, &options(Mode::Direct))?;
        let mut streams = Vec::new();
        let mut servers = Vec::new();
        for ip in pods[1].ips.both() {
            let server = tcp_server(&pods[1].host, ip, 80, "pod")?;
            let stream = pods[0].host.run(|| tcp_connect(server.address))?;
            let mut greeting = String::new();
            BufReader::with_capacity(1, &stream).read_line(&mut greeting)?;
            streams.push(stream);
            servers.push(server);
        }
        for mode in [Mode::Vxlan, Mode::Direct, Mode::Vxlan] {
            pass_all(&topology, &options(mode))?;
            for stream in &mut streams {
                let mut line = vec![b'x'; 100_000];
                line.push(b'\n');
                stream.write_all(&line)?;
                let mut back = vec![0; line.len()];
                stream.read_exact(&mut back).with_context(|| format!("an echo after {mode:?}"))?;
                ensure!(back == line);
            }
        }
        Ok(())
    });
}

#[test]
fn a_node_that_leaves_is_forgotten_and_may_come_back() {
    isolated("routing::a_node_that_leaves_is_forgotten_and_may_come_back", |sandbox| {
        let mut topology = Topology::new(sandbox, 3)?;
        let pods = three(&mut topology)?;
        let servers = servers(&pods)?;
        for mode in [Mode::Direct, Mode::Vxlan] {
            pass_all(&topology, &options(mode))?;
            let left: Vec<overlay::Node> = topology.nodes[..2].iter().map(known).collect::<Result<_>>()?;
            for node in &topology.nodes[..2] {
                let before = pass(node, &options(mode), &left)?.observed;
                let after = pass(node, &options(mode), &left)?.observed;
                ensure!(before.routes.len() == after.routes.len() + 2, "{mode:?}");
                if mode == Mode::Vxlan {
                    ensure!(after.forwarding.len() == 1 && after.neighbours.len() == 2, "{after:?}");
                }
            }
            ensure!(tcp_ask(&pods[0].host, servers[8].address).is_err(), "{mode:?}: it is still reached");
            tcp_ask(&pods[0].host, servers[4].address)?;
            pass_all(&topology, &options(mode))?;
            all_reach_all(&pods, &servers)?;
        }
        // Nobody is left: so is no device.
        pass(&topology.nodes[0], &options(Mode::Vxlan), &[])?;
        ensure!(!device(&topology.nodes[0])?);
        Ok(())
    });
}

#[test]
fn only_nodes_beyond_a_router_are_reached_through_the_overlay() {
    isolated("routing::only_nodes_beyond_a_router_are_reached_through_the_overlay", |sandbox| {
        let mut topology = Topology::new(sandbox, 3)?;
        // The third node moves to a network of its own behind the router, which knows no pods.
        let far = &mut topology.nodes[2];
        for command in
            ["addr flush dev eth0", "addr add 192.168.78.3/24 dev eth0", "addr add fd78::3/64 dev eth0 nodad"]
        {
            far.host.ip(&command.split(' ').collect::<Vec<_>>())?;
        }
        (far.ips.v4, far.ips.v6) = ("192.168.78.3".parse()?, "fd78::3".parse()?);
        for command in ["addr add 192.168.78.254/24 dev eth0", "addr add fd78::fe/64 dev eth0 nodad"] {
            topology.world.ip(&command.split(' ').collect::<Vec<_>>())?;
        }
        let pods = three(&mut topology)?;
        let far = &topology.nodes[2];
        far.host.ip(&["route", "replace", "default", "via", "192.168.78.254", "dev", "eth0"])?;
        far.host.ip(&["-6", "route", "replace", "default", "via", "fd78::fe", "dev", "eth0"])?;
        pass_all(&topology, &options(Mode::Auto))?;
        let overlaid = |node: &Node| -> Result<BTreeSet<String>> {
            let routes = node.host.ip(&["route", "show", "dev", DEVICE])?;
            Ok(routes.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
        };
        ensure!(overlaid(&topology.nodes[0])? == BTreeSet::from(["10.244.3.0/24".to_owned()]));
        ensure!(overlaid(&topology.nodes[2])?.len() == 2);
        let servers = servers(&pods)?;
        all_reach_all(&pods, &servers)?;
        for ip in pods[0].ips.both() {
            transfer(&pods[2], &pods[0], ip)?;
        }
        Ok(())
    });
}
