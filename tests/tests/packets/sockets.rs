//! Real sockets through the programs at the devices of nodes: what single packets do not show, because the kernel still has to make
//! their checksums, and many of them are one.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use pagurus_ebpf_abi::{
    Endpoint, NODE_ADDRESS_NODE_PORTS, NODE_DELIVER, NODE_FORWARD, NODE_MASQUERADE, SERVICE_DSR,
    SERVICE_EXTERNAL,
};
use pagurus_tests::netns::isolated;
use pagurus_tests::packet::protocol;
use pagurus_tests::topology::{
    Answer, CLIENT, Host, Node, Pod, Topology, WORLD, tcp_ask, tcp_connect, tcp_server, udp_ask, udp_server,
    udp_socket,
};

use super::programs::{Programs, Service};

/// How much is sent over one connection: many times what fits into one packet, or into many at once.
const BULK: usize = 8 << 20;

/// The virtual addresses of Services.
pub(super) const VIPS: [&str; 2] = ["10.96.0.10", "[fd96::10]"];

fn at(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

/// Programs at a node's uplink and at its pods.
pub(super) fn programs_at(topology: &Topology, node: &Node, pods: &[&Pod]) -> Result<Option<Programs>> {
    node.host.run(|| {
        let Some(mut programs) = Programs::load()? else { return Ok(None) };
        programs.node(&node.ips.both())?;
        for other in topology.nodes.iter().filter(|other| other.number != node.number) {
            for ip in other.ips.both() {
                programs.node_address(ip, NODE_ADDRESS_NODE_PORTS)?;
            }
        }
        programs.networks(&[("10.244.0.0", 16), ("fd10:244::", 32), ("192.168.77.0", 24), ("fd77::", 64)])?;
        programs.attach("from_outside", "eth0")?;
        programs.attach("to_outside", "eth0")?;
        for pod in pods {
            for ip in pod.ips.both() {
                let (mac, host_mac) = (pod.mac, pod.host_mac);
                let endpoint = Endpoint { ifindex: pod.ifindex, flags: 0, mac, host_mac, reserved: 0 };
                programs.endpoint(ip, endpoint)?;
            }
            programs.attach("from_pod", &pod.device)?;
            programs.attach("to_pod", &pod.device)?;
        }
        Ok(Some(programs))
    })
}

/// A pod's ports behind Services, for both families and transports, at `VIPS:80` and NodePort 30080.
pub(super) fn serve(programs: &mut Programs, pod: &Pod, is_local: bool, flags: u32) -> Result<()> {
    for (ip, vip) in pod.ips.both().into_iter().zip(VIPS) {
        let any = if ip.is_ipv4() { "0.0.0.0" } else { "[::]" };
        for protocol in [protocol::TCP, protocol::UDP] {
            let id = programs.backend(&at(ip, 8080), protocol, is_local)?;
            let service = Service { flags: flags | SERVICE_EXTERNAL, inside: &[id], outside: &[id] };
            programs.service(&format!("{vip}:80"), protocol, &service)?;
            programs.service(&format!("{any}:30080"), protocol, &service)?;
        }
    }
    Ok(())
}

/// Asks a server in a pod by TCP, UDP and with much data; all must see the client as `seen`, or as any if that is none.
pub(super) fn ask(
    what: &str,
    client: &Host,
    server: &Pod,
    to: SocketAddr,
    seen: Option<IpAddr>,
) -> Result<()> {
    ask_at(what, client, (&server.host, server.ips.like(to.ip())), to, seen)
}

/// As [`ask`], of a server at this address of a host.
fn ask_at(
    what: &str,
    client: &Host,
    (server, ip): (&Host, IpAddr),
    to: SocketAddr,
    seen: Option<IpAddr>,
) -> Result<()> {
    let is_seen = |transport: &str, answer: &Answer| {
        let is_right = seen.is_none_or(|seen| answer.client.ip() == seen);
        ensure!(is_right, "{what}: {transport} sees {answer:?}, not {seen:?}");
        Ok(())
    };
    let tcp = tcp_server(server, ip, 8080, "server")?;
    is_seen("TCP", &tcp_ask(client, to).with_context(|| format!("{what}: TCP to {to}"))?)?;
    drop(tcp);
    let _udp = udp_server(server, ip, 8080, "server")?;
    let socket = udp_socket(client, to)?;
    for size in [1, 1200] {
        let answer = udp_ask(&socket, to, &vec![b'x'; size]);
        is_seen("UDP", &answer.with_context(|| format!("{what}: UDP to {to}"))?)?;
    }
    bulk(client, server, SocketAddr::new(ip, 8080), to).with_context(|| format!("{what}: much to {to}"))
}

/// Sends much there and back over one connection.
fn bulk(client: &Host, server: &Host, listen: SocketAddr, to: SocketAddr) -> Result<()> {
    let listener = server.run(|| Ok(TcpListener::bind(listen)?))?;
    thread::scope(|scope| {
        let echo = scope.spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut all = vec![0; BULK];
            stream.read_exact(&mut all)?;
            Ok(stream.write_all(&all)?)
        });
        let sent: Vec<u8> = (0..BULK).map(|at| (at / 7) as u8).collect();
        let back = client.run(|| {
            let mut stream = tcp_connect(to)?;
            stream.write_all(&sent)?;
            let mut all = vec![0; BULK];
            stream.read_exact(&mut all)?;
            Ok(all)
        })?;
        ensure!(back == sent, "what came back is something else");
        echo.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    })
}

