//! What a client is told when there is no endpoint.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::programs::{DROP, Programs, REDIRECT, Ran, Service};
use super::sockets::{programs_at, serve};
use anyhow::{Result, ensure};
use pagurus_tests::netns::isolated;
use pagurus_tests::pace::patience;
use pagurus_tests::packet::{Body, Packet, flag, protocol, sctp, tcp, udp};
use pagurus_tests::topology::{Topology, tcp_connect, tcp_server, udp_socket};

const VIPS: [&str; 2] = ["10.96.0.10:80", "[fd96::10]:80"];
const CLIENTS: [&str; 2] = ["10.244.1.10:4000", "[fd10::1:10]:4000"];
/// Most bytes of a packet behind its IP header that an ICMP error quotes.
const QUOTED: [usize; 2] = [576 - 28 - 20, 1280 - 48 - 40];

fn ready() -> Result<Option<Programs>> {
    let Some(mut programs) = Programs::load()? else { return Ok(None) };
    for vip in VIPS {
        for protocol in [protocol::TCP, protocol::UDP, protocol::SCTP] {
            programs.service(vip, protocol, &Service::default())?;
        }
    }
    Ok(Some(programs))
}

/// The answer to a packet: it goes back, with the hardware addresses exchanged.
fn answer(what: &str, programs: &Programs, packet: &Packet) -> Result<Packet> {
    let Ran { code, bytes } = programs.run("from_pod", packet)?;
    ensure!(code == REDIRECT, "{what}: {code}, {bytes:02x?}");
    let sent = packet.clone().macs([2, 0, 0, 0, 0, 1], [0; 6]).turned();
    let answer = Packet::parse(&bytes)?;
    ensure!(
        (answer.ethernet, answer.source, answer.destination)
            == (sent.ethernet, sent.source, sent.destination),
        "{what}: {answer:?}"
    );
    ensure!(answer.ttl == 64, "{what}: {answer:?}");
    Ok(answer)
}

#[test]
fn connections_are_reset() {
    isolated("packets::reject::connections_are_reset", |_| {
        let Some(programs) = ready()? else { return Ok(()) };
        // What comes, and the reset's numbers and flags.
        let cases: [(&str, Packet, (u32, u32), u8); 6] = [
            ("SYN", tcp().syn().numbers(1000, 0), (0, 1001), flag::RST | flag::ACK),
            ("SYN with options", tcp().syn().mss(1460).numbers(u32::MAX, 0), (0, 0), flag::RST | flag::ACK),
            ("data", tcp().ack().numbers(1000, 77).payload(&[7; 900]), (77, 0), flag::RST),
            ("FIN", tcp().fin().numbers(5, 0).payload(&[7; 3]), (0, 9), flag::RST | flag::ACK),
            ("FIN ACK", tcp().fin().ack().numbers(5, 6), (6, 0), flag::RST),
            ("SYN with data", tcp().syn().numbers(1, 0).payload(&[1; 10]), (0, 12), flag::RST | flag::ACK),
        ];
        for (client, vip) in CLIENTS.into_iter().zip(VIPS) {
            for (what, packet, numbers, flags) in &cases {
                let what = format!("{what} to {vip}");
                let packet = packet.clone().from(client).to(vip);
                let answer = answer(&what, &programs, &packet)?;
                ensure!(answer.ports() == packet.turned().ports(), "{what}: {answer:?}");
                let Body::Tcp(tcp) = &answer.body else { anyhow::bail!("{what}: {answer:?}") };
                ensure!((tcp.sequence, tcp.acknowledgement) == *numbers, "{what}: {tcp:?}");
                ensure!(tcp.flags == *flags && tcp.payload.is_empty() && tcp.window == 0, "{what}: {tcp:?}");
            }
            // A reset is not answered.
            let ran = programs.run("from_pod", &tcp().rst().from(client).to(vip))?;
            ensure!(ran.code != REDIRECT, "{ran:?}");
        }
        Ok(())
    });
}

