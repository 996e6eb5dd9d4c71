//! ICMP errors about translated flows: whoever sent the packet in question is told of the packet as it sent it.

use super::node::{FAMILIES, at, bare, bare_node, ip};
use super::programs::{DROP, PASS, Programs, Service};
use anyhow::{Context as _, Result, ensure};
use pagurus_ebpf_abi::{NODE_MASQUERADE, SERVICE_EXTERNAL};
use pagurus_tests::netns::isolated;
use pagurus_tests::packet::{
    Body, Packet, echo_request, port_unreachable, protocol, sctp, tcp, time_exceeded, too_big, udp,
};

/// Packets of each transport, long enough to be too long for something.
fn transports(from: &str, to: &str) -> [(u8, Packet); 4] {
    let payload = [0x5a; 700];
    [
        (protocol::TCP, tcp().from(from).to(to).ack().numbers(7, 8).payload(&payload)),
        (protocol::UDP, udp().from(from).to(to).payload(&payload)),
        (protocol::UDP, udp().from(from).to(to).payload(&payload[..1])),
        (protocol::SCTP, sctp().from(from).to(to).tag(7).payload(&payload)),
    ]
}

/// The errors that somebody on the way may send about a packet: of several kinds, showing all of it, little of it, less.
fn errors(about: &Packet) -> Vec<Packet> {
    let mut made = Vec::new();
    for error in [too_big(1400, about), time_exceeded(about), port_unreachable(about)] {
        made.push(error.clone());
        // Behind the IP header: what ICMP shows at least, a whole header, some more.
        made.extend([8, 20, 64].map(|bytes| error.clone().showing(bytes)));
    }
    made
}

/// Runs a program on errors about `seen`, as `from` sends them to its source; they must come out as errors about `sent` of
/// `says`, addressed to the source of `sent`. (Reading packets verifies every checksum in them.)
fn check(
    programs: &Programs,
    program: &str,
    seen: &Packet,
    from: &str,
    sent: &Packet,
    says: &str,
) -> Result<()> {
    let wanted = errors(&Packet { ttl: seen.ttl, ..sent.clone() });
    for (error, wanted) in errors(seen).into_iter().zip(wanted) {
        let mut error = error.from(from);
        error.destination = seen.source;
        let ran = programs.run(program, &error)?;
        ensure!(ran.code != DROP, "dropped: {error:?}");
        let told = ran.packet();
        let mut wanted = wanted.from(says);
        wanted.destination = sent.source;
        ensure!(
            (told.source, told.destination, &told.body) == (wanted.source, wanted.destination, &wanted.body),
            "{error:?}\nbecame {told:?}\nand not {wanted:?}"
        );
    }
    Ok(())
}

#[test]
fn about_a_pods_connection() {
    isolated("packets::icmp::about_a_pods_connection", |_| {
        let Some(mut programs) = bare_node()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip, server) = (at(family.pod, 4000), at(family.vip, 80), at(family.remote, 8080));
            for (protocol, packet) in transports(&client, &vip) {
                let id = programs.backend(&server, protocol, false)?;
                programs.service(&vip, protocol, &Service { inside: &[id], ..Service::default() })?;
                let seen = programs.run("from_pod", &packet)?.packet();
                ensure!(seen.destination == ip(family.remote)?, "{seen:?}");
                // Of a router on the way, and of the server, which to the client is the Service.
                check(&programs, "from_outside", &seen, bare(family.router), &packet, bare(family.router))?;
                check(&programs, "from_outside", &seen, bare(family.remote), &packet, bare(family.vip))?;
                // The node itself says it when it cannot send the packet on.
                check(&programs, "to_pod", &seen, bare(family.node), &packet, bare(family.node))?;
                // The other way: the server's answer is too long for the way to the client.
                let answer = packet.clone().turned().from(&server).to(&client);
                let seen = programs.run("from_outside", &answer)?.packet();
                check(&programs, "from_pod", &seen, bare(family.pod), &answer, bare(family.pod))?;
            }
        }
        Ok(())
    });
}

