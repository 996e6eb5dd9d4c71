//! The plugin's way to the agent: one call over a unix socket, one reply.
//!
//! Must not know: what a command does.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::request::Call;
use crate::spec::{Error, IO_FAILURE, NOT_AVAILABLE, TRY_AGAIN_LATER};

/// Where the agent listens unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/pagurus/cni.sock";

/// Longest call and longest reply.
pub const MAX_MESSAGE: u64 = 1 << 20;

/// How long the agent may take for one command.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The agent's reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// It worked; this is to be printed, if it is anything.
    Done(Option<Value>),
    /// It did not work.
    Failed(Error),
}

/// Sends a call to the agent. An agent that is not there is a passing state: the runtime is to try again.
pub fn forward(socket: &str, call: &Call) -> Result<Option<Value>, Error> {
    let code = if call.command == "STATUS" { NOT_AVAILABLE } else { TRY_AGAIN_LATER };
    let away =
        |error: io::Error| Error::new(code, format!("pagurus-agent does not answer at {socket}: {error}"));
    let mut stream = UnixStream::connect(socket).map_err(away)?;
    let mut exchange = || -> io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(&serde_json::to_vec(call)?)?;
        stream.shutdown(Shutdown::Write)?;
        let mut reply = Vec::new();
        (&mut stream).take(MAX_MESSAGE).read_to_end(&mut reply)?;
        Ok(reply)
    };
    let reply = exchange().map_err(away)?;
    if reply.is_empty() {
        return Err(away(io::ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_slice(&reply) {
        Ok(Reply::Done(result)) => Ok(result),
        Ok(Reply::Failed(error)) => Err(error),
        Err(error) => Err(Error::new(IO_FAILURE, format!("read the reply of pagurus-agent: {error}"))),
    }
}
