//! SCTP's checksum through the programs, whatever the packet carries.

use super::programs::{Programs, Service};
use anyhow::ensure;
use pagurus_tests::netns::isolated;
use pagurus_tests::packet::{Body, protocol, sctp};

/// xorshift64: any numbers, the same in every run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn is_right_after_any_change_of_ports() {
    isolated("packets::sctp::is_right_after_any_change_of_ports", |_| {
        let Some(mut programs) = Programs::load()? else { return Ok(()) };
        let mut state = 0x5c79;
        for round in 0..2000_u64 {
            let (client, port) = (1 + next(&mut state) % 65_535, 1 + next(&mut state) % 65_535);
            let target = 1 + next(&mut state) % 65_535;
            let (vip, server) = (format!("10.96.0.10:{port}"), format!("10.244.2.10:{target}"));
            let id = programs.backend("10.244.2.10:1", protocol::SCTP, false)?;
            let mut backend = programs.get_backend(id)?;
            backend.port = pagurus_ebpf_abi::Port::new(target as u16);
            programs.set_backend(id, backend)?;
            programs.service(&vip, protocol::SCTP, &Service { inside: &[id], ..Service::default() })?;
            let length = if round % 10 == 0 { next(&mut state) % 3400 } else { next(&mut state) % 1400 };
            let chunks: Vec<u8> = (0..length).map(|_| next(&mut state) as u8).collect();
            let tag = next(&mut state) as u32;
            let packet = sctp().from(&format!("10.244.1.10:{client}")).to(&vip).tag(tag).payload(&chunks);
            // Reading it verifies the checksum; the rest is as it was.
            let ran = programs.run("from_pod", &packet)?;
            let seen = ran.packet();
            ensure!(seen.ports() == packet.clone().to(&server).ports(), "{round}: {seen:?}");
            let (Body::Sctp(seen), Body::Sctp(sent)) = (&seen.body, &packet.body) else {
                anyhow::bail!("{round}: {seen:?}")
            };
            ensure!(seen.checksum && seen.tag == sent.tag && seen.chunks == sent.chunks, "{round}");
            programs.forget()?;
        }
        Ok(())
    });
}

#[test]
fn that_the_device_is_to_make_is_left_to_it() {
    isolated("packets::sctp::that_the_device_is_to_make_is_left_to_it", |_| {
        let Some(mut programs) = Programs::load()? else { return Ok(()) };
        let id = programs.backend("10.244.2.10:8080", protocol::SCTP, false)?;
        programs.service(
            "10.96.0.10:80",
            protocol::SCTP,
            &Service { inside: &[id], ..Service::default() },
        )?;
        let packet = sctp().from("10.244.1.10:5").to("10.96.0.10:80").payload(&[0; 16]).without_checksum();
        let seen = programs.run("from_pod", &packet)?.packet();
        ensure!(seen.body == packet.to("10.244.2.10:8080").body, "{seen:?}");
        Ok(())
    });
}
