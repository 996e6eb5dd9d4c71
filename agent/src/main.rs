//! Door of the binary: parse the flags, run, turn the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use pagurus_agent::{args::Args, process::memory, run};

fn main() -> ExitCode {
    memory::tune();
    let outcome = Args::parse().into_config().and_then(run::start);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
