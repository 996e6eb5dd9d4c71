//! Door of the binary: parses, runs, and turns an error into one line and an exit code.

use std::io::Write as _;
use std::process::ExitCode;

use pagurus_controlplane::args::Args;
use pagurus_controlplane::run;

/// Most of the work on an object is making and dropping small pieces.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run::main(Args::parse_command_line()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody can read it, the exit code has to say it.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
