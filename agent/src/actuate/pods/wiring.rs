//! Puts the pods' subsystem together on a node. The only file here that knows where everything comes from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pagurus_agent_core::names::PodUid;
use pagurus_agent_core::pods::Pod;
use pagurus_agent_core::pods::network::ClusterDns;
use pagurus_agent_core::pods::probes::ProbeResults;
use pagurus_controlplane_api::quantity::{Format, Quantity};
use pagurus_cri_api::Runtime;
use tokio_util::sync::CancellationToken;

use super::{Host, Insight, ProbeSource, insight, wakeups};
use crate::actuate::log_rotation;
use crate::actuate::probes::{Prober, Running};
use crate::actuate::volumes::PodDirs;
use crate::config::NodeContext;
use crate::index::objects::ObjectWatches;
use crate::index::service_links::ServiceLinks;
use crate::observe::containers::Observer;
use crate::observe::machine;
use crate::observe::pods::PodTable;
use crate::report::pod_status::PodClient;

/// How long to wait before asking a runtime again that does not answer.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);

impl ProbeSource for Prober {
    fn set(&self, pod: &Arc<Pod>, ip: Option<IpAddr>, running: Vec<Running>) {
        Prober::set(self, pod, ip, running);
    }

    fn results(&self, pod: &PodUid) -> ProbeResults {
        Prober::results(self, pod)
    }

    fn forget(&self, pod: &PodUid) {
        Prober::forget(self, pod);
    }
}

/// Runs the pods of this node until cancelled: watches, probes and workers. `table` shows how they are; `links` is what
/// they are told of Services.
pub async fn run_node(
    context: Arc<NodeContext>,
    table: PodTable,
    links: ServiceLinks,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let Some(runtime_name) = runtime_name(&*context.runtime, &cancel).await else { return Ok(()) };
    let ready = context.readiness.register("pods");
    let (waker, wakeups) = wakeups();
    let probes = Prober::new(&context, {
        let waker = waker.clone();
        move |pod: &PodUid| waker.wake(pod)
    });
    let objects = ObjectWatches::new(context.client.clone(), move |pod: &PodUid| waker.wake(pod));
    let resources = machine::resources(&context.config);
    let host = Host {
        runtime: context.runtime.clone(),
        runtime_name,
        observer: Observer::new(context.runtime.clone()),
        api: Arc::new(PodClient::new(context.client.clone())),
        objects,
        links,
        probes: Arc::new(probes.clone()),
        events: context.events.clone(),
        insight: Insight::register(&context.metrics, &table),
        table: table.clone(),
        dirs: PodDirs { root: context.config.root_dir.clone(), logs: context.config.pod_logs_dir.clone() },
        host_ips: context.node_ips.clone(),
        cluster_dns: ClusterDns {
            servers: context.config.cluster_dns.clone(),
            domain: context.config.cluster_domain.clone(),
        },
        serves_dns: context.config.dns_server,
        resolv_conf: context.config.resolv_conf.clone(),
        cgroups_per_qos: true,
        memory: i64::try_from(resources.memory).unwrap_or(i64::MAX),
        allocatable: allocatable(&resources),
    };
    let events = crate::index::pods::pods(context.client.clone(), &context.node_name);
    ready.ready();
    context.debug.register("pods", {
        let table = table.clone();
        move || insight::debug_state(&table)
    });
    let limits = log_rotation::Limits {
        size: context.config.container_log_max_size,
        files: context.config.container_log_max_files,
    };
    tokio::try_join!(
        log_rotation::run(table, context.runtime.clone(), limits, cancel.clone()),
        probes.run(cancel.clone()),
        super::run(Arc::new(host), events, wakeups, cancel),
    )?;
    Ok(())
}

/// The runtime's name, once it answers; `None` if cancelled before that.
async fn runtime_name(runtime: &dyn Runtime, cancel: &CancellationToken) -> Option<String> {
    let mut told = false;
    loop {
        let answer = tokio::select! {
            () = cancel.cancelled() => return None,
            answer = runtime.version() => answer,
        };
        match answer {
            Ok(version) => return Some(version.runtime_name),
            Err(error) if !told => {
                told = true;
                tracing::warn!(%error, "the container runtime does not answer; no pod can run until it does");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = cancel.cancelled() => return None,
            () = tokio::time::sleep(RUNTIME_RETRY) => {}
        }
    }
}

fn allocatable(resources: &pagurus_agent_core::node::Resources) -> BTreeMap<String, Quantity> {
    let whole = |value: u64, format| Quantity::from_value(i64::try_from(value).unwrap_or(i64::MAX), format);
    BTreeMap::from([
        ("cpu".to_owned(), whole(resources.cpus, Format::DecimalSi)),
        ("memory".to_owned(), whole(resources.memory, Format::BinarySi)),
        ("pods".to_owned(), whole(u64::from(resources.pods), Format::DecimalSi)),
        ("ephemeral-storage".to_owned(), whole(resources.storage, Format::BinarySi)),
    ])
}
