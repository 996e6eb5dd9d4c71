//! What routers do with packets, done by the programs: time to live, length, and the overlay.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use pagurus_cni::netlink::{Netlink as _, Socket};
use pagurus_cni::overlay::{self, Mode};
use pagurus_ebpf_abi::{FLOW_OUTSIDE, NODE_DELIVER, NODE_FORWARD, SERVICE_DSR, SERVICE_EXTERNAL};
use pagurus_tests::eventually::eventually;
use pagurus_tests::netns::isolated;
use pagurus_tests::pace::patience;
use pagurus_tests::packet::{Body, Packet, protocol, tcp, time_exceeded, udp};
use pagurus_tests::topology::{CLIENT, Host, Node, PATIENCE, Pod, Topology, udp_server};

use super::node::{FAMILIES, at, bare_node, ip, ready, transports};
use super::programs::{DROP, Programs, REDIRECT, Service, flow};
use super::sockets::{MODES, VIPS, ask, programs_at, serve};

#[test]
fn a_time_to_live_that_is_used_up_is_said() {
    isolated("packets::forward::a_time_to_live_that_is_used_up_is_said", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        let mut count = 0;
        for family in &FAMILIES {
            let (client, vip) = (at(family.client, 4000), at(family.vip, 80));
            for (protocol, packet) in transports(&client, &vip) {
                let id = programs.backend(&at(family.pod, 8080), protocol, true)?;
                programs.service(&vip, protocol, &Service { outside: &[id], ..Service::default() })?;
                for ttl in [0, 1] {
                    let packet = packet.clone().ttl(ttl);
                    let ran = programs.run("from_outside", &packet)?;
                    ensure!(ran.code == REDIRECT, "{ran:?}");
                    // By this node, about the packet as it was sent.
                    let (told, wanted) = (ran.packet(), time_exceeded(&packet));
                    ensure!(
                        (told.source, told.destination, &told.body)
                            == (ip(family.node)?, ip(family.client)?, &wanted.body),
                        "{told:?} is not {wanted:?}"
                    );
                    count += 1;
                }
                let ran = programs.run("from_outside", &packet.ttl(2))?.packet();
                ensure!(ran.ttl == 1 && ran.destination == ip(family.pod)?, "{ran:?}");
            }
        }
        ensure!(programs.drops()? == [("ttl", count)], "{:?}", programs.drops()?);
        // Few are told.
        let family = &FAMILIES[0];
        let packet = udp().from(&at(family.client, 4000)).to(&at(family.vip, 80)).ttl(1);
        let told = (0..3000)
            .map(|_| Ok(programs.run("from_outside", &packet)?.code == REDIRECT))
            .collect::<Result<Vec<bool>>>()?;
        let told = told.iter().filter(|told| **told).count();
        ensure!(told < 2000, "{told} of 3000");
        Ok(())
    });
}

#[test]
fn a_node_without_an_address_keeps_silent() {
    isolated("packets::forward::a_node_without_an_address_keeps_silent", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        programs.configure(|config| config.node_v6 = pagurus_ebpf_abi::Address::ANY_V6)?;
        let family = &FAMILIES[1];
        let (client, vip) = (at(family.client, 4000), at(family.vip, 80));
        let id = programs.backend(&at(family.pod, 8080), protocol::UDP, true)?;
        programs.service(&vip, protocol::UDP, &Service { outside: &[id], ..Service::default() })?;
        let ran = programs.run("from_outside", &udp().from(&client).to(&vip).ttl(1))?;
        ensure!(ran.code == DROP, "{ran:?}");
        Ok(())
    });
}

