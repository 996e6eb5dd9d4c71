//! What becomes of single packets.

use super::node::{FAMILIES, at, bare, expect, ip, ready, transports};
use super::programs::{DROP, PASS, REDIRECT, Service, flow};
use anyhow::ensure;
use pagurus_ebpf_abi::{
    BACKEND_DRAINING, BACKEND_LOCAL, Backend, FLOW_OUTSIDE, FLOW_REPLY, FLOW_SNAT, NODE_MASQUERADE,
    SERVICE_EXTERNAL, SERVICE_HAS_ENDPOINTS, SERVICE_OUTSIDE_LOCAL, SERVICE_SOURCE_RANGES,
};
use pagurus_tests::netns::isolated;
use pagurus_tests::packet::{Body, echo_reply, echo_request, protocol, tcp};

#[test]
fn a_pod_reaches_a_local_backend_and_its_answer_comes_back() {
    isolated("packets::translation::a_pod_reaches_a_local_backend_and_its_answer_comes_back", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip) = (at(family.pod, 4000), at(family.vip, 80));
            let server = at(family.other_pod, 8080);
            for (protocol, packet) in transports(&client, &vip) {
                let id = programs.backend(&server, protocol, true)?;
                let number =
                    programs.service(&vip, protocol, &Service { inside: &[id], ..Service::default() })?;
                let what = format!("{protocol} {vip}");
                for round in 0..3 {
                    let ran = programs.run("from_pod", &packet)?;
                    ensure!(ran.code == REDIRECT, "{what}: {ran:?}");
                    expect(&what, &ran.packet(), &client, &server)?;
                    ensure!(ran.packet().ttl == packet.ttl - 1, "{what}: {:?}", ran.packet());
                    ensure!(ran.bytes[..12] == [2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 2, 1], "{what}: {ran:?}");
                    let answer =
                        programs.run("from_pod", &packet.clone().turned().from(&server).to(&client))?;
                    ensure!(answer.code == REDIRECT, "{what}: {answer:?}");
                    expect(&what, &answer.packet(), &vip, &client)?;
                    ensure!(
                        programs.counts(number)? == (1, 0, 0),
                        "{what}, {round}: {:?}",
                        programs.counts(number)?
                    );
                    ensure!(programs.connections(id)? == 1, "{what}");
                }
                let forward = programs.state(&flow(&client, &vip, protocol));
                ensure!(
                    forward.is_some_and(|state| state.backend == id && state.service == number),
                    "{forward:?}"
                );
                let reply = programs.state(&flow(&server, &client, protocol));
                ensure!(reply.is_some_and(|state| state.flags & FLOW_REPLY != 0), "{reply:?}");
            }
        }
        ensure!(programs.drops()?.is_empty(), "{:?}", programs.drops()?);
        Ok(())
    });
}

#[test]
fn a_pod_that_is_its_own_backend_sees_the_node() {
    isolated("packets::translation::a_pod_that_is_its_own_backend_sees_the_node", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip, server) = (at(family.pod, 4000), at(family.vip, 80), at(family.pod, 8080));
            for (protocol, packet) in transports(&client, &vip) {
                let id = programs.backend(&server, protocol, true)?;
                programs.service(&vip, protocol, &Service { inside: &[id], ..Service::default() })?;
                let ran = programs.run("from_pod", &packet)?;
                ensure!(ran.code == REDIRECT, "{ran:?}");
                let seen = ran.packet();
                let Some((port, 8080)) = seen.ports() else { anyhow::bail!("{seen:?}") };
                ensure!((61_000..=64_999).contains(&port) && seen.source == ip(family.node)?, "{seen:?}");
                let answer =
                    programs.run("from_pod", &packet.turned().from(&server).to(&at(family.node, port)))?;
                expect("answer", &answer.packet(), &vip, &client)?;
                ensure!(answer.code == REDIRECT, "{answer:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn from_outside_a_local_backend_sees_the_client() {
    isolated("packets::translation::from_outside_a_local_backend_sees_the_client", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        for family in &FAMILIES {
            let any = if family.node.starts_with('[') { "[::]" } else { "0.0.0.0" };
            let (client, server) = (at(family.client, 4000), at(family.pod, 8080));
            for (protocol, packet) in transports(&client, &at(family.node, 30_080)) {
                let id = programs.backend(&server, protocol, true)?;
                let service = Service { flags: SERVICE_EXTERNAL, inside: &[id], outside: &[id] };
                programs.service(&at(any, 30_080), protocol, &service)?;
                let ran = programs.run("from_outside", &packet)?;
                ensure!(ran.code == REDIRECT, "{ran:?}");
                expect("in", &ran.packet(), &client, &server)?;
                // The kernel here knows no way back to the client: the answer is translated and left to it.
                let answer = programs.run("from_pod", &packet.clone().turned().from(&server).to(&client))?;
                ensure!(answer.code == PASS, "{answer:?}");
                expect("out", &answer.packet(), &at(family.node, 30_080), &client)?;
            }
        }
        Ok(())
    });
}

#[test]
fn from_outside_a_remote_backend_sees_the_node() {
    isolated("packets::translation::from_outside_a_remote_backend_sees_the_node", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, server, vip) =
                (at(family.client, 4000), at(family.remote, 8080), at(family.vip, 443));
            for (protocol, packet) in transports(&client, &vip) {
                let id = programs.backend(&server, protocol, false)?;
                let service = Service { flags: SERVICE_EXTERNAL, inside: &[id], outside: &[id] };
                programs.service(&vip, protocol, &service)?;
                let ran = programs.run("from_outside", &packet)?;
                let seen = ran.packet();
                let Some((port, 8080)) = seen.ports() else { anyhow::bail!("{seen:?}") };
                ensure!((61_000..=64_999).contains(&port) && seen.source == ip(family.node)?, "{seen:?}");
                let state = programs.state(&flow(&client, &vip, protocol));
                ensure!(state.is_some_and(
                    |state| state.flags & (FLOW_SNAT | FLOW_OUTSIDE) == FLOW_SNAT | FLOW_OUTSIDE
                ));
                let back = packet.clone().turned().from(&server).to(&at(family.node, port));
                let answer = programs.run("from_outside", &back)?;
                expect("answer", &answer.packet(), &vip, &client)?;
            }
        }
        Ok(())
    });
}

