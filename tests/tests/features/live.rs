//! Changes while connections live: endpoints that go and that are about to go.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::eventually::eventually;
use pagurus_tests::topology::{Host, tcp_ask_on, tcp_connect, tcp_connect_from, udp_ask, udp_socket};

use super::{CLUSTER_IPS, Ground, PORTS, web};

/// The places from which connections are made, and how they reach the Service.
fn places(ground: &Ground) -> Result<Vec<(Host, SocketAddr, SocketAddr)>> {
    let mut places = Vec::new();
    for ip in CLUSTER_IPS {
        let ip: IpAddr = ip.parse()?;
        let (tcp, udp) = (SocketAddr::new(ip, PORTS[0].2), SocketAddr::new(ip, PORTS[1].2));
        places.push((ground.client.host.clone(), tcp, udp));
        places.push((ground.client.host.unhooked(), tcp, udp));
        let node = ground.node(0).ips.like(ip);
        let (tcp, udp) = (SocketAddr::new(node, PORTS[0].3), SocketAddr::new(node, PORTS[1].3));
        places.push((ground.cluster.topology.client.clone(), tcp, udp));
    }
    Ok(places)
}

pub(super) fn datagrams_go_elsewhere_when_their_endpoint_goes(ground: &mut Ground) -> Result<()> {
    for (host, _, to) in places(ground)? {
        // A socket that was connected by the socket programs is ended by the agent, which there is none of here.
        let by_socket = host.name == ground.client.host.name && host.is_hooked();
        for connected in [false, true].into_iter().take(if by_socket { 1 } else { 2 }) {
            let what = || format!("from {host:?} to {to}, connected: {connected}");
            ground.serve(&web(), &[1])?;
            let socket = udp_socket(&host, to)?;
            if connected {
                host.run(|| Ok(socket.connect(to)?)).with_context(what)?;
            }
            for server in [1, 2, 0, 1] {
                ground.serve(&web(), &[server])?;
                let limit = Duration::from_secs(3);
                eventually("the new endpoint answers", limit, || {
                    // A connected socket of the old endpoint may be ended: then a client connects again.
                    let answer = udp_ask(&socket, to, b"?").or_else(|_| {
                        if connected {
                            host.run(|| Ok(socket.connect(to)?))?;
                        }
                        udp_ask(&socket, to, b"?")
                    });
                    Ok((answer?.server == ground.server(server)).then_some(()))
                })
                .with_context(what)?;
            }
        }
    }
    Ok(())
}

pub(super) fn connections_to_draining_endpoints_live(ground: &mut Ground) -> Result<()> {
    for (host, to, _) in places(ground)? {
        let what = || format!("from {host:?} to {to}");
        ground.serve(&web(), &[1])?;
        let mut stream = host.run(|| tcp_connect(to)).with_context(what)?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).with_context(what)?;
        let rest = read_line(&mut stream).with_context(what)?;
        ensure!(rest.ends_with('\n'), "{rest:?}");
        let targets = ground.targets();
        let draining = [targets[1].clone().draining(), targets[2].clone()];
        ground.cluster.serve(&web(), &draining)?;
        for _ in 0..3 {
            tcp_ask_on(&mut stream).with_context(what)?;
        }
        // New ones go to the other.
        for _ in 0..5 {
            let answer = super::ask(&host, PORTS[0].1, to).with_context(what)?;
            ensure!(answer.server == ground.server(2), "{}: {answer:?}", what());
        }
        stream.write_all(b"bye\n")?;
    }
    Ok(())
}

/// A client's port is used for a connection through the Service, translated by the packet programs, and then for one straight to the
/// same endpoint, or through another frontend: answers of the second must not be taken for those of the first, whether it has ended or
/// not.
pub(super) fn ports_are_used_again(ground: &mut Ground) -> Result<()> {
    ground.serve(&web(), &[1])?;
    let host = ground.client.host.unhooked();
    let mut port = 21_000;
    for ip in CLUSTER_IPS {
        let ip: IpAddr = ip.parse()?;
        let through = SocketAddr::new(ip, PORTS[0].2);
        let straight = SocketAddr::new(ground.pods[1].ips.like(ip), PORTS[0].4);
        let other = SocketAddr::new(ground.node(0).ips.like(ip), PORTS[0].3);
        for (second, lives) in [(straight, false), (straight, true), (other, false), (other, true)] {
            port += 1;
            let what = || format!("port {port}, {through} then {second}, the first lives: {lives}");
            let mut first = host.run(|| tcp_connect_from(port, through)).with_context(what)?;
            read_line(&mut first).with_context(what)?;
            let kept = lives.then_some(first);
            let mut second = host.run(|| tcp_connect_from(port, second)).with_context(what)?;
            read_line(&mut second).with_context(what)?;
            tcp_ask_on(&mut second).with_context(what)?;
            if let Some(mut first) = kept {
                tcp_ask_on(&mut first).with_context(what)?;
                tcp_ask_on(&mut second).with_context(what)?;
            }
        }
        // Datagrams, of one socket that asks both by turns.
        let through = SocketAddr::new(ip, PORTS[1].2);
        let straight = SocketAddr::new(ground.pods[1].ips.like(ip), PORTS[1].4);
        let socket = udp_socket(&host, through)?;
        for to in [through, straight, through, straight] {
            let answer = host.run(|| udp_ask(&socket, to, b"?")).with_context(|| format!("{to} by turns"))?;
            ensure!(answer.server == ground.server(1), "{to}: {answer:?}");
        }
    }
    Ok(())
}

fn read_line(stream: &mut std::net::TcpStream) -> Result<String> {
    let (mut line, mut byte) = (String::new(), [0]);
    while !line.ends_with('\n') {
        stream.read_exact(&mut byte)?;
        line.push(byte[0].into());
    }
    Ok(line)
}
