//! Tells when kube-proxy runs on this node, or has left rules behind.
//!
//! Must not know: how that is found out.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::told::Told;
use crate::config::NodeContext;
use crate::observe::rivals;
use crate::report::events::about_node;

/// How often it is looked for.
const LOOK: Duration = Duration::from_secs(300);

/// Looks now and then, until cancelled.
pub(super) async fn run(context: Arc<NodeContext>, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut told = Told::new(context.events.clone());
    loop {
        let found = tokio::task::spawn_blocking(rivals::look).await.context("look for kube-proxy")?;
        told.tell(&about_node(&context.node_name), "KubeProxyFound", found.advice().into_iter().collect());
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}
