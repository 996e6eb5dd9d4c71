//! The packet programs at this node's devices: as devices come and go, and before a new pod sends its first packet.
//!
//! Level-triggered: every pass compares what should be with what is. Must not know: how a program is attached
//! (`agent-datapath`), which device is what (`agent-core`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pagurus_agent_core::devices::{Device, DeviceKind, Rules, classify};
use pagurus_agent_datapath::devices::{DeviceError, Devices, Synced};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::NodeContext;
use crate::observe::devices::{self as observed, Changes, Seen};
use crate::report::events::about_node;

/// How often everything is compared though nothing is known to have changed, and how soon after a failure.
const LOOK: Duration = Duration::from_secs(60);
const LOOK_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The programs at devices, for everybody who makes devices. Without programs (yet) nothing is attached.
#[derive(Clone, Default)]
pub struct Attacher {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    devices: Mutex<Option<Devices>>,
    installed: Notify,
}

impl Attacher {
    /// The programs are loaded: from here on devices get them.
    pub fn install(&self, devices: Devices) {
        *self.shared.devices.lock() = Some(devices);
        self.shared.installed.notify_one();
    }

    /// Gives the device of a pod its programs at once. Blocks for a few system calls. Until programs are loaded this does
    /// nothing: then every device that is there gets them.
    pub fn attach_pod(&self, ifindex: u32, name: &str) -> Result<(), DeviceError> {
        let mut devices = self.shared.devices.lock();
        let Some(devices) = devices.as_mut() else { return Ok(()) };
        let device = Device { ifindex, name: name.to_owned(), kind: DeviceKind::Pod };
        match devices.attach(&device).problems.into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }

    /// Attaches to exactly these; none if there are no programs yet.
    fn sync(&self, wanted: &[Device]) -> Option<Synced> {
        self.shared.devices.lock().as_mut().map(|devices| devices.sync(wanted))
    }
}

/// Keeps the devices right until cancelled, and publishes what is there.
pub async fn run(
    context: Arc<NodeContext>,
    attacher: Attacher,
    publish: watch::Sender<Arc<Seen>>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut changes = Changes::listen()?;
    let attached = Gauge::<i64>::default();
    context.metrics.register("devices", |registry| {
        registry.register("attached", "Network devices that have packet programs", attached.clone());
    });
    let shown = Arc::new(Mutex::new(Vec::<Device>::new()));
    let debug = shown.clone();
    context.debug.register("devices", move || {
        let devices = debug.lock();
        let shown = devices.iter().map(
            |device| json!({"name": device.name, "ifindex": device.ifindex, "kind": device.kind.to_string()}),
        );
        json!({"desired": shown.collect::<Vec<_>>()})
    });
    let mut told = BTreeSet::new();
    loop {
        let (rules, attacher_of_pass) = (rules(&context), attacher.clone());
        let pass = tokio::task::spawn_blocking(move || pass(&attacher_of_pass, rules));
        let problems = match pass.await.context("a pass over the network devices").flatten() {
            Ok((seen, devices, synced)) => {
                publish.send_if_modified(|published| {
                    let is_news = **published != seen;
                    if is_news {
                        *published = Arc::new(seen);
                    }
                    is_news
                });
                if synced.is_some() {
                    attached.set(i64::try_from(devices.len()).unwrap_or(i64::MAX));
                }
                tell_changes(&mut shown.lock(), devices, synced.as_ref());
                synced.map(|synced| synced.problems.iter().map(chain).collect()).unwrap_or_default()
            }
            Err(error) => vec![format!("{error:#}")],
        };
        let wait = if problems.is_empty() { LOOK } else { LOOK_AFTER_FAILURE };
        tell_problems(&context, &mut told, problems);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = changes.next() => changed.context("listen to changes of network devices")?,
            () = attacher.shared.installed.notified() => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

fn rules(context: &NodeContext) -> Rules {
    let services = &context.config.services;
    Rules {
        uplinks: services.devices.clone(),
        pods: services.pod_devices.clone(),
        node_ips: context.node_ips.clone(),
        default_routes: BTreeSet::new(),
    }
}

/// One comparison: what is there, what of it should have programs, what was done.
fn pass(attacher: &Attacher, mut rules: Rules) -> anyhow::Result<(Seen, Vec<Device>, Option<Synced>)> {
    let seen = observed::look()?;
    rules.default_routes.clone_from(&seen.default_routes);
    let devices = classify(&seen.links, &rules);
    let synced = attacher.sync(&devices);
    Ok((seen, devices, synced))
}

fn tell_changes(shown: &mut Vec<Device>, devices: Vec<Device>, synced: Option<&Synced>) {
    if let Some(synced) = synced
        && synced.created + synced.replaced + synced.removed > 0
    {
        let uplinks: Vec<&str> = devices
            .iter()
            .filter(|device| device.kind == DeviceKind::Uplink)
            .map(|device| device.name.as_str())
            .collect();
        tracing::info!(
            created = synced.created,
            replaced = synced.replaced,
            removed = synced.removed,
            devices = devices.len(),
            ?uplinks,
            "packet programs attached"
        );
    }
    *shown = devices;
}

/// Each problem is told once, for as long as it is there.
fn tell_problems(context: &NodeContext, told: &mut BTreeSet<String>, problems: Vec<String>) {
    let now: BTreeSet<String> = problems.into_iter().collect();
    for problem in now.difference(told) {
        tracing::error!(problem, "packet programs are not at every device");
        context.events.warning(&about_node(&context.node_name), "PacketPrograms", problem.as_str());
    }
    *told = now;
}

fn chain(error: &DeviceError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