/// The largest segment that a SYN speaks of, if it does at all.
fn segment(packet: &Packet) -> Option<u16> {
    match &packet.body {
        Body::Tcp(tcp) => match tcp.options[..] {
            [2, 4, high, low, ..] => Some(u16::from_be_bytes([high, low])),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn segments_fit_into_packets_between_nodes() {
    isolated("packets::forward::segments_fit_into_packets_between_nodes", |_| {
        let Some(mut programs) = bare_node()? else { return Ok(()) };
        programs.configure(|config| config.mtu = 1400)?;
        for (family, headers) in FAMILIES.iter().zip([40, 60]) {
            let (client, vip, server) =
                (at(family.client, 4000), at(family.vip, 80), at(family.remote, 8080));
            let id = programs.backend(&server, protocol::TCP, false)?;
            let service = Service { flags: SERVICE_EXTERNAL, inside: &[id], outside: &[id] };
            programs.service(&vip, protocol::TCP, &service)?;
            let syn = tcp().from(&client).to(&vip).syn();
            for (sent, seen) in [(1460, 1400 - headers), (1400 - headers, 1400 - headers), (536, 536)] {
                let ran = programs.run("from_outside", &syn.clone().mss(sent))?.packet();
                ensure!(segment(&ran) == Some(seen), "{sent}: {ran:?}");
                let state = programs.state(&flow(&client, &vip, protocol::TCP)).context("no entry")?;
                ensure!(state.flags & FLOW_OUTSIDE != 0, "{state:?}");
                // And in the answer.
                let (port, _) = ran.ports().context("no ports")?;
                let answer = tcp().from(&server).to(&at(family.node, port)).syn().ack().mss(sent);
                let ran = programs.run("from_outside", &answer)?.packet();
                ensure!(segment(&ran) == Some(seen), "{sent}: {ran:?}");
            }
            // Without the option, or with another before it, nothing is different.
            for options in [&[][..], &[1, 1, 1, 1], &[4, 2, 1, 1]] {
                let syn = syn.clone().tcp_options(options);
                let Body::Tcp(seen) = programs.run("from_outside", &syn)?.packet().body else {
                    anyhow::bail!("no TCP")
                };
                ensure!(seen.options == options, "{seen:?}");
            }
            // What comes from a pod is made for the way already.
            let syn = tcp().from(&at(family.pod, 4000)).to(&vip).syn().mss(1460);
            let ran = programs.run("from_pod", &syn)?.packet();
            ensure!(segment(&ran) == Some(1460), "{ran:?}");
        }
        Ok(())
    });
}

/// A socket that asks with few hops.
fn tracer(client: &Host, to: SocketAddr, hops: u8) -> Result<UdpSocket> {
    client.run(|| {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        if to.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            setsockopt(&socket, sockopt::Ipv4Ttl, &i32::from(hops))?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            setsockopt(&socket, sockopt::Ipv6Ttl, &i32::from(hops))?;
        }
        socket.set_read_timeout(Some(patience(PATIENCE)))?;
        socket.connect(to)?;
        socket.send(b"how far?")?;
        Ok(socket)
    })
}

/// The router that said that the time of what a socket sent was used up.
fn router(socket: &UdpSocket) -> Result<IpAddr> {
    eventually("an error for the socket", PATIENCE, || {
        let mut space = nix::cmsg_space!(nix::libc::sock_extended_err, nix::libc::sockaddr_in6);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut [], Some(&mut space), flags) {
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            message => message?,
        };
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv4RecvErr(error, Some(from)) => {
                    ensure!((error.ee_type, error.ee_code) == (11, 0), "{error:?}");
                    return Ok(Some(IpAddr::from(u32::from_be(from.sin_addr.s_addr).to_be_bytes())));
                }
                ControlMessageOwned::Ipv6RecvErr(error, Some(from)) => {
                    ensure!((error.ee_type, error.ee_code) == (3, 0), "{error:?}");
                    return Ok(Some(IpAddr::from(from.sin6_addr.s6_addr)));
                }
                _ => {}
            }
        }
        Ok(None)
    })
}

