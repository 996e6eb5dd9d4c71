//! The node's Lease: the sign of life. It is renewed in a task of its own, so that nothing slow holds it up.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use kube::api::PostParams;
use pagurus_controlplane_api::time;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::NodeContext;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// A renewal that takes longer is given up and tried again.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// Renews the lease until cancelled. Failures are tried again and logged once.
pub async fn run(context: Arc<NodeContext>, cancel: CancellationToken) -> anyhow::Result<()> {
    let (renewed, failed) = (Counter::<u64>::default(), Counter::<u64>::default());
    context.metrics.register("lease", |registry| {
        registry.register("renewals", "Renewals of the node's lease", renewed.clone());
        registry.register("failures", "Renewals that failed", failed.clone());
    });
    let interval = context.config.lease_duration / 4;
    let mut lease: Option<Value> = None;
    let mut failures: u32 = 0;
    loop {
        let attempt = tokio::time::timeout(PATIENCE, renew(&context, lease.take()));
        let outcome = tokio::select! {
            outcome = attempt => outcome.context("no answer in time").flatten(),
            () = cancel.cancelled() => return Ok(()),
        };
        let wait = match outcome {
            Ok(now) => {
                renewed.inc();
                if failures > 0 {
                    tracing::info!(failures, "the lease is renewed again");
                }
                (lease, failures) = (Some(now), 0);
                // Nodes that were started together should not come together for ever.
                interval.mul_f64(0.96 + 0.04 * rand::random::<f64>())
            }
            Err(error) => {
                failed.inc();
                if failures == 0 {
                    tracing::warn!(error = format!("{error:#}"), "the lease is not renewed; trying again");
                }
                failures += 1;
                FIRST_RETRY.saturating_mul(1 << failures.min(5)).min(interval)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

/// Writes a new time into the lease as we know it; if that is not known, or not true any more, as the server knows it.
async fn renew(context: &NodeContext, known: Option<Value>) -> anyhow::Result<Value> {
    let name = &context.node_name;
    let client = &context.client;
    let requests = kube::core::Request::new(LEASES);
    let seconds = context.config.lease_duration.as_secs();
    if let Some(known) = known {
        let wanted = renewed(known, name, seconds, Timestamp::now());
        let request = requests.replace(name, &PostParams::default(), serde_json::to_vec(&wanted)?)?;
        match client.request::<Value>(request).await {
            Ok(lease) => return Ok(lease),
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {}
            Err(error) => return Err(error).context("replace lease"),
        }
    }
    let request = requests.get(name, &kube::api::GetParams::default())?;
    match client.request::<Value>(request).await {
        Ok(lease) => {
            let wanted = renewed(lease, name, seconds, Timestamp::now());
            let request = requests.replace(name, &PostParams::default(), serde_json::to_vec(&wanted)?)?;
            client.request(request).await.context("replace lease")
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let owner = node_owner(context).await;
            let metadata = json!({"name": name, "namespace": "kube-node-lease", "ownerReferences": owner});
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata,
            });
            let lease = renewed(lease, name, seconds, Timestamp::now());
            let request = requests.create(&PostParams::default(), serde_json::to_vec(&lease)?)?;
            client.request(request).await.context("create lease")
        }
        Err(error) => Err(error).context("get lease"),
    }
}

/// The Node as owner, so that the lease goes with it; nobody while the Node is not registered.
async fn node_owner(context: &NodeContext) -> Vec<Value> {
    let name = &context.node_name;
    let Ok(request) = kube::core::Request::new("/api/v1/nodes").get(name, &kube::api::GetParams::default())
    else {
        return Vec::new();
    };
    match context.client.request::<Value>(request).await {
        Ok(node) => {
            vec![json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]})]
        }
        Err(error) => {
            tracing::debug!(%error, "the lease gets no owner yet");
            Vec::new()
        }
    }
}

/// The same lease, held by this node from now on.
fn renewed(mut lease: Value, name: &str, seconds: u64, now: Timestamp) -> Value {
    lease["spec"]["holderIdentity"] = name.into();
    lease["spec"]["leaseDurationSeconds"] = seconds.into();
    lease["spec"]["renewTime"] = time::format_micro(now).into();
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewing_keeps_the_rest() {
        let now = Timestamp::from_second(1_700_000_000).expect("in range");
        let lease =
            json!({"metadata": {"resourceVersion": "7"}, "spec": {"renewTime": "x", "leaseTransitions": 1}});
        assert_eq!(
            renewed(lease, "n1", 40, now),
            json!({
                "metadata": {"resourceVersion": "7"},
                "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40, "leaseTransitions": 1,
                         "renewTime": "2023-11-14T22:13:20.000000Z"},
            })
        );
    }
}