/// The ways in which programs pass packets on.
pub(super) const MODES: [(&str, u32); 3] =
    [("kernel", 0), ("deliver", NODE_DELIVER), ("deliver and forward", NODE_DELIVER | NODE_FORWARD)];

#[test]
fn pods_reach_services_without_a_socket_hook() {
    isolated("packets::sockets::pods_reach_services_without_a_socket_hook", |sandbox| {
        let mut topology = Topology::new(sandbox, 2)?;
        let client = topology.nodes[0].pod()?;
        let local = topology.nodes[0].pod()?;
        let remote = topology.nodes[1].pod()?;
        let Some(mut here) = programs_at(&topology, &topology.nodes[0], &[&client, &local])? else {
            return Ok(());
        };
        let Some(mut there) = programs_at(&topology, &topology.nodes[1], &[&remote])? else { return Ok(()) };
        for (mode, flags) in MODES {
            here.configure(|config| config.flags = flags)?;
            there.configure(|config| config.flags = flags)?;
            for (server, is_local) in [(&local, true), (&remote, false), (&client, true)] {
                serve(&mut here, server, is_local, 0)?;
                for (index, vip) in VIPS.into_iter().enumerate() {
                    let what = format!("{mode}, to {}", server.host.name);
                    // A pod that reaches itself sees its node.
                    let own = server.host.name == client.host.name;
                    let seen = if own { topology.nodes[0].ips.both() } else { client.ips.both() }[index];
                    ask(&what, &client.host, server, format!("{vip}:80").parse()?, Some(seen))?;
                }
                ensure!(here.drops()?.is_empty(), "{mode}: {:?}", here.drops()?);
            }
        }
        Ok(())
    });
}

#[test]
fn clients_outside_reach_node_ports() {
    isolated("packets::sockets::clients_outside_reach_node_ports", |sandbox| {
        let mut topology = Topology::new(sandbox, 2)?;
        let local = topology.nodes[0].pod()?;
        let remote = topology.nodes[1].pod()?;
        let Some(mut here) = programs_at(&topology, &topology.nodes[0], &[&local])? else { return Ok(()) };
        let Some(mut there) = programs_at(&topology, &topology.nodes[1], &[&remote])? else { return Ok(()) };
        for (mode, flags) in MODES {
            here.configure(|config| config.flags = flags)?;
            there.configure(|config| config.flags = flags)?;
            for (server, is_local, dsr) in
                [(&local, true, 0), (&remote, false, 0), (&remote, false, SERVICE_DSR)]
            {
                serve(&mut here, server, is_local, dsr)?;
                serve(&mut there, server, !is_local, dsr)?;
                for (index, node) in topology.nodes[0].ips.both().into_iter().enumerate() {
                    let what = format!("{mode}, to {}, flags {dsr:x}", server.host.name);
                    let keeps = is_local || dsr != 0;
                    let seen = if keeps { CLIENT.both()[index] } else { node };
                    ask(&what, &topology.client, server, SocketAddr::new(node, 30_080), Some(seen))?;
                }
                ensure!(!here.states().is_empty(), "{mode}: nothing went through the programs");
                ensure!(here.drops()?.is_empty() && there.drops()?.is_empty(), "{mode}: {:?}", here.drops()?);
            }
        }
        Ok(())
    });
}

