//! ADD: an address of each family, a veth pair, routes on both sides.
//!
//! The address is on disk before anything is wired, so that a crash at any point leaves something that DEL or the
//! reconciliation finds.

use serde_json::Value;

use crate::commands::{Network, host, in_pod, open_netns, store_error, wiring};
use crate::netlink::Socket;
use crate::netns::NetNs;
use crate::request::Request;
use crate::spec::{self, Error, INVALID_ENVIRONMENT, WIRING_FAILED};
use crate::veth::Wiring;
use std::os::fd::AsFd as _;

pub(super) fn run(network: &Network, request: &Request) -> Result<Value, Error> {
    let path = request.netns.as_deref();
    let path = path.ok_or_else(|| Error::new(INVALID_ENVIRONMENT, "CNI_NETNS is missing"))?;
    let netns = open_netns(path)?;
    let _working = network.work_on(&request.key);
    let (attachment, wiring) = {
        let mut state = network.state();
        let settings = state.settings.clone();
        let foreign = state.foreign.clone();
        let attachment = state
            .store
            .reserve(&request.key, path, request.pod(), &request.host_ports, &settings.ranges, |ip| {
                foreign.contains(ip)
            })
            .map_err(|error| store_error(&error))?;
        let wiring = wiring(&attachment, &settings);
        (attachment, wiring)
    };
    let mut host = host()?;
    let connected = connect(&wiring, &mut host, &netns).and_then(|()| network.tell(&wiring, &mut host));
    if let Err(error) = connected {
        // The runtime sends a DEL after a failed ADD, but need not.
        let undone = super::del::disconnect(network, &mut host, &request.key);
        return Err(match undone {
            Ok(()) => error,
            Err(also) => Error { details: format!("undoing it failed too: {also}"), ..error },
        });
    }
    Ok(spec::result(&request.version, &attachment, &wiring))
}

/// Wires a container, also one that is wired already.
fn connect(wiring: &Wiring, host: &mut Socket, netns: &NetNs) -> Result<(), Error> {
    let failed = |error| Error::from_source(WIRING_FAILED, &error);
    if !is_connected(wiring, host, netns) {
        wiring.create(host, netns.as_fd()).map_err(failed)?;
    }
    in_pod(netns, |pod| wiring.connect_pod(pod))?;
    wiring.connect_host(host).map_err(failed)
}

/// Whether an earlier ADD has done it: then its devices are kept.
fn is_connected(wiring: &Wiring, host: &mut Socket, netns: &NetNs) -> bool {
    wiring.check_host(host).is_ok_and(|wrong| wrong.is_empty())
        && in_pod(netns, |pod| wiring.check_pod(pod)).is_ok_and(|wrong| wrong.is_empty())
}
