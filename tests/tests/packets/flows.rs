//! Flows that are in each other's way, that outlive what their Service was when they began, and whose entry is somewhere else.

use anyhow::{Context as _, Result, ensure};
use pagurus_ebpf_abi::{
    FLOW_APART, SERVICE_EXTERNAL, SERVICE_HAS_ENDPOINTS, SERVICE_INSIDE_LOCAL, SERVICE_OUTSIDE_LOCAL,
    SERVICE_SOURCE_RANGES,
};
use pagurus_tests::netns::isolated;
use pagurus_tests::packet::{Packet, protocol, tcp};

use super::node::{FAMILIES, at, expect, ip, ready, transports};
use super::programs::{DROP, PASS, Programs, REDIRECT, Service, flow};

/// The ports that flows get whose own is taken.
const OTHERS: std::ops::RangeInclusive<u16> = 61_000..=64_999;

/// The port that a packet comes from.
fn source_port(packet: &Packet) -> Result<u16> {
    packet.ports().map(|(source, _)| source).with_context(|| format!("no ports in {packet:?}"))
}

/// An answer of a server, through the program at its device: what the client sees.
fn answered(programs: &Programs, packet: &Packet, server: &str, client: &str) -> Result<Packet> {
    Ok(programs.run("from_pod", &packet.clone().turned().from(server).to(client))?.packet())
}

#[test]
fn straight_beside_one_through_a_service() {
    isolated("packets::flows::straight_beside_one_through_a_service", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        for family in &FAMILIES {
            let server = at(family.other_pod, 8080);
            for (program, client) in [("from_pod", family.pod), ("from_outside", family.client)] {
                let (client, vip) = (at(client, 4000), at(family.vip, 80));
                for (protocol, first) in transports(&client, &vip) {
                    let what = format!("{program}: {protocol} of {client}");
                    let id = programs.backend(&server, protocol, true)?;
                    let service = Service { inside: &[id], outside: &[id], ..Service::default() };
                    programs.service(&vip, protocol, &service)?;
                    expect(&what, &programs.run(program, &first)?.packet(), &client, &server)?;

                    // The same port straight to the same place: under another.
                    let second = first.clone().to(&server);
                    let seen = programs.run(program, &second)?.packet();
                    let port = source_port(&seen)?;
                    ensure!(OTHERS.contains(&port), "{what}: {seen:?}");
                    let host = client.strip_suffix(":4000").context("no port")?;
                    expect(&what, &seen, &at(host, port), &server)?;
                    ensure!(source_port(&programs.run(program, &second)?.packet())? == port, "{what}: again");

                    // Each has its own answers, and goes on.
                    expect(&what, &answered(&programs, &first, &server, &client)?, &vip, &client)?;
                    expect(
                        &what,
                        &answered(&programs, &second, &server, &at(host, port))?,
                        &server,
                        &client,
                    )?;
                    expect(&what, &programs.run(program, &first)?.packet(), &client, &server)?;

                    // On their way out of the node, or into the pod, what was translated stays as it is: the first flow's packets, and
                    // the answers to the second's.
                    let answer = answered(&programs, &second, &server, &at(host, port))?;
                    for program in ["to_outside", "to_pod"] {
                        for (packet, from, to) in [(&second, &client, &server), (&answer, &server, &client)] {
                            let ran = programs.run(program, packet)?;
                            ensure!(ran.code == PASS, "{what}: {program}: {ran:?}");
                            expect(&what, &ran.packet(), from, to)?;
                        }
                    }
                    let state = programs.state(&flow(&client, &server, protocol)).context("no entry")?;
                    ensure!(state.flags & FLOW_APART != 0 && state.service == 0, "{what}: {state:?}");
                    programs.forget()?;
                }
            }
        }
        ensure!(programs.drops()?.is_empty(), "{:?}", programs.drops()?);
        Ok(())
    });
}

#[test]
fn straight_after_one_that_has_ended() {
    isolated("packets::flows::straight_after_one_that_has_ended", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip, server) =
                (at(family.pod, 4000), at(family.vip, 80), at(family.other_pod, 8080));
            let id = programs.backend(&server, protocol::TCP, true)?;
            programs.service(&vip, protocol::TCP, &Service { inside: &[id], ..Service::default() })?;
            programs.run("from_pod", &tcp().from(&client).to(&vip).syn())?;
            programs.run("from_pod", &tcp().from(&client).to(&vip).fin().ack())?;
            let second = tcp().from(&client).to(&server).syn();
            expect("straight", &programs.run("from_pod", &second)?.packet(), &client, &server)?;
            ensure!(programs.states().is_empty(), "{:?}", programs.states());
            expect("answer", &answered(&programs, &second, &server, &client)?, &server, &client)?;
        }
        Ok(())
    });
}

