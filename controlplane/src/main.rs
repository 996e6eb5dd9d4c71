//! Door of the binary: parses, runs, and turns an error into one line and an exit code.

use std::process::ExitCode;

use pagurus_controlplane::args::Args;
use pagurus_controlplane::run;

fn main() -> ExitCode {
    match run::main(Args::parse_command_line()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
