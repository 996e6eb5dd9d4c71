//! Datagrams in fragments: the later ones find the ports of the first.

use super::node::{FAMILIES, at, ready};
use super::programs::{DROP, PASS, Programs, Ran, Service};
use anyhow::{Result, ensure};
use pagurus_ebpf_abi::NODE_MASQUERADE;
use pagurus_tests::netns::isolated;
use pagurus_tests::packet::{Packet, joined, protocol, udp};

/// A datagram to a Service in fragments of this many bytes, in order.
fn fragments(client: &str, vip: &str, id: u32) -> Vec<Packet> {
    udp().from(client).to(vip).id(id).payload(&(0..200).collect::<Vec<u8>>()).fragments(64)
}

#[test]
fn become_one_datagram_to_the_backend() {
    isolated("packets::fragment::become_one_datagram_to_the_backend", |_| {
        let Some(mut programs) = Programs::load()? else { return Ok(()) };
        for (client, vip, server) in [
            ("10.244.1.10:4000", "10.96.0.10:80", "10.244.2.10:8080"),
            ("[fd10::1:10]:4000", "[fd96::10]:80", "[fd10::2:10]:8080"),
        ] {
            let protocol = protocol::UDP;
            let id = programs.backend(server, protocol, false)?;
            programs.service(vip, protocol, &Service { inside: &[id], ..Service::default() })?;
            for id in [1, 0xfffe] {
                let ran = fragments(client, vip, id)
                    .iter()
                    .map(|fragment| programs.run("from_pod", fragment))
                    .collect::<Result<Vec<_>>>()?;
                let whole = joined(&ran.iter().map(Ran::packet).collect::<Vec<_>>())?;
                let wanted = udp().from(client).to(server).payload(&(0..200).collect::<Vec<u8>>());
                ensure!(whole.body == wanted.body && whole.destination == wanted.destination, "{whole:?}");
                // And back, in fragments too.
                let ran = fragments(server, client, id + 1)
                    .iter()
                    .map(|fragment| programs.run("from_outside", fragment))
                    .collect::<Result<Vec<_>>>()?;
                let whole = joined(&ran.iter().map(Ran::packet).collect::<Vec<_>>())?;
                let wanted = udp().from(vip).to(client).payload(&(0..200).collect::<Vec<u8>>());
                ensure!(whole.body == wanted.body && whole.source == wanted.source, "{whole:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn of_others_pass() {
    isolated("packets::fragment::of_others_pass", |_| {
        let Some(programs) = Programs::load()? else { return Ok(()) };
        for fragment in fragments("10.244.1.10:4000", "10.244.2.10:53", 7) {
            let ran = programs.run("from_pod", &fragment)?;
            ensure!(ran.code == PASS, "{ran:?}");
        }
        Ok(())
    });
}

#[test]
fn without_their_first_go_nowhere() {
    isolated("packets::fragment::without_their_first_go_nowhere", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        programs.configure(|config| config.flags |= NODE_MASQUERADE)?;
        programs.networks(&[("10.244.0.0", 16), ("fd10::", 32)])?;
        for family in &FAMILIES {
            let (client, vip) = (at(family.pod, 4000), at(family.vip, 80));
            let id = programs.backend(&at(family.remote, 8080), protocol::UDP, false)?;
            programs.service(&vip, protocol::UDP, &Service { inside: &[id], ..Service::default() })?;
            // Nothing is known of the address yet. But this node leaves no pod's address out of the cluster.
            let later = &fragments(&client, &vip, 7)[1..];
            for fragment in later {
                ensure!(programs.run("from_pod", fragment)?.code == PASS);
                ensure!(programs.run("to_outside", fragment)?.code == DROP);
            }
            // A datagram in fragments was seen: so others' fragments are known to go astray at once.
            for fragment in fragments(&client, &vip, 8) {
                ensure!(programs.run("from_pod", &fragment)?.code == PASS);
            }
            for fragment in later {
                ensure!(programs.run("from_pod", fragment)?.code == DROP);
            }
            // To pods, and to what comes from elsewhere to this node, it makes no difference.
            for fragment in &fragments(&client, &at(family.remote, 80), 7)[1..] {
                ensure!(programs.run("from_pod", fragment)?.code == PASS);
                ensure!(programs.run("to_outside", fragment)?.code == PASS);
            }
            for fragment in &fragments(&at(family.client, 1), &at(family.node, 80), 7)[1..] {
                ensure!(programs.run("from_outside", fragment)?.code == PASS);
            }
        }
        let lone =
            FAMILIES.iter().map(|family| fragments(&at(family.pod, 1), &at(family.vip, 1), 1).len() - 1);
        let dropped = 2 * lone.sum::<usize>() as u64;
        ensure!(programs.drops()? == [("fragment", dropped)], "{:?}", programs.drops()?);
        Ok(())
    });
}