#[test]
fn datagrams_are_unreachable() {
    isolated("packets::reject::datagrams_are_unreachable", |_| {
        let Some(programs) = ready()? else { return Ok(()) };
        for (family, (client, vip)) in CLIENTS.into_iter().zip(VIPS).enumerate() {
            for length in [0, 1, 2, 3, 4, 100, 499, 500, 501, 1100, 1183, 1184, 1185, 1400] {
                let what = format!("{length} bytes to {vip}");
                let packet = udp().from(client).to(vip).payload(&vec![0xa5; length]);
                let answer = answer(&what, &programs, &packet)?;
                let Body::IcmpError(error) = &answer.body else { anyhow::bail!("{what}: {answer:?}") };
                let kind = if family == 0 { (3, 3) } else { (1, 4) };
                ensure!((error.kind, error.code) == kind && error.rest == [0; 4], "{what}: {error:?}");
                // Byte for byte what was sent, as far as it is there.
                let sent = packet.without_ethernet().build();
                let quoted = if family == 0 { 28 } else { 48 };
                let bytes = answer.without_ethernet().build();
                let header = if family == 0 { 20 } else { 40 };
                let most = (header + QUOTED[family]).min(sent.len());
                ensure!(bytes[quoted..] == sent[..most], "{what}: {} bytes", bytes.len());
            }
        }
        Ok(())
    });
}

#[test]
fn icmp_errors_are_few() {
    isolated("packets::reject::icmp_errors_are_few", |_| {
        let Some(programs) = ready()? else { return Ok(()) };
        let packet = udp().from(CLIENTS[0]).to(VIPS[0]);
        let answered = (0..3000)
            .map(|_| Ok(programs.run("from_pod", &packet)?.code == REDIRECT))
            .collect::<Result<Vec<bool>>>()?;
        let count = answered.iter().filter(|is| **is).count();
        // At least a burst, and about one in a millisecond after it.
        ensure!((64..2000).contains(&count), "{count} of 3000 packets were answered");
        Ok(())
    });
}

#[test]
fn nobody_is_told_who_cannot_be() {
    isolated("packets::reject::nobody_is_told_who_cannot_be", |_| {
        let Some(programs) = ready()? else { return Ok(()) };
        for (from, to) in [
            ("0.0.0.0:5", VIPS[0]),
            ("127.0.0.1:5", VIPS[0]),
            ("224.0.0.1:5", VIPS[0]),
            ("[ff02::1]:5", VIPS[1]),
            ("[::]:5", VIPS[1]),
        ] {
            let ran = programs.run("from_pod", &udp().from(from).to(to))?;
            ensure!(ran.code == DROP, "{from}: {ran:?}");
        }
        Ok(())
    });
}

#[test]
fn associations_are_aborted() {
    isolated("packets::reject::associations_are_aborted", |_| {
        let Some(programs) = ready()? else { return Ok(()) };
        let init = [&[1, 0, 0, 20][..], &0xdead_beefu32.to_be_bytes(), &[0; 12]].concat();
        let (data, shutdown_ack) =
            ([0, 3, 0, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, b'x', 0, 0, 0], [8, 0, 0, 4]);
        for (client, vip) in CLIENTS.into_iter().zip(VIPS) {
            for (what, tag, chunks, wanted_tag, wanted) in [
                ("INIT", 0, &init[..], 0xdead_beef, [6, 0, 0, 4]),
                ("DATA", 99, &data[..], 99, [6, 1, 0, 4]),
                ("SHUTDOWN ACK", 98, &shutdown_ack[..], 98, [14, 1, 0, 4]),
            ] {
                let packet = sctp().from(client).to(vip).tag(tag).payload(chunks);
                let answer = answer(what, &programs, &packet)?;
                ensure!(answer.ports() == packet.turned().ports(), "{what}: {answer:?}");
                let Body::Sctp(sctp) = &answer.body else { anyhow::bail!("{what}: {answer:?}") };
                ensure!(sctp.tag == wanted_tag && sctp.chunks == wanted && sctp.checksum, "{what}: {sctp:?}");
            }
            for chunk in [[6, 0, 0, 4], [14, 0, 0, 4], [10, 0, 0, 4], [9, 0, 0, 4]] {
                let ran = programs.run("from_pod", &sctp().from(client).to(vip).tag(7).payload(&chunk))?;
                ensure!(ran.code == DROP, "{chunk:?}: {ran:?}");
            }
        }
        Ok(())
    });
}

