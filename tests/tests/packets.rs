//! The packet programs: single packets by `BPF_PROG_TEST_RUN` (packet and maps in, packet and maps out), and real sockets between
//! namespaces through the programs at their devices. The maps are filled here, not by the agent.

mod fragment;
mod icmp;
mod neighbour;
mod programs;
mod reject;
mod sctp;
mod sockets;
mod translation;
mod xdp;

use anyhow::ensure;
use pagurus_tests::netns::isolated;

use programs::Programs;

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
