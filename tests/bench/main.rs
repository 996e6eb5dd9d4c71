//! The figures of the dataplane, each compared with its rivals in one run, on nodes in network namespaces of our own. Started by
//! `cargo xtask bench datapath`, which prints what this writes: a row as JSON on each line, and what goes on to standard error.

mod agent;
mod bpf;
mod connections;
mod conntrack;
mod load;
mod packets;
mod programming;
mod requests;
mod restart;
mod rivals;
mod row;
mod times;

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use pagurus_tests::netns::isolate;
use row::Row;

/// How thoroughly is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often each thing is measured.
    pub rounds: usize,
    /// How long each time.
    pub time: Duration,
}

/// A part of the table.
type Part = fn(&pagurus_tests::netns::Sandbox, Effort) -> Result<Vec<Row>>;

/// The parts, in the order of the table.
const PARTS: &[(&str, Part)] = &[
    ("connections", connections::run),
    ("requests", requests::run),
    ("packets", packets::run),
    ("programming", programming::run),
    ("agent", agent::run),
    ("conntrack", conntrack::run),
    ("restart", restart::run),
];

fn main() -> Result<()> {
    let mut effort = Effort { rounds: 7, time: Duration::from_secs(1) };
    let mut only = None;
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--quick" => effort = Effort { rounds: 2, time: Duration::from_millis(200) },
            other if PARTS.iter().any(|(name, _)| *name == other) => only = Some(other.to_owned()),
            "--help" | "-h" => {
                println!("Measures the dataplane; one row of JSON each on standard output.\n\n{}", usage());
                return Ok(());
            }
            other => bail!("unknown argument {other:?}\n\n{}", usage()),
        }
    }
    match only {
        Some(name) => part(&name, effort),
        None => each_in_a_process(),
    }
}

/// How this is called.
fn usage() -> String {
    let parts: Vec<&str> = PARTS.iter().map(|part| part.0).collect();
    format!(
        "Usage: pagurus-bench [--quick] [PART]\n\n  --quick  two short rounds of each: only to see that it works\n  PART     one of {}; without it all of them, each in a process of its own",
        parts.join(", ")
    )
}

/// Measures one part, in this process. A part that fails is a row without a figure.
fn part(name: &str, effort: Effort) -> Result<()> {
    let Some((_, run)) = PARTS.iter().find(|part| part.0 == name) else { bail!("there is no part {name}") };
    let isolation = isolate()?;
    let rows = run(isolation.sandbox(), effort).unwrap_or_else(|error| vec![Row::failed(name, error)]);
    for row in rows {
        println!("{}", row.json());
    }
    Ok(())
}

/// Measures every part in a process of its own: so that none leaves anything to the next.
fn each_in_a_process() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for (name, _) in PARTS {
        eprintln!("bench: {name}");
        let mut command = Command::new(std::env::current_exe()?);
        // SAFETY: between fork and exec only one system call is made.
        unsafe {
            // However we end, it does too.
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let status = command.args(&arguments).arg(name).status()?;
        if !status.success() {
            println!("{}", Row::failed(name, anyhow!("its process ended: {status}")).json());
        }
    }
    Ok(())
}
