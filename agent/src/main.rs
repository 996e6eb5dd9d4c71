//! Door of the binary: parse the flags, run, turn the outcome into an exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use pagurus_agent::{args::Args, process::memory, run};

fn main() -> ExitCode {
    memory::tune();
    let outcome = Args::parse().into_config().and_then(run::start);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody can read it, the exit code has to say it.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
