//! The plugin a container runtime calls: environment and standard input in, one JSON object out.
//!
//! Everything but VERSION and the loopback device is done by the agent; without it the answer is "try again later".

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use pagurus_cni::client::{self, DEFAULT_SOCKET};
use pagurus_cni::loopback;
use pagurus_cni::request::{Call, Command, Request};
use pagurus_cni::spec::{self, Error, IO_FAILURE, VERSIONS};
use serde_json::Value;

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_none() {
        eprintln!("pagurus-cni {}: a CNI plugin; a container runtime starts it", env!("CARGO_PKG_VERSION"));
        eprintln!("CNI protocol versions supported: {}", VERSIONS.join(", "));
        return ExitCode::from(2);
    }
    let mut version = String::new();
    match run(&mut version) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(result)) => print(&result, ExitCode::SUCCESS),
        Err(error) => print(&error.to_json(&version), ExitCode::FAILURE),
    }
}

fn run(version: &mut String) -> Result<Option<Value>, Error> {
    let mut stdin = Vec::new();
    std::io::stdin()
        .take(client::MAX_MESSAGE)
        .read_to_end(&mut stdin)
        .map_err(|error| Error::new(IO_FAILURE, format!("read standard input: {error}")))?;
    let call = Call::read(|name| std::env::var(name).ok(), &stdin)?;
    call.version().clone_into(version);
    let request = Request::parse(&call)?;
    if request.command == Command::Version {
        return Ok(Some(spec::versions(&request.version)));
    }
    if request.config.kind == "loopback" {
        return loopback::run(&request);
    }
    client::forward(request.config.agent_socket.as_deref().unwrap_or(DEFAULT_SOCKET), &call)
}

fn print(value: &Value, code: ExitCode) -> ExitCode {
    match writeln!(std::io::stdout(), "{value}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