#[test]
fn a_trace_names_every_node() {
    isolated("packets::forward::a_trace_names_every_node", |sandbox| {
        let mut topology = Topology::new(sandbox, 2)?;
        let remote = topology.nodes[1].pod()?;
        let Some(mut here) = programs_at(&topology, &topology.nodes[0], &[])? else { return Ok(()) };
        let Some(mut there) = programs_at(&topology, &topology.nodes[1], &[&remote])? else { return Ok(()) };
        for (mode, flags) in MODES {
            here.configure(|config| config.flags = flags)?;
            there.configure(|config| config.flags = flags)?;
            for dsr in [0, SERVICE_DSR] {
                serve(&mut here, &remote, false, dsr)?;
                serve(&mut there, &remote, true, dsr)?;
                for server in remote.ips.both() {
                    let what = format!("{mode}, {server}, flags {dsr:x}");
                    let to = SocketAddr::new(topology.nodes[0].ips.like(server), 30_080);
                    let _server = udp_server(&remote.host, server, 8080, "server")?;
                    for (hops, node) in [(1, &topology.nodes[0]), (2, &topology.nodes[1])] {
                        let socket = tracer(&topology.client, to, hops).with_context(|| what.clone())?;
                        let router = router(&socket).with_context(|| format!("{what}: {hops} hops"))?;
                        ensure!(router == node.ips.like(server), "{what}: {hops} hops lead to {router}");
                    }
                    let socket = tracer(&topology.client, to, 3)?;
                    let mut buffer = [0; 100];
                    let answered = socket.recv(&mut buffer).map_err(|error| error.kind());
                    ensure!(answered.is_ok(), "{what}: {answered:?}");
                }
            }
        }
        Ok(())
    });
}

/// Makes the UDP sockets that a host makes from now on let routers send their packets on in fragments.
fn divisible(host: &Host) -> Result<()> {
    host.run(|| Ok(std::fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1")?))
}

/// Sends one long datagram, which must arrive; nobody answers.
fn send_once(what: &str, client: &Host, server: &Pod, to: SocketAddr, length: usize) -> Result<()> {
    let listen = SocketAddr::new(server.ips.like(to.ip()), 8080);
    let socket = server.host.run(|| Ok(UdpSocket::bind(listen)?))?;
    socket.set_read_timeout(Some(patience(PATIENCE)))?;
    client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        Ok(socket.send_to(&vec![b'x'; length], to)?)
    })?;
    let mut buffer = vec![0; 65_536];
    let received = socket.recv(&mut buffer).with_context(|| format!("{what}: {length} bytes to {to}"))?;
    ensure!(received == length, "{what}: {received} bytes of {length}");
    Ok(())
}

#[test]
fn what_may_be_divided_arrives() {
    isolated("packets::forward::what_may_be_divided_arrives", |sandbox| {
        let mut topology = Topology::new(sandbox, 2)?;
        let client = topology.nodes[0].pod()?;
        let remote = topology.nodes[1].pod()?;
        divisible(&client.host)?;
        let Some(mut here) = programs_at(&topology, &topology.nodes[0], &[&client])? else { return Ok(()) };
        topology.nodes[0].host.ip(&["link", "set", "eth0", "mtu", "1300"])?;
        serve(&mut here, &remote, false, 0)?;
        for (mode, flags) in MODES {
            here.configure(|config| config.flags = flags)?;
            send_once(mode, &client.host, &remote, format!("{}:80", VIPS[0]).parse()?, 1400)?;
        }
        ensure!(here.drops()?.is_empty(), "{:?}", here.drops()?);
        Ok(())
    });
}

