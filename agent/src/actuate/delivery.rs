//! The pods of this node, for the programs that put packets straight into them.
//!
//! Level-triggered. A pod that is not told yet gets its packets through the kernel's routes. Must not know: how a pod is wired,
//! who balances.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use pagurus_agent_datapath::handles::{Announced, Endpoints, LocalPod};
use pagurus_cni::commands::Connected;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::actuate::network::PodsHere;

/// How soon after a failure everything is written again.
const RETRY: Duration = Duration::from_secs(5);

/// Maps that are filled apart from the Services.
#[derive(Debug)]
pub struct Handles {
    /// Pods of this node.
    pub endpoints: Endpoints,
    /// Addresses this node announces.
    pub announced: Announced,
}

/// Keeps the map of pods right until cancelled, once the maps are there.
pub async fn run(
    handles: oneshot::Receiver<Handles>,
    announced: oneshot::Sender<Announced>,
    mut pods: watch::Receiver<PodsHere>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let handles = tokio::select! {
        handles = handles => match handles {
            Ok(handles) => handles,
            // The balancer has ended before it had maps; it says why.
            Err(_) => return Ok(()),
        },
        () = cancel.cancelled() => return Ok(()),
    };
    let mut endpoints = handles.endpoints;
    // Without anybody to announce addresses everything ends.
    let _ = announced.send(handles.announced);
    loop {
        let told = pods.borrow_and_update().clone();
        let wait = match told.map(|pods| endpoints.replace(&local_pods(&pods))) {
            Some(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the map of pods is not written; trying again"
                );
                Some(RETRY)
            }
            Some(Ok(changed)) => {
                tracing::debug!(changed, "the map of pods is written");
                None
            }
            None => None,
        };
        tokio::select! {
            Ok(()) = pods.changed() => {}
            () = sleep(wait) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

fn local_pods(pods: &[Connected]) -> BTreeMap<IpAddr, LocalPod> {
    let entries = pods.iter().flat_map(|pod| {
        let local = LocalPod { ifindex: pod.ifindex, mac: pod.mac.0, host_mac: pod.host_mac.0 };
        pod.attachment.ips.iter().map(move |ip| (*ip, local))
    });
    entries.collect()
}
