//! The controllers: each observes through shared informers, plans with a pure function, and applies by writes to
//! the API with an identity of its own.
//!
//! One file or folder per noun. A controller knows the runtime and no other controller; they meet only in objects.

use std::sync::Arc;

use ipnet::IpNet;
use kube::Client;
use tokio_util::sync::CancellationToken;

mod context;
pub mod runtime;

mod certificates;
mod cluster_role;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoints;
#[cfg(test)]
mod endurance;
mod garbage;
mod horizontal_pod_autoscaler;
mod job;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod not_enforced;
mod pod_gc;
mod pvc_protection;
mod replica_set;
mod resource_quota;
mod root_ca;
mod service_account;
mod stateful_set;
mod ttl_after_finished;

pub use context::{Identity, SHARED, identity};

/// Makes the client of a controller. The names are those of the service accounts in kube-system, such as
/// `deployment-controller`, and [`SHARED`] for the shared informers; [`identity`] says who that is.
pub type ClientFor = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// What the controllers need to be told.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// Where nodes' pod addresses come from: none, one, or one per family.
    pub cluster_cidrs: Vec<IpNet>,
    /// The prefix length of a node's IPv4 range.
    pub node_cidr_mask_v4: u8,
    /// The prefix length of a node's IPv6 range.
    pub node_cidr_mask_v6: u8,
    /// The cluster's root certificates in PEM, published in every namespace.
    pub service_account_ca: String,
    /// What signs approved CertificateSigningRequests; without it nobody does.
    pub signing_ca: Option<SigningCa>,
}

/// The cluster's CA with its key, as PEM texts.
#[derive(Clone)]
pub struct SigningCa {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for SigningCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningCa").finish_non_exhaustive()
    }
}

impl Default for ControllersConfig {
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            node_cidr_mask_v4: 24,
            node_cidr_mask_v6: 64,
            service_account_ca: String::new(),
            signing_ca: None,
        }
    }
}

/// Runs all controllers until cancelled. Returns early only if one of them ends by itself, which is a fault.
pub async fn run(
    client_for: ClientFor,
    config: ControllersConfig,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let context = context::Context::new(client_for, config, cancel.child_token());
    let controllers = vec![
        ("deployment", deployment::start(&context)),
        ("replicaset", replica_set::start(&context)),
        ("resourcequota", resource_quota::start(&context)),
        ("replicationcontroller", replica_set::start_replication(&context)),
        ("daemonset", daemon_set::start(&context)),
        ("endpointslice", endpoint_slice::start(&context)),
        ("certificates", certificates::start(&context)?),
        ("clusterrole-aggregation", cluster_role::start(&context)),
        ("endpoints", endpoints::start(&context)),
        ("endpointslice-mirroring", endpoint_slice::mirror::start(&context)),
        ("garbage-collector", garbage::start(&context)),
        ("horizontalpodautoscaler", horizontal_pod_autoscaler::start(&context)),
        ("job", job::start(&context)),
        ("cronjob", cron_job::start(&context)),
        ("ttl-after-finished", ttl_after_finished::start(&context)),
        ("disruption", disruption::start(&context)),
        ("statefulset", stateful_set::start(&context)),
        ("namespace", namespace::start(&context)),
        ("serviceaccount", service_account::start(&context)),
        ("root-ca-certificate-publisher", root_ca::start(&context)),
        ("node-lifecycle", node_lifecycle::start(&context)),
        ("taint-eviction", node_lifecycle::eviction::start(&context)),
        ("pod-garbage-collector", pod_gc::start(&context)),
        ("persistentvolumeclaim-protection", pvc_protection::start(&context)),
        ("node-ipam", node_ipam::start(&context)?),
        ("not-enforced", not_enforced::start(&context)),
    ];
    context.run(controllers).await
}