/// Connects nodes through the overlay, and puts programs there; the device's number.
fn wrap(topology: &Topology, node: &Node, programs: &mut Programs) -> Result<()> {
    let known = |node: &Node| -> Result<overlay::Node> {
        let ranges = node.pod_cidrs().iter().map(|range| range.parse()).collect::<Result<_, _>>()?;
        Ok(overlay::Node { name: node.host.name.clone(), ips: node.ips.both().to_vec(), ranges })
    };
    let others = topology.nodes.iter().filter(|other| other.number != node.number);
    for other in others.clone() {
        for cidr in other.pod_cidrs() {
            node.host.ip(&["route", "del", &cidr])?;
        }
    }
    let (own, others) = (known(node)?, others.map(known).collect::<Result<Vec<_>>>()?);
    let options = overlay::Options { mode: Mode::Vxlan, ..overlay::Options::default() };
    let ifindex = node.host.run(|| {
        overlay::reconcile(&mut Socket::open()?, &options, &own, &others)?;
        programs.attach("from_outside", overlay::DEVICE)?;
        programs.attach("to_outside", overlay::DEVICE)?;
        Ok(Socket::open()?.link(overlay::DEVICE)?.context("no overlay")?.index)
    })?;
    programs.configure(|config| {
        config.overlay_ifindex = ifindex;
        config.mtu = 1450;
    })
}

#[test]
fn through_the_overlay() {
    isolated("packets::forward::through_the_overlay", |sandbox| {
        let mut topology = Topology::new(sandbox, 2)?;
        let client = topology.nodes[0].pod()?;
        let remote = topology.nodes[1].pod()?;
        // Made for the way, as the agent makes pods. What a pod learns by being told may be forgotten after half a minute (IPv6, learned of
        // a gateway), and then there are drops.
        client.host.ip(&["link", "set", "dev", "eth0", "mtu", "1450"])?;
        let Some(mut here) = programs_at(&topology, &topology.nodes[0], &[&client])? else { return Ok(()) };
        let Some(mut there) = programs_at(&topology, &topology.nodes[1], &[&remote])? else { return Ok(()) };
        wrap(&topology, &topology.nodes[0], &mut here)?;
        wrap(&topology, &topology.nodes[1], &mut there)?;
        for flags in [0, NODE_DELIVER | NODE_FORWARD] {
            here.configure(|config| config.flags = flags)?;
            there.configure(|config| config.flags = flags)?;
            for dsr in [0, SERVICE_DSR] {
                serve(&mut here, &remote, false, dsr)?;
                serve(&mut there, &remote, true, dsr)?;
                for (index, node) in topology.nodes[0].ips.both().into_iter().enumerate() {
                    let what = format!("{flags:x}, flags {dsr:x}");
                    let seen = if dsr != 0 { Some(CLIENT.both()[index]) } else { None };
                    ask(&what, &topology.client, &remote, SocketAddr::new(node, 30_080), seen)?;
                    let vip: SocketAddr = format!("{}:80", VIPS[index]).parse()?;
                    ask(&what, &client.host, &remote, vip, Some(client.ips.both()[index]))?;
                }
            }
        }
        ensure!(here.drops()?.is_empty() && there.drops()?.is_empty(), "{:?}", here.drops()?);
        ensure!(!here.states().is_empty() && !there.states().is_empty(), "nothing went through the programs");

        // As long as packets to the node may be, too long for the overlay: wrapped, they come in fragments, or the sender is told.
        serve(&mut here, &remote, false, 0)?;
        let to = SocketAddr::new(topology.nodes[0].ips.both()[0], 30_080);
        let told = topology.client.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(patience(Duration::from_secs(1))))?;
            socket.connect(to)?;
            socket.send(&[b'x'; 1472])?;
            Ok(socket.recv(&mut [0; 16]).map_err(|error| error.kind()))
        })?;
        ensure!(told.is_err_and(|kind| kind != ErrorKind::ConnectionRefused), "nobody listens yet");
        ensure!(here.drops()? == [("too_long", 1)], "told: {:?}", here.drops()?);
        divisible(&topology.client)?;
        topology.client.ip(&["route", "flush", "cache"])?;
        send_once("overlay", &topology.client, &remote, to, 1472)?;
        ensure!(here.drops()? == [("too_long", 1)], "in fragments: {:?}", here.drops()?);
        Ok(())
    });
}