#[test]
fn about_a_connection_from_outside_to_another_nodes_pod() {
    isolated("packets::icmp::about_a_connection_from_outside_to_another_nodes_pod", |_| {
        let Some(mut programs) = bare_node()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip, server) =
                (at(family.client, 4000), at(family.vip, 80), at(family.remote, 8080));
            for (protocol, packet) in transports(&client, &vip) {
                let id = programs.backend(&server, protocol, false)?;
                let service = Service { flags: SERVICE_EXTERNAL, inside: &[id], outside: &[id] };
                programs.service(&vip, protocol, &service)?;
                if protocol == protocol::TCP {
                    programs.run("from_outside", &tcp().from(&client).to(&vip).syn())?;
                }
                let seen = programs.run("from_outside", &packet)?.packet();
                let (port, _) = seen.ports().context("no ports")?;
                // Between this node and the server.
                check(&programs, "from_outside", &seen, bare(family.router), &packet, bare(family.router))?;
                check(&programs, "from_outside", &seen, bare(family.remote), &packet, bare(family.vip))?;
                // Between this node and the client.
                let answer = packet.clone().turned().from(&server).to(&at(family.node, port));
                let seen = programs.run("from_outside", &answer)?.packet();
                ensure!(seen.source == packet.destination, "{seen:?}");
                check(&programs, "from_outside", &seen, bare(family.router), &answer, bare(family.router))?;
                check(&programs, "from_outside", &seen, bare(family.client), &answer, bare(family.node))?;
            }
        }
        Ok(())
    });
}

#[test]
fn about_an_echo_with_the_nodes_address() {
    isolated("packets::icmp::about_an_echo_with_the_nodes_address", |_| {
        let Some(mut programs) = bare_node()? else { return Ok(()) };
        programs.networks(&[("10.0.0.0", 8), ("fd00::", 8)])?;
        programs.configure(|config| config.flags = NODE_MASQUERADE)?;
        for family in &FAMILIES {
            let pod = bare(family.pod);
            programs.endpoint(
                pod.parse()?,
                pagurus_ebpf_abi::Endpoint {
                    ifindex: 70,
                    flags: 0,
                    mac: [2; 6],
                    host_mac: [2; 6],
                    reserved: 0,
                },
            )?;
            let ping = echo_request(77, 1).from(pod).to(bare(family.client)).payload(b"abcdefgh");
            let seen = programs.run("to_outside", &ping)?.packet();
            ensure!(seen.source == ip(family.node)?, "{seen:?}");
            check(&programs, "from_outside", &seen, bare(family.router), &ping, bare(family.router))?;
        }
        Ok(())
    });
}

#[test]
fn about_anything_else_they_stay_as_they_are() {
    isolated("packets::icmp::about_anything_else_they_stay_as_they_are", |_| {
        let Some(programs) = bare_node()? else { return Ok(()) };
        for family in &FAMILIES {
            let about = udp().from(&at(family.pod, 1)).to(&at(family.remote, 2)).payload(b"x");
            for error in errors(&about) {
                let error =
                    error.from(bare(family.router)).to(bare(family.pod)).macs([2, 0, 0, 0, 0, 1], [0; 6]);
                let bytes = error.build();
                for program in ["from_outside", "from_pod", "to_pod", "to_outside"] {
                    let ran = programs.run_bytes(program, &bytes)?;
                    ensure!(ran.code == PASS && ran.bytes == bytes, "{program}: {error:?}: {ran:?}");
                }
                // Cut off anywhere: never more than left alone or dropped.
                for length in 54..bytes.len() {
                    let ran = programs.run_bytes("from_outside", &bytes[..length])?;
                    ensure!(ran.code == DROP || ran.bytes == bytes[..length], "{length} bytes of {error:?}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn bodies_are_errors() {
    // What the checks above compare is what they mean to compare.
    let error = too_big(1400, &udp().from("10.0.0.1:1").to("10.0.0.2:2"));
    assert!(matches!(error.body, Body::IcmpError(_)));
}
