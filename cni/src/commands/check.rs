//! CHECK: whether a container is connected as ADD left it.

use serde_json::Value;

use crate::commands::{Network, host, in_pod, open_netns, wiring};
use crate::request::Request;
use crate::spec::{CHECK_FAILED, Error, INVALID_CONFIGURATION};
use crate::veth::Wiring;

pub(super) fn run(network: &Network, request: &Request) -> Result<(), Error> {
    let _working = network.work_on(&request.key);
    let wiring = {
        let state = network.state();
        let attachment = state.store.get(&request.key);
        let attachment = attachment.ok_or_else(|| failed("the container is not connected by us"))?;
        if request.netns.as_deref() != Some(&attachment.netns) {
            return Err(failed("the container was connected in another network namespace"));
        }
        wiring(attachment, &state.settings)
    };
    same_result(request.config.prev_result.as_ref(), &wiring)?;
    let netns = open_netns(&wiring_netns(request)?)?;
    let error = |error| Error::from_source(CHECK_FAILED, &error);
    let mut wrong = wiring.check_host(&mut host()?).map_err(error)?;
    wrong.extend(in_pod(&netns, |pod| wiring.check_pod(pod))?);
    if wrong.is_empty() { Ok(()) } else { Err(failed(wrong.join("; "))) }
}

fn wiring_netns(request: &Request) -> Result<std::path::PathBuf, Error> {
    request.netns.clone().ok_or_else(|| failed("the container has no network namespace"))
}

/// The runtime must remember the addresses that were given.
fn same_result(previous: Option<&Value>, wiring: &Wiring) -> Result<(), Error> {
    let Some(previous) = previous else {
        return Err(Error::new(INVALID_CONFIGURATION, "CHECK needs prevResult"));
    };
    let ips = previous.get("ips").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let remembered = |ip: &std::net::IpAddr| {
        let address = ipnet::IpNet::from(*ip).to_string();
        ips.iter().any(|entry| entry.get("address").and_then(Value::as_str) == Some(&address))
    };
    match wiring.ips.iter().find(|ip| !remembered(ip)) {
        Some(ip) => Err(failed(format!("the container has {ip}, which prevResult does not name"))),
        None => Ok(()),
    }
}

fn failed(msg: impl Into<String>) -> Error {
    Error::new(CHECK_FAILED, msg)
}