#[test]
fn nobody_there_is_said_at_once() {
    isolated("packets::translation::nobody_there_is_said_at_once", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip) = (at(family.pod, 4000), at(family.vip, 80));
            for (protocol, packet) in transports(&client, &vip) {
                let number = programs.service(&vip, protocol, &Service::default())?;
                let ran = programs.run("from_pod", &packet)?;
                ensure!(ran.code == REDIRECT, "{protocol}: {ran:?}");
                let answer = ran.packet();
                ensure!(
                    answer.source == ip(family.vip)? && answer.destination == ip(family.pod)?,
                    "{answer:?}"
                );
                ensure!(programs.counts(number)? == (0, 1, 0), "{:?}", programs.counts(number)?);
            }
        }
        ensure!(programs.drops()? == [("no_endpoint", 6)], "{:?}", programs.drops()?);
        ensure!(programs.states().is_empty());
        Ok(())
    });
}

#[test]
fn policies_and_source_ranges_drop() {
    isolated("packets::translation::policies_and_source_ranges_drop", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        for family in &FAMILIES {
            let vip = at(family.vip, 80);
            let id = programs.backend(&at(family.pod, 8080), protocol::TCP, true)?;
            let flags = SERVICE_OUTSIDE_LOCAL | SERVICE_HAS_ENDPOINTS | SERVICE_EXTERNAL;
            programs.service(&vip, protocol::TCP, &Service { flags, inside: &[id], outside: &[] })?;
            let packet = tcp().from(&at(family.client, 4000)).to(&vip).syn();
            ensure!(programs.run("from_outside", &packet)?.code == DROP);
            // From here the policy is another.
            let packet = tcp().from(&at(family.other_pod, 4000)).to(&vip).syn();
            ensure!(programs.run("from_pod", &packet)?.code == REDIRECT);

            let vip = at(family.vip, 81);
            let flags = SERVICE_SOURCE_RANGES | SERVICE_EXTERNAL;
            let number =
                programs.service(&vip, protocol::TCP, &Service { flags, inside: &[id], outside: &[id] })?;
            let packet = tcp().from(&at(family.client, 4000)).to(&vip).syn();
            ensure!(programs.run("from_outside", &packet)?.code == DROP);
            ensure!(programs.counts(number)? == (0, 0, 1));
            let bits = if family.vip.starts_with('[') { 64 } else { 24 };
            programs.source_range(number, family.client.trim_matches(['[', ']']), bits)?;
            ensure!(programs.run("from_outside", &packet)?.code == REDIRECT);
        }
        ensure!(
            programs.drops()? == [("no_local_endpoint", 2), ("source_range", 2)],
            "{:?}",
            programs.drops()?
        );
        Ok(())
    });
}

