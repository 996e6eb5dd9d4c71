//! Door of the binary: parse the flags, run, turn the outcome into an exit code.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pagurus_agent::{args::Args, dns::keeper, inspect, process::memory, run};

fn main() -> ExitCode {
    memory::tune();
    let mut arguments = std::env::args_os().skip(1);
    // Not for users: a process of the agent's that outlives it.
    if arguments.next().is_some_and(|first| first == keeper::ARGUMENT) {
        return end(keeper::main(&PathBuf::from(arguments.next().unwrap_or_default())));
    }
    let mut args = Args::parse();
    end(match args.command.take() {
        Some(command) => inspect::run(command),
        None => args.into_config().and_then(run::start),
    })
}

fn end(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody can read it, the exit code has to say it.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