/// How long anybody may wait for a refusal, on an ordinary machine.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Real sockets: their packets have no checksum yet, and one of them may be many.
#[test]
fn sockets_are_told_at_once() {
    isolated("packets::reject::sockets_are_told_at_once", |sandbox| {
        let mut topology = Topology::new(sandbox, 1)?;
        let client = topology.nodes[0].pod()?;
        let server = topology.nodes[0].pod()?;
        let Some(mut programs) = programs_at(&topology, &topology.nodes[0], &[&client, &server])? else {
            return Ok(());
        };
        for vip in VIPS {
            for protocol in [protocol::TCP, protocol::UDP] {
                programs.service(vip, protocol, &Service::default())?;
            }
            let to: SocketAddr = vip.parse()?;
            let begun = Instant::now();
            let refused =
                client.host.run(|| Ok(std::net::TcpStream::connect(to).map_err(|error| error.kind())))?;
            ensure!(
                refused.as_ref().err() == Some(&ErrorKind::ConnectionRefused),
                "TCP to {vip}: {refused:?}"
            );
            let socket = udp_socket(&client.host, to)?;
            for length in [0, 1, 100, 1400] {
                socket.connect(to)?;
                socket.send(&vec![7; length])?;
                let refused = socket.recv(&mut [0; 16]).map_err(|error| error.kind());
                let wanted = Err(ErrorKind::ConnectionRefused);
                ensure!(refused == wanted, "{length} bytes by UDP to {vip}: {refused:?}");
            }
            ensure!(begun.elapsed() < patience(AT_ONCE), "{vip}: {:?}", begun.elapsed());
        }
        Ok(())
    });
}

#[test]
fn a_connection_whose_backend_went_is_reset_while_it_sends() {
    isolated("packets::reject::a_connection_whose_backend_went_is_reset_while_it_sends", |sandbox| {
        let mut topology = Topology::new(sandbox, 1)?;
        let client = topology.nodes[0].pod()?;
        let server = topology.nodes[0].pod()?;
        let Some(mut programs) = programs_at(&topology, &topology.nodes[0], &[&client, &server])? else {
            return Ok(());
        };
        serve(&mut programs, &server, true, 0)?;
        for (vip, ip) in VIPS.into_iter().zip(server.ips.both()) {
            let to: SocketAddr = vip.parse()?;
            let _server = tcp_server(&server.host, ip, 8080, "server")?;
            let mut stream = client.host.run(|| tcp_connect(to))?;
            stream.set_write_timeout(Some(patience(Duration::from_secs(5))))?;
            for id in 1..=4 {
                let mut backend = programs.get_backend(id)?;
                backend.protocol = 0;
                programs.set_backend(id, backend)?;
            }
            // Whole buffers: what the kernel sends is many packets in one.
            let block = vec![7; 60_000];
            let ended = (0..200).find_map(|_| stream.write_all(&block).err()).map(|error| error.kind());
            ensure!(
                matches!(ended, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)),
                "{vip}: {ended:?}"
            );
            for id in 1..=4 {
                let mut backend = programs.get_backend(id)?;
                backend.protocol = if id % 2 == 1 { protocol::TCP } else { protocol::UDP };
                programs.set_backend(id, backend)?;
            }
        }
        Ok(())
    });
}
