//! GC: disconnects every container that is not named; and our own reconciliation with what the kernel has.
//!
//! Both go on after a failure and tell all of them at the end.

use std::collections::HashSet;

use crate::commands::{Network, del, host, in_pod, routed, wiring};
use crate::ipam::{Attachment, Key};
use crate::netlink::Socket;
use crate::netns::NetNs;
use crate::request::Request;
use crate::spec::{Error, INVALID_CONFIGURATION, IO_FAILURE, WIRING_FAILED};

pub(super) fn run(network: &Network, request: &Request) -> Result<(), Error> {
    let Some(valid) = &request.config.valid_attachments else {
        return Err(Error::new(INVALID_CONFIGURATION, "GC needs cni.dev/valid-attachments"));
    };
    let valid: HashSet<Key> = valid
        .iter()
        .map(|kept| Key { container_id: kept.container_id.clone(), ifname: kept.ifname.clone() })
        .collect();
    let mut host = host()?;
    let mut errors = Vec::new();
    for attachment in network.attachments().into_iter().filter(|attachment| !valid.contains(&attachment.key))
    {
        let _working = network.work_on(&attachment.key);
        errors.extend(del::disconnect(network, &mut host, &attachment.key).err());
    }
    combined(errors)
}

/// Makes the host's side of live attachments whole and drops those whose namespace is gone.
pub(super) fn reconcile(network: &Network) -> Vec<Error> {
    let mut host = match host() {
        Ok(host) => host,
        Err(error) => return vec![error],
    };
    let mut errors = Vec::new();
    for attachment in network.attachments() {
        let _working = network.work_on(&attachment.key);
        // A DEL may have come while we waited.
        if network.state().store.get(&attachment.key) == Some(&attachment) {
            errors.extend(mend(network, &mut host, &attachment).err());
        }
    }
    match routed(&mut host) {
        Ok(routed) => {
            let mut state = network.state();
            let known: HashSet<_> =
                state.store.iter().flat_map(|attachment| attachment.ips.clone()).collect();
            state.foreign = routed.difference(&known).copied().collect();
        }
        Err(error) => errors.push(Error::from_source(IO_FAILURE, &error)),
    }
    errors
}

fn mend(network: &Network, host: &mut Socket, attachment: &Attachment) -> Result<(), Error> {
    match NetNs::open(&attachment.netns) {
        // The mount that named it is gone, or only its file is left: no process can be in it any more.
        Ok(None) | Err(crate::netns::Error::Other { .. }) => del::disconnect(network, host, &attachment.key),
        Err(error) => Err(Error::from_source(IO_FAILURE, &error)),
        Ok(Some(netns)) => {
            let failed = |error| Error::from_source(WIRING_FAILED, &error);
            let wiring = wiring(attachment, &network.settings());
            if wiring.has_other_mtu(host).map_err(failed)? {
                in_pod(&netns, |pod| wiring.set_mtu(&wiring.pod_link, pod))?;
                wiring.set_mtu(&wiring.host_link, host).map_err(failed)?;
            }
            let wrong = wiring.check_host(host).map_err(failed)?;
            // Without its device an ADD that was cut short is to be repeated by the runtime; we only mend routes.
            if wrong.is_empty() || wrong.iter().any(|wrong| wrong.ends_with("has gone")) {
                return Ok(());
            }
            wiring.connect_host(host).map_err(failed)
        }
    }
}

fn combined(errors: Vec<Error>) -> Result<(), Error> {
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else { return Ok(()) };
    let rest: Vec<String> = errors.map(|error| error.msg).collect();
    Err(Error { details: rest.join("; "), ..first })
}