#[test]
fn of_two_frontends_of_one_backend() {
    isolated("packets::flows::of_two_frontends_of_one_backend", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        for family in &FAMILIES {
            let server = at(family.other_pod, 8080);
            let any = if family.node.starts_with('[') { "[::]" } else { "0.0.0.0" };
            let frontends = [at(family.vip, 80), at(family.vip, 81), at(family.node, 30_080)];
            for (program, client) in [("from_pod", family.pod), ("from_outside", family.client)] {
                let from = at(client, 4000);
                for (protocol, packet) in transports(&from, &frontends[0]) {
                    let id = programs.backend(&server, protocol, true)?;
                    let service = Service { flags: SERVICE_EXTERNAL, inside: &[id], outside: &[id] };
                    for frontend in [&frontends[0], &frontends[1], &at(any, 30_080)] {
                        programs.service(frontend, protocol, &service)?;
                    }
                    let mut ports = Vec::new();
                    for frontend in &frontends {
                        let seen = programs.run(program, &packet.clone().to(frontend))?.packet();
                        ports.push(source_port(&seen)?);
                    }
                    ensure!(ports[0] == 4000 && ports[1] != ports[2], "{program}: {ports:?}");
                    ensure!(ports[1..].iter().all(|port| OTHERS.contains(port)), "{program}: {ports:?}");
                    for (frontend, port) in frontends.iter().zip(ports) {
                        let seen = answered(&programs, &packet, &server, &at(client, port))?;
                        expect(program, &seen, frontend, &from)?;
                    }
                    programs.forget()?;
                }
            }
        }
        Ok(())
    });
}

