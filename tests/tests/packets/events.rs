//! What is told of packets that are dropped or refused.

use anyhow::{Context as _, Result, ensure};
use aya::maps::RingBuf;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use pagurus_ebpf_abi::{
    DROP_NO_ENDPOINT, DROP_NO_LOCAL_ENDPOINT, DropEvent, NODE_EVENTS, SERVICE_HAS_ENDPOINTS,
    SERVICE_INSIDE_LOCAL,
};
use pagurus_tests::netns::isolated;
use pagurus_tests::packet::{protocol, tcp, udp};

use super::node::{FAMILIES, at, ready};
use super::programs::{Programs, Service, flow};

/// What each CPU tells in a second.
const MOST: usize = 100;

/// Takes everything that was told.
fn told(programs: &mut Programs) -> Result<Vec<DropEvent>> {
    let mut ring = RingBuf::try_from(programs.map_mut("EVENTS")?)?;
    let mut events = Vec::new();
    while let Some(item) = ring.next() {
        ensure!(item.len() == size_of::<DropEvent>(), "an event of {} bytes", item.len());
        // SAFETY: that many bytes were just seen to be there; every bit pattern is a value of the integers in it.
        events.push(unsafe { item.as_ptr().cast::<DropEvent>().read_unaligned() });
    }
    Ok(events)
}

/// Nanoseconds since the machine was started.
fn now() -> Result<u64> {
    let mut time = nix::libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one time, for which there is room.
    nix::errno::Errno::result(unsafe { nix::libc::clock_gettime(nix::libc::CLOCK_MONOTONIC, &mut time) })?;
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Stays on one CPU, whose events are counted together.
fn stay_here() -> Result<()> {
    let mut one = CpuSet::new();
    one.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &one).context("stay on one CPU")
}

#[test]
fn say_what_was_dropped_and_why() {
    isolated("packets::events::say_what_was_dropped_and_why", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        programs.configure(|config| config.flags |= NODE_EVENTS)?;
        for family in &FAMILIES {
            let (client, vip) = (at(family.pod, 4000), at(family.vip, 80));
            let flags = SERVICE_HAS_ENDPOINTS | SERVICE_INSIDE_LOCAL;
            let cases = [
                (protocol::TCP, tcp().syn(), 0, DROP_NO_ENDPOINT),
                (protocol::UDP, udp().payload(b"question"), flags, DROP_NO_LOCAL_ENDPOINT),
            ];
            for (protocol, packet, flags, reason) in cases {
                let service = programs.service(&vip, protocol, &Service { flags, ..Service::default() })?;
                let packet = packet.from(&client).to(&vip);
                programs.run("from_pod", &packet)?;
                let told = told(&mut programs)?;
                let [event] = told[..] else { anyhow::bail!("{} events: {told:?}", told.len()) };
                let wanted = DropEvent {
                    time: event.time,
                    tuple: flow(&client, &vip, protocol),
                    reason,
                    // Single packets come to the loopback device.
                    ifindex: 1,
                    service,
                    length: packet.macs([0; 6], [0; 6]).build().len() as u32,
                };
                ensure!(event == wanted, "{event:?} is not {wanted:?}");
                let age = now()? - event.time;
                ensure!(age < 60_000_000_000, "{age} ns old");
            }
        }
        Ok(())
    });
}

#[test]
fn are_few_and_only_for_those_who_read_them() {
    isolated("packets::events::are_few_and_only_for_those_who_read_them", |_| {
        let Some(mut programs) = ready()? else { return Ok(()) };
        stay_here()?;
        let family = &FAMILIES[0];
        let (client, vip) = (at(family.pod, 4000), at(family.vip, 80));
        programs.service(&vip, protocol::TCP, &Service::default())?;
        let packet = tcp().from(&client).to(&vip).syn();
        programs.run("from_pod", &packet)?;
        ensure!(told(&mut programs)?.is_empty(), "nobody listens");
        programs.configure(|config| config.flags |= NODE_EVENTS)?;
        let begun = std::time::Instant::now();
        for _ in 0..10 * MOST {
            programs.run("from_pod", &packet)?;
        }
        // So many in the second in which they begin, and in each that begins after it.
        let most = MOST * (begun.elapsed().as_secs() as usize + 2);
        let count = told(&mut programs)?.len();
        ensure!((MOST..=most).contains(&count), "{count} events, at most {most}");
        ensure!(programs.drops()? == [("no_endpoint", 10 * MOST as u64 + 1)], "{:?}", programs.drops()?);
        Ok(())
    });
}
