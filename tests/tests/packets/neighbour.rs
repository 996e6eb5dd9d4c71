//! Who answers for announced addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::programs::{PASS, Programs, REDIRECT};
use anyhow::{Result, ensure};
use pagurus_tests::netns::isolated;
use pagurus_tests::packet::{Arp, Ethernet, Packet, SENDER, neighbour_advertisement, neighbour_solicitation};

const MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
const V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
/// Programs are run on packets of the loopback device.
const LOOPBACK: u32 = 1;

fn ready(ifindex: u32) -> Result<Option<Programs>> {
    let Some(mut programs) = Programs::load()? else { return Ok(None) };
    programs.announce(V4.into(), ifindex, MAC)?;
    programs.announce(V6.into(), ifindex, MAC)?;
    Ok(Some(programs))
}

/// The frame goes on as it came.
fn is_left(programs: &Programs, what: &str, frame: &[u8]) -> Result<()> {
    let ran = programs.run_bytes("from_outside", frame)?;
    ensure!(ran.code == PASS && ran.bytes == frame, "{what}: {ran:?}");
    Ok(())
}

#[test]
fn requests_are_answered() {
    isolated("packets::neighbour::requests_are_answered", |_| {
        let Some(programs) = ready(LOOPBACK)? else { return Ok(()) };
        let ask = Arp::request(Ipv4Addr::new(198, 51, 100, 1), V4);
        // As it is, filled up to the shortest frame, with a device's trailer behind it, to this node alone, without an own address.
        let padded = |length: usize| [ask.build(), vec![0; length - 42]].concat();
        let direct = Arp { destination: MAC, ..ask };
        let probe = Arp { sender: Ipv4Addr::UNSPECIFIED, ..ask };
        for (frame, ask) in [
            (ask.build(), ask),
            (padded(60), ask),
            (padded(64), ask),
            (direct.build(), direct),
            (probe.build(), probe),
        ] {
            let ran = programs.run_bytes("from_outside", &frame)?;
            ensure!(ran.code == REDIRECT, "{ask:?}: {ran:?}");
            ensure!(Arp::parse(&ran.bytes)? == ask.reply(MAC), "{ask:?}: {ran:?}");
        }
        Ok(())
    });
}

#[test]
fn what_does_not_ask_for_one_of_ours_is_left_alone() {
    isolated("packets::neighbour::what_does_not_ask_for_one_of_ours_is_left_alone", |_| {
        let Some(programs) = ready(LOOPBACK)? else { return Ok(()) };
        let ask = Arp::request(Ipv4Addr::new(198, 51, 100, 1), V4);
        is_left(
            &programs,
            "another address",
            &Arp { target: Ipv4Addr::new(198, 51, 100, 8), ..ask }.build(),
        )?;
        is_left(&programs, "an answer", &Arp { operation: 2, ..ask }.build())?;
        is_left(&programs, "an announcement", &Arp { sender: V4, ..ask }.build())?;
        is_left(&programs, "cut off", &ask.build()[..40])?;
        let asked = neighbour_solicitation(V6).from("2001:db8:7::1");
        is_left(&programs, "forwarded", &asked.clone().ttl(254).build())?;
        let other = neighbour_solicitation("2001:db8:7::8".parse()?).from("2001:db8:7::1");
        is_left(&programs, "another IPv6 address", &other.build())?;
        let advertised = neighbour_advertisement(V6, SENDER).from("2001:db8:7::1").to("ff02::1");
        is_left(&programs, "an advertisement", &advertised.build())?;
        // Announced at another device.
        let Some(programs) = ready(LOOPBACK + 1)? else { return Ok(()) };
        is_left(&programs, "another device", &ask.build())?;
        is_left(&programs, "another device, IPv6", &asked.build())
    });
}

#[test]
fn solicitations_are_answered() {
    isolated("packets::neighbour::solicitations_are_answered", |_| {
        let Some(programs) = ready(LOOPBACK)? else { return Ok(()) };
        let asked = neighbour_solicitation(V6).from("2001:db8:7::1");
        let ran = programs.run_bytes("from_outside", &asked.build())?;
        ensure!(ran.code == REDIRECT, "{ran:?}");
        let wanted =
            neighbour_advertisement(V6, MAC).from(&V6.to_string()).to("2001:db8:7::1").macs(MAC, SENDER);
        ensure!(ran.packet() == wanted, "{:?}", ran.packet());
        Ok(())
    });
}

#[test]
fn who_wants_the_address_is_told_that_it_is_not_free() {
    isolated("packets::neighbour::who_wants_the_address_is_told_that_it_is_not_free", |_| {
        let Some(programs) = ready(LOOPBACK)? else { return Ok(()) };
        // Duplicate address detection: no source address, no option.
        let probe = neighbour_solicitation(V6).from("::").payload(&V6.octets());
        let ran = programs.run_bytes("from_outside", &probe.build())?;
        ensure!(ran.code == REDIRECT, "{ran:?}");
        let said = ran.packet();
        let all = Ethernet { source: MAC, destination: [0x33, 0x33, 0, 0, 0, 1] };
        ensure!(said.ethernet == Some(all) && said.destination == "ff02::1".parse::<Ipv6Addr>()?, "{said:?}");
        let mut wanted: Packet = neighbour_advertisement(V6, MAC).from(&V6.to_string()).to("ff02::1");
        wanted.ethernet = Some(all);
        if let pagurus_tests::packet::Body::Icmp(icmp) = &mut wanted.body {
            // Override, but not solicited.
            icmp.rest = [0x20, 0, 0, 0];
        }
        ensure!(said == wanted, "{said:?}");
        Ok(())
    });
}