#[test]
fn a_backend_that_leaves() {
    isolated("packets::translation::a_backend_that_leaves", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        let family = &FAMILIES[0];
        let (client, vip) = (at(family.client, 4000), at(family.vip, 80));
        for (protocol, first) in transports(&client, &vip).into_iter().take(2) {
            let old = programs.backend(&at(family.pod, 8080), protocol, true)?;
            let new = programs.backend(&at(family.other_pod, 8080), protocol, true)?;
            programs.service(
                &vip,
                protocol,
                &Service { inside: &[old], outside: &[old], ..Service::default() },
            )?;
            ensure!(programs.run("from_outside", &first)?.code == REDIRECT);
            programs.service(
                &vip,
                protocol,
                &Service { inside: &[new], outside: &[new], ..Service::default() },
            )?;
            let later =
                if protocol == protocol::TCP { tcp().from(&client).to(&vip).ack() } else { first.clone() };

            // Draining: connections go on, datagrams go elsewhere.
            let backend = programs.get_backend(old)?;
            programs.set_backend(old, Backend { flags: BACKEND_LOCAL | BACKEND_DRAINING, ..backend })?;
            let ran = programs.run("from_outside", &later)?.packet();
            let host = if protocol == protocol::TCP { family.pod } else { family.other_pod };
            expect("draining", &ran, &client, &at(host, 8080))?;

            // Gone: connections end, datagrams go elsewhere, and so does a new connection with the same ports.
            programs.set_backend(old, Backend { port: pagurus_ebpf_abi::Port::new(1), ..backend })?;
            let ran = programs.run("from_outside", &later)?.packet();
            if protocol == protocol::TCP {
                expect("gone", &ran, &vip, &client)?;
                let ran = programs.run("from_outside", &first)?.packet();
                expect("anew", &ran, &client, &at(family.other_pod, 8080))?;
            } else {
                expect("gone", &ran, &client, &at(family.other_pod, 8080))?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_pod_leaves_the_cluster_with_the_nodes_address() {
    isolated("packets::translation::a_pod_leaves_the_cluster_with_the_nodes_address", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        programs.configure(|config| config.flags |= NODE_MASQUERADE)?;
        programs.networks(&[("10.244.0.0", 16), ("fd10::", 32)])?;
        for family in &FAMILIES {
            let (pod, world) = (at(family.pod, 4000), at(family.client, 80));
            for (protocol, packet) in transports(&pod, &world) {
                let seen = programs.run("to_outside", &packet)?;
                ensure!(seen.code == PASS, "{seen:?}");
                let Some((port, 80)) = seen.packet().ports() else { anyhow::bail!("{seen:?}") };
                expect("out", &seen.packet(), &at(family.node, port), &world)?;
                let back =
                    programs.run("from_outside", &packet.clone().turned().to(&at(family.node, port)))?;
                ensure!(back.code == REDIRECT, "{protocol}: {back:?}");
                expect("back", &back.packet(), &world, &pod)?;
                let inside = packet.to(&at(family.remote, 80));
                let ran = programs.run("to_outside", &inside)?;
                ensure!(ran.code == PASS);
                expect("inside", &ran.packet(), &pod, &at(family.remote, 80))?;
            }
            // An echo request has an identifier where others have ports.
            let request = echo_request(4000, 1).from(bare(family.pod)).to(bare(family.client));
            let Body::Icmp(seen) = programs.run("to_outside", &request)?.packet().body else {
                anyhow::bail!("no echo")
            };
            let id = u16::from_be_bytes([seen.rest[0], seen.rest[1]]);
            ensure!((61_000..=64_999).contains(&id), "{seen:?}");
            let reply = echo_reply(id, 1).from(bare(family.client)).to(bare(family.node));
            let back = programs.run("from_outside", &reply)?.packet();
            let wanted = echo_reply(4000, 1).from(bare(family.client)).to(bare(family.pod));
            ensure!(
                (&back.body, back.source, back.destination)
                    == (&wanted.body, wanted.source, wanted.destination),
                "{back:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn two_frontends_of_one_backend_are_told_apart() {
    isolated("packets::translation::two_frontends_of_one_backend_are_told_apart", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        let family = &FAMILIES[0];
        let (client, server) = (at(family.client, 4000), at(family.pod, 8080));
        let id = programs.backend(&server, protocol::TCP, true)?;
        let vips = [at(family.vip, 80), at(family.vip, 81)];
        for vip in &vips {
            programs.service(
                vip,
                protocol::TCP,
                &Service { inside: &[id], outside: &[id], ..Service::default() },
            )?;
        }
        for vip in &vips {
            let packet = tcp().from(&client).to(vip).syn();
            let seen = programs.run("from_outside", &packet)?.packet();
            let (port, _) = seen.ports().unwrap_or_default();
            expect("in", &seen, &at(family.client, port), &server)?;
            let answer = tcp().from(&server).to(&at(family.client, port)).syn().ack();
            expect("out", &programs.run("from_pod", &answer)?.packet(), vip, &client)?;
        }
        Ok(())
    });
}

#[test]
fn a_full_table_refuses_what_needs_it() {
    isolated("packets::translation::a_full_table_refuses_what_needs_it", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        let family = &FAMILIES[0];
        let vip = at(family.vip, 80);
        let here = programs.backend(&at(family.pod, 8080), protocol::TCP, true)?;
        programs.service(
            &vip,
            protocol::TCP,
            &Service { inside: &[here], outside: &[here], ..Service::default() },
        )?;
        let mut refused = 0;
        for port in 1..=2500u16 {
            let packet = tcp().from(&at(family.client, port)).to(&vip).syn();
            let ran = programs.run("from_outside", &packet)?;
            refused += u32::from(ran.code == DROP);
        }
        // Room for 4096 entries, two for each flow; what was reserved for the refused ones was given back.
        ensure!(programs.states().len() >= 4095 && refused > 400, "{} {refused}", programs.states().len());
        ensure!(programs.drops()? == [("conntrack_full", u64::from(refused))], "{:?}", programs.drops()?);
        // What is known goes on.
        let packet = tcp().from(&at(family.client, 1)).to(&vip).ack();
        expect(
            "known",
            &programs.run("from_outside", &packet)?.packet(),
            &at(family.client, 1),
            &at(family.pod, 8080),
        )
    });
}
