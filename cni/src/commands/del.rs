//! DEL: undoes ADD, whatever of it is there. Missing things are success.

use crate::commands::{Network, host, store_error};
use crate::ipam::Key;
use crate::netlink::{Netlink as _, Socket};
use crate::request::Request;
use crate::spec::{Error, WIRING_FAILED};

pub(super) fn run(network: &Network, request: &Request) -> Result<(), Error> {
    let _working = network.work_on(&request.key);
    disconnect(network, &mut host()?, &request.key)
}

/// Removes the devices, and with them every route and neighbour; then gives the addresses back.
pub(super) fn disconnect(network: &Network, host: &mut Socket, key: &Key) -> Result<(), Error> {
    host.delete_link(&key.host_link()).map_err(|error| Error::from_source(WIRING_FAILED, &error))?;
    network.state().store.release(key).map_err(|error| store_error(&error))
}
