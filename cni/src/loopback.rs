//! The `loopback` plugin that runtimes call before any other: switches on `lo`. Needs no agent.
//!
//! Must not know: pods, addresses of the cluster.

use serde_json::Value;

use crate::netlink::{Netlink as _, Socket};
use crate::netns::NetNs;
use crate::request::{Command, Request};
use crate::spec::{self, CHECK_FAILED, Error, INVALID_ENVIRONMENT, IO_FAILURE};

/// Carries out a command.
pub fn run(request: &Request) -> Result<Option<Value>, Error> {
    let failed = |error: &dyn std::error::Error| Error::from_source(IO_FAILURE, error);
    let path = match (request.command, &request.netns) {
        (Command::Add | Command::Check, Some(path)) => path,
        (Command::Version, _) => return Ok(Some(spec::versions(&request.version))),
        // The device goes with its namespace.
        _ => return Ok(None),
    };
    let netns = NetNs::open(path).map_err(|error| failed(&error))?;
    let netns = netns.ok_or_else(|| {
        Error::new(INVALID_ENVIRONMENT, format!("there is no network namespace at {}", path.display()))
    })?;
    let add = request.command == Command::Add;
    let up = netns.run(|| {
        let mut netlink = Socket::open()?;
        let Some(lo) = netlink.link("lo")? else { return Ok(false) };
        if add {
            netlink.set_up(lo.index)?;
        }
        Ok(add || lo.up)
    });
    let up = up.map_err(|error| failed(&error))?.map_err(|error: crate::netlink::Error| failed(&error))?;
    match (add, up) {
        (true, _) => {
            let before = request.config.prev_result.clone();
            Ok(Some(before.unwrap_or_else(|| spec::loopback_result(&request.version, path))))
        }
        (false, true) => Ok(None),
        (false, false) => Err(Error::new(CHECK_FAILED, "lo is not up")),
    }
}
