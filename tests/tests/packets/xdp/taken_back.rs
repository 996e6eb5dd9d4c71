//! What user space takes back shows at once, also in flows that were seen a moment ago; and another way to the next hop soon.

use std::time::{Duration, Instant};

use pagurus_ebpf_abi::BACKEND_DRAINING;

use super::*;

#[test]
fn datagrams_of_flows_at_hand_leave_a_backend_that_goes() {
    isolated("packets::xdp::taken_back::datagrams_of_flows_at_hand_leave_a_backend_that_goes", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip) = (at(family.client, 4000), at(family.vip, 53));
            let (old, new) = (at(family.server, 5353), at(family.server, 5354));
            let number = node.serve(&vip, protocol::UDP, &[&old], 0)?;
            let packet = middle(protocol::UDP, &client, &vip, b"question");
            for payload in [&b"answer"[..], b"another", b"third"] {
                let port = node.sent(&packet)?.ports().context("no ports")?.0;
                let own = at(family.node, port);
                let answer = middle(protocol::UDP, &old, &own, payload);
                expect(&node.sent(&answer)?, &answer, &vip, &client)?;
                expect(&node.sent(&packet)?, &packet, &own, &old)?;
            }
            ensure!(node.programs.warm()? >= 2, "{}", node.programs.warm()?);

            // As the agent does it: frontends first, then the backend, then the word that something has gone.
            let last = node.programs.backend(&new, protocol::UDP, false)?;
            let service = Service { flags: SERVICE_EXTERNAL, inside: &[last], outside: &[last] };
            node.programs.change_service(&vip, protocol::UDP, number, &service)?;
            let backend = node.programs.get_backend(last - 1)?;
            node.programs.set_backend(last - 1, Backend { flags: BACKEND_DRAINING, ..backend })?;
            node.programs.take_back()?;
            let sent = node.sent(&packet)?;
            let port = sent.ports().context("no ports")?.0;
            expect(&sent, &packet, &at(family.node, port), &new)?;
        }
        Ok(())
    });
}

#[test]
fn a_gateway_that_gets_another_address_is_followed() {
    isolated("packets::xdp::taken_back::a_gateway_that_gets_another_address_is_followed", |_| {
        const OTHER: [u8; 6] = [2, 0, 0, 0, 7, 0xfd];
        let Some(mut node) = Node::new()? else { return Ok(()) };
        // So that only what is known of the gateway can tell.
        node.programs.configure(|config| config.warm_ticks = u32::MAX)?;
        for (family, gateway) in FAMILIES.iter().zip(["192.168.7.254", "fd77::fe"]) {
            let (client, vip) = (at(family.client, 4000), at(family.vip, 53));
            node.service(&vip, protocol::UDP, &at(family.server, 53), false, 0)?;
            let packet = middle(protocol::UDP, &client, &vip, b"question");
            let port = node.sent(&packet)?.ports().context("no ports")?.0;
            let answer = middle(protocol::UDP, &at(family.server, 53), &at(family.node, port), b"answer");
            for _ in 0..3 {
                node.sent(&packet)?;
                node.sent(&answer)?;
            }
            let address = "02:00:00:00:07:fd";
            ip(&["neigh", "replace", gateway, "lladdr", address, "dev", "up0", "nud", "permanent"])?;
            let wanted = packet.clone().macs(OWN, OTHER).ethernet;
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                let bytes = packet.clone().macs(GATEWAY, OWN).build();
                let ran = node.programs.run_early(node.uplink, &bytes)?;
                ensure!(ran.code == XDP_TX, "{}", ran.code);
                if ran.packet().ethernet == wanted {
                    break;
                }
                ensure!(Instant::now() < deadline, "packets still go to the old one");
            }
        }
        Ok(())
    });
}
