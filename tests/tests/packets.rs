//! The packet programs: single packets by `BPF_PROG_TEST_RUN` (packet and maps in, packet and maps out), and real sockets between
//! namespaces through the programs at their devices. The maps are filled here, not by the agent.

mod affinity;
mod decided;
mod events;
mod flows;
mod forward;
mod fragment;
mod icmp;
mod model;
mod neighbour;
mod node;
mod programs;
pub(crate) mod random;
mod reject;
mod sctp;
mod sockets;
mod stack;
mod translation;
mod uplink;
mod xdp;

use anyhow::{Result, ensure};
use pagurus_tests::netns::isolated;
use pagurus_tests::pace::slowness;
use pagurus_tests::packet::{protocol, tcp};

use programs::{Programs, Service};

/// The most instructions that the verifier may go through for a program: a fifth of its limit.
const GATE: u32 = 200_000;

#[test]
fn the_verifier_is_far_from_its_limit() {
    isolated("packets::the_verifier_is_far_from_its_limit", |_| {
        let Some(programs) = Programs::load()? else { return Ok(()) };
        for (name, count) in programs.verified()? {
            println!("{name}: {count} instructions verified");
            ensure!(count < GATE, "{name}: {count} instructions verified, at most {GATE}");
        }
        Ok(())
    });
}

/// What no packet may cost on an ordinary machine, in nanoseconds: many times what they cost on a machine with other work, and less than
/// a program takes that looks through a table or goes over bytes one by one. The exact figures are the bench's.
const COST: u32 = 5_000;

#[test]
fn a_packet_costs_little() {
    isolated("packets::a_packet_costs_little", |_| {
        let Some(mut programs) = Programs::load()? else { return Ok(()) };
        let (client, server) = ("10.244.1.10:4000", "10.244.2.10:8080");
        let other = tcp().from(client).to(server).ack();
        for program in pagurus_ebpf_abi::programs::PACKET {
            little(program, "none of ours", programs.cost(program, &other)?)?;
        }
        // A flow that becomes itself.
        let id = programs.backend(server, protocol::TCP, true)?;
        programs.service(
            server,
            protocol::TCP,
            &Service { inside: &[id], outside: &[id], ..Service::default() },
        )?;
        for program in ["from_pod", "from_outside"] {
            programs.run(program, &tcp().from(client).to(server).syn())?;
            little(program, "a known flow", programs.cost(program, &other)?)?;
        }
        Ok(())
    });
}

fn little(program: &str, packet: &str, cost: u32) -> Result<()> {
    println!("{program}: {packet}: {cost} ns");
    ensure!(cost < COST * slowness(), "{program}: {packet}: {cost} ns, at most {COST}");
    Ok(())
}