/// What makes a Service narrower for a client, so that the first of its two backends is no longer for it.
type Narrowing = (&'static str, u32, bool);

#[test]
fn datagrams_follow_what_their_service_becomes() {
    isolated("packets::flows::datagrams_follow_what_their_service_becomes", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        // Left with the other backend, with none here, or out of the ranges.
        let narrowings: [Narrowing; 4] = [
            ("the other backend", 0, true),
            ("no local backend", SERVICE_HAS_ENDPOINTS | SERVICE_INSIDE_LOCAL | SERVICE_OUTSIDE_LOCAL, false),
            ("no backend", 0, false),
            ("out of the ranges", SERVICE_SOURCE_RANGES, true),
        ];
        for family in &FAMILIES {
            for (program, client) in [("from_pod", family.pod), ("from_outside", family.client)] {
                for (protocol, packet) in transports(&at(client, 4000), &at(family.vip, 80)) {
                    for (what, flags, has_other) in narrowings {
                        let what = format!("{program}, {protocol}: {what}");
                        let hosts = [family.pod, family.other_pod];
                        let hosts =
                            if program == "from_pod" { [family.other_pod, family.remote] } else { hosts };
                        let old = programs.backend(&at(hosts[0], 8080), protocol, true)?;
                        let new = programs.backend(&at(hosts[1], 8080), protocol, true)?;
                        let both = Service { inside: &[old], outside: &[old], ..Service::default() };
                        let vip = at(family.vip, 80);
                        let number = programs.service(&vip, protocol, &both)?;
                        let from = at(client, 4000);
                        let first = programs.run(program, &packet)?.packet();
                        expect(&what, &first, &from, &at(hosts[0], 8080))?;

                        // More backends, in whatever order: it stays.
                        let mut all = [(ip(hosts[0])?, old), (ip(hosts[1])?, new)];
                        all.sort_unstable();
                        let all = all.map(|(_, id)| id);
                        let more = Service { inside: &all, outside: &all, ..Service::default() };
                        programs.change_service(&vip, protocol, number, &more)?;
                        for _ in 0..2 {
                            let seen = programs.run(program, &packet)?.packet();
                            expect(&what, &seen, &from, &at(hosts[0], 8080))?;
                        }

                        let left = [new];
                        let left = if has_other { &left[..] } else { &[] };
                        let less = Service { flags, inside: left, outside: left };
                        programs.change_service(&vip, protocol, number, &less)?;
                        let ran = programs.run(program, &packet)?;
                        if protocol != protocol::UDP {
                            // A connection that has begun goes on; of SCTP and TCP this one is a new one for a backend that has gone only.
                            expect(&what, &ran.packet(), &from, &at(hosts[0], 8080))?;
                        } else if flags != 0 {
                            ensure!(ran.code == DROP, "{what}: {ran:?}");
                        } else if has_other {
                            expect(&what, &ran.packet(), &from, &at(hosts[1], 8080))?;
                        } else {
                            ensure!(
                                ran.code == REDIRECT && ran.packet().source == ip(family.vip)?,
                                "{what}: {ran:?}"
                            );
                        }
                        programs.forget()?;
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn datagrams_follow_a_service_that_is_made_anew() {
    isolated("packets::flows::datagrams_follow_a_service_that_is_made_anew", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        let family = &FAMILIES[0];
        let (client, vip) = (at(family.client, 4000), at(family.node, 30_080));
        let packet = transports(&client, &vip)[1].1.clone();
        let id = programs.backend(&at(family.pod, 8080), protocol::UDP, true)?;
        let service = Service { flags: SERVICE_EXTERNAL, inside: &[id], outside: &[id] };
        for _ in 0..2 {
            let number = programs.service("0.0.0.0:30080", protocol::UDP, &service)?;
            for _ in 0..3 {
                let seen = programs.run("from_outside", &packet)?.packet();
                expect("node port", &seen, &client, &at(family.pod, 8080))?;
            }
            ensure!(programs.counts(number)? == (1, 0, 0), "{:?}", programs.counts(number)?);
        }
        Ok(())
    });
}

#[test]
fn the_middle_of_an_unknown_connection_is_reset_where_its_port_is_lost() {
    isolated("packets::flows::the_middle_of_an_unknown_connection_is_reset_where_its_port_is_lost", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip) = (at(family.client, 4000), at(family.vip, 80));
            let middle = tcp().from(&client).to(&vip).ack().numbers(7, 8).payload(b"more");
            // To another node the source is replaced: by which port is not known any more.
            let id = programs.backend(&at(family.remote, 8080), protocol::TCP, false)?;
            programs.service(&vip, protocol::TCP, &Service { outside: &[id], ..Service::default() })?;
            let ran = programs.run("from_outside", &middle)?;
            ensure!(ran.code == REDIRECT, "{ran:?}");
            ensure!(
                ran.packet().body == tcp().from(&vip).to(&client).rst().numbers(8, 0).window(0).body,
                "{ran:?}"
            );
            ensure!(programs.states().is_empty(), "{:?}", programs.states());
            // To a pod of this node it is not: the same backend is chosen as before.
            let id = programs.backend(&at(family.pod, 8080), protocol::TCP, true)?;
            programs.service(&vip, protocol::TCP, &Service { outside: &[id], ..Service::default() })?;
            let ran = programs.run("from_outside", &middle)?;
            expect("local", &ran.packet(), &client, &at(family.pod, 8080))?;
            programs.forget()?;
        }
        ensure!(programs.drops()? == [("unknown_connection", 2)], "{:?}", programs.drops()?);
        Ok(())
    });
}

#[test]
fn of_a_table_that_is_being_copied() {
    isolated("packets::flows::of_a_table_that_is_being_copied", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        for family in &FAMILIES {
            let server = at(family.pod, 8080);
            let vips = [at(family.vip, 80), at(family.vip, 81)];
            let client = at(family.client, 4000);
            for (protocol, packet) in transports(&client, &vips[0]) {
                let id = programs.backend(&server, protocol, true)?;
                for vip in &vips {
                    programs.service(vip, protocol, &Service { outside: &[id], ..Service::default() })?;
                }
                programs.run("from_outside", &packet)?;
                programs.grow()?;
                // It is found where it is, in both directions, and its port is its own still.
                expect("old", &programs.run("from_outside", &packet)?.packet(), &client, &server)?;
                expect("old", &answered(&programs, &packet, &server, &client)?, &vips[0], &client)?;
                ensure!(programs.states().is_empty(), "{:?}", programs.states());
                let seen = programs.run("from_outside", &packet.clone().to(&vips[1]))?.packet();
                ensure!(OTHERS.contains(&source_port(&seen)?), "{protocol}: {seen:?}");
                expect("old", &answered(&programs, &packet, &server, &client)?, &vips[0], &client)?;
                programs.forget()?;
            }
        }
        Ok(())
    });
}
