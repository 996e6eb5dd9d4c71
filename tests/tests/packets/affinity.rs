//! Clients that stay with their endpoint for a time, as their packets are seen.

use anyhow::{Context as _, Result, ensure};
use aya::maps::HashMap;
use pagurus_ebpf_abi::{Address, ClientKey, ClientValue, SERVICE_AFFINITY, SERVICE_EXTERNAL};
use pagurus_tests::netns::isolated;

use super::node::{FAMILIES, at, ip, ready, transports};
use super::programs::{Programs, Service, address};

/// How long clients stay here.
const SECONDS: u32 = 10;
const NANOSECONDS: u64 = 1_000_000_000;

fn clients(programs: &mut Programs) -> Result<HashMap<&mut aya::maps::MapData, ClientKey, ClientValue>> {
    Ok(HashMap::try_from(programs.map_mut("CLIENTS")?)?)
}

#[test]
fn a_client_stays_for_the_time_of_the_service() {
    isolated("packets::affinity::a_client_stays_for_the_time_of_the_service", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        programs.affinity_seconds = SECONDS;
        for family in &FAMILIES {
            for (transport, (protocol, _)) in transports("10.0.0.1:1", "10.0.0.2:2").into_iter().enumerate() {
                let vip = at(family.vip, 80 + transport as u16);
                let pods = [family.pod, family.other_pod];
                let mut ids = Vec::new();
                for pod in pods {
                    ids.push(programs.backend(&at(pod, 8080), protocol, true)?);
                }
                let flags = SERVICE_EXTERNAL | SERVICE_AFFINITY;
                let service =
                    programs.service(&vip, protocol, &Service { flags, inside: &ids, outside: &ids })?;
                let key = ClientKey { client: address(ip(family.client)?), service, reserved: 0 };
                let mut port = 4000;
                // Where a new connection of the client goes, and when and where that was noted.
                let mut ask = |programs: &mut Programs| -> Result<(Address, ClientValue)> {
                    port += 1;
                    let all = transports(&at(family.client, port), &vip);
                    let (_, packet) = all.get(transport).context("a transport")?;
                    let to = address(programs.run("from_outside", packet)?.packet().destination);
                    Ok((to, clients(programs)?.get(&key, 0).context("the client is not noted")?))
                };
                let (by_hash, noted) = ask(&mut programs)?;
                ensure!(noted.address == by_hash);
                for pod in pods {
                    let endpoint = address(ip(pod)?);
                    for (age, stays) in [(0, true), (SECONDS - 2, true), (SECONDS + 1, false)] {
                        let last = noted.last - u64::from(age) * NANOSECONDS;
                        clients(&mut programs)?.insert(key, ClientValue { last, address: endpoint }, 0)?;
                        let (to, then) = ask(&mut programs)?;
                        let expected = if stays { endpoint } else { by_hash };
                        ensure!(to == expected, "{vip}/{protocol}: after {age} s {pod}: {to:?}");
                        // Each connection begins the time anew.
                        ensure!(then.address == to && then.last >= noted.last, "{then:?} after {noted:?}");
                    }
                }
            }
        }
        Ok(())
    });
}