#[test]
fn pods_reach_the_world_with_the_nodes_address() {
    isolated("packets::sockets::pods_reach_the_world_with_the_nodes_address", |sandbox| {
        let mut topology = Topology::new(sandbox, 1)?;
        let pod = topology.nodes[0].pod()?;
        let Some(mut here) = programs_at(&topology, &topology.nodes[0], &[&pod])? else { return Ok(()) };
        for (mode, flags) in MODES {
            here.configure(|config| config.flags = flags | NODE_MASQUERADE)?;
            for (index, ip) in WORLD.both().into_iter().enumerate() {
                let to = SocketAddr::new(ip, 7070);
                let node = topology.nodes[0].ips.both()[index];
                let server = tcp_server(&topology.world, ip, 7070, "world")?;
                let answer = tcp_ask(&pod.host, to).with_context(|| format!("{mode}: {to}"))?;
                ensure!(answer.client.ip() == node, "{mode}: {answer:?}");
                drop(server);
                let _server = udp_server(&topology.world, ip, 7070, "world")?;
                let answer = udp_ask(&udp_socket(&pod.host, to)?, to, b"who")?;
                ensure!(answer.client.ip() == node, "{mode}: {answer:?}");
                bulk(&pod.host, &topology.world, to, to)?;
            }
            ensure!(here.drops()?.is_empty(), "{mode}: {:?}", here.drops()?);
        }
        Ok(())
    });
}

#[test]
fn servers_and_clients_on_the_nodes_network() {
    isolated("packets::sockets::servers_and_clients_on_the_nodes_network", |sandbox| {
        let mut topology = Topology::new(sandbox, 2)?;
        let local = topology.nodes[0].pod()?;
        let remote = topology.nodes[1].pod()?;
        let Some(mut here) = programs_at(&topology, &topology.nodes[0], &[&local])? else { return Ok(()) };
        let Some(mut there) = programs_at(&topology, &topology.nodes[1], &[&remote])? else { return Ok(()) };
        for (mode, flags) in MODES {
            here.configure(|config| config.flags = flags)?;
            there.configure(|config| config.flags = flags)?;
            // A server on this node's network, for a pod, and for a client outside.
            for (ip, vip) in topology.nodes[0].ips.both().into_iter().zip(VIPS) {
                let any = if ip.is_ipv4() { "0.0.0.0" } else { "[::]" };
                for protocol in [protocol::TCP, protocol::UDP] {
                    let id = here.backend(&at(ip, 8080), protocol, true)?;
                    let service = Service { flags: SERVICE_EXTERNAL, inside: &[id], outside: &[id] };
                    here.service(&format!("{vip}:80"), protocol, &service)?;
                    here.service(&format!("{any}:30080"), protocol, &service)?;
                }
                let (vip, node_port) = (format!("{vip}:80").parse()?, SocketAddr::new(ip, 30_080));
                let server = (&topology.nodes[0].host, ip);
                ask_at(mode, &local.host, server, vip, Some(local.ips.like(ip)))?;
                ask_at(mode, &topology.client, server, node_port, Some(CLIENT.like(ip)))?;
            }
            // A client on this node's network, which no socket program has seen, and pods here and elsewhere.
            for (server, is_local) in [(&local, true), (&remote, false)] {
                serve(&mut here, server, is_local, 0)?;
                for (ip, vip) in topology.nodes[0].ips.both().into_iter().zip(VIPS) {
                    let what = format!("{mode}: the node to {}", server.host.name);
                    ask(&what, &topology.nodes[0].host, server, format!("{vip}:80").parse()?, Some(ip))?;
                }
            }
            ensure!(here.drops()?.is_empty() && there.drops()?.is_empty(), "{mode}: {:?}", here.drops()?);
        }
        Ok(())
    });
}
