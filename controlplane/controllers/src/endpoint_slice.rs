//! EndpointSlice: for each Service with a selector, the addresses of its pods in slices of at most a hundred.
//!
//! Each change is answered at once, and a slice that need not change is not written.

pub(crate) mod desired;
pub(crate) mod mirror;
mod plan;
mod topology;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::DeleteParams;

use crate::context::Context;
use crate::runtime::object::{
    ObjectKey, deleting, key_of, label, name, namespace, node_name, phase, ready, selects,
};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::recorder::{Note, Recorder};
use crate::runtime::store::{Change, Store};
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;
use plan::{Action, MANAGED_BY, MANAGER, SERVICE_NAME};

const IDENTITY: &str = "endpointslice-controller";
const WIDTH: usize = 8;
const BY_SERVICE: &str = "service";
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";

struct Controller {
    services: Arc<Store<Service>>,
    pods: Arc<Store<Pod>>,
    nodes: Arc<Store<Node>>,
    slices: Arc<Store<EndpointSlice>>,
    writer: Writer<EndpointSlice>,
    recorder: Recorder,
}

/// The controller of endpoint slices.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        services: context.informers.all(),
        pods: context.informers.all(),
        nodes: context.informers.all(),
        slices: context.informers.all(),
        writer: context.writer(IDENTITY),
        recorder: context.recorder(IDENTITY),
    };
    controller.slices.add_index(BY_SERVICE, |slice: &EndpointSlice| {
        let service = label(&slice.metadata, SERVICE_NAME);
        let ours = label(&slice.metadata, MANAGED_BY) == Some(MANAGER);
        service.filter(|_| ours).map(|s| format!("{}/{s}", namespace(&slice.metadata))).into_iter().collect()
    });
    let queue = Arc::new(Queue::default());
    subscribe(&controller, &queue);
    let cancel = context.cancel.clone();
    async move {
        controller.services.wait_synced().await;
        controller.pods.wait_synced().await;
        controller.nodes.wait_synced().await;
        controller.slices.wait_synced().await;
        drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

fn subscribe(controller: &Controller, queue: &Arc<Queue<ObjectKey>>) {
    let sink = queue.clone();
    controller.services.on_change(move |change| sink.add(key_of(&change.object().metadata)));
    follow_pods(&controller.pods, controller.services.clone(), queue.clone());
    let sink = queue.clone();
    controller.slices.on_change(move |change| {
        let meta = &change.object().metadata;
        if let Some(service) = label(meta, SERVICE_NAME) {
            sink.add(ObjectKey::namespaced(namespace(meta), service));
        }
    });
    // A node's zone is in every endpoint on it: a change is rare, and concerns all. What it brings to its zone concerns those that ask.
    let (sink, services) = (queue.clone(), controller.services.clone());
    controller.nodes.on_change(move |change| {
        let seen = |node: &Node| (label(&node.metadata, ZONE).map(str::to_owned), topology::weight(node));
        let before = match change {
            Change::Updated(old, _) => seen(old),
            _ => (None, None),
        };
        let now = match change {
            Change::Deleted(_) => (None, None),
            _ => seen(change.object()),
        };
        if before != now {
            let all = before.0 != now.0;
            let concerned = |service: &Arc<Service>| all || topology::is_auto(service);
            services.list().iter().filter(|s| concerned(s)).for_each(|s| sink.add(key_of(&s.metadata)));
        }
    });
}

/// Queues the Services that select a pod, before or after its change, if the change can be seen in endpoints.
pub(crate) fn follow_pods(pods: &Store<Pod>, services: Arc<Store<Service>>, queue: Arc<Queue<ObjectKey>>) {
    pods.on_change(move |change| {
        let now = change.object();
        let before = change.before();
        if before.is_some_and(|before| same_endpoint(before, now)) {
            return;
        }
        for service in services.in_namespace(namespace(&now.metadata)) {
            let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()) else { continue };
            let matched = selects(selector, &now.metadata)
                || before.is_some_and(|before| selects(selector, &before.metadata));
            if matched {
                queue.add(key_of(&service.metadata));
            }
        }
    });
}

/// Whether two states of a pod make the same endpoint.
fn same_endpoint(one: &Pod, other: &Pod) -> bool {
    let ips = |pod: &Pod| pod.status.as_ref().map(|s| (s.pod_ip.clone(), s.pod_ips.clone()));
    let terminal = |pod: &Pod| matches!(phase(pod), "Succeeded" | "Failed");
    ready(one) == ready(other)
        && deleting(&one.metadata) == deleting(&other.metadata)
        && terminal(one) == terminal(other)
        && node_name(one) == node_name(other)
        && one.metadata.labels == other.metadata.labels
        && ips(one) == ips(other)
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        // Without the Service the garbage collector takes the slices.
        let Some(service) = self.services.get(&key) else { return Ok(None) };
        let spec = service.spec.as_ref();
        let external = spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName");
        if external || deleting(&service.metadata) {
            return Ok(None);
        }
        let Some(selector) = spec.and_then(|s| s.selector.as_ref()) else { return Ok(None) };
        let place = namespace(&service.metadata);
        let pods: Vec<Arc<Pod>> = (self.pods.in_namespace(place).into_iter())
            .filter(|pod| selects(selector, &pod.metadata))
            .collect();
        let mut zones = BTreeMap::new();
        for pod in &pods {
            let node = node_name(pod);
            if !node.is_empty() && !zones.contains_key(node) {
                let found = self.nodes.get(&ObjectKey::cluster(node));
                let zone = found.and_then(|n| label(&n.metadata, ZONE).map(str::to_owned));
                zones.insert(node.to_owned(), zone);
            }
        }
        let existing = self.slices.by_index(BY_SERVICE, &key.to_string());
        let mut desired = desired::endpoints(&service, &pods, &zones);
        if topology::is_auto(&service) {
            self.give_to_zones(&service, &mut desired, &existing);
        }
        let actions = plan::plan(&service, desired, &existing);
        let results = join_all(actions.iter().map(|action| apply(&self.writer, action))).await;
        for result in results {
            if let Err(error) = result {
                if outcome::namespace_terminating(&error) {
                    return Ok(None);
                }
                if !outcome::conflict(&error) {
                    let text = format!(
                        "Error updating Endpoint Slices for Service {key}: {}",
                        outcome::message(&error)
                    );
                    self.recorder.note(&*service, &Note::warning("FailedToUpdateEndpointSlices", text));
                }
                return Err(error.into());
            }
        }
        Ok(None)
    }
}

impl Controller {
    /// Gives endpoints to zones, by the CPUs these have; says so when that begins to be possible, or is not.
    fn give_to_zones(
        &self,
        service: &Service,
        desired: &mut BTreeMap<desired::Group, Vec<Endpoint>>,
        existing: &[Arc<EndpointSlice>],
    ) {
        let nodes = self.nodes.list();
        let shares = topology::shares(nodes.iter().filter_map(|node| topology::weight(node)));
        for family in desired::families(service) {
            let mut given = BTreeMap::new();
            for endpoint in existing
                .iter()
                .filter(|slice| slice.address_type == family)
                .flat_map(|slice| slice.endpoints.iter().flatten())
            {
                let zone = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref()?.first());
                given.extend(zone.map(|zone| (endpoint.addresses.clone(), zone.name.clone())));
            }
            let groups = desired.iter_mut().filter(|(group, _)| group.family == family);
            let mut endpoints: Vec<&mut Endpoint> = groups.flat_map(|(_, endpoints)| endpoints).collect();
            let assigned = topology::assign(&mut endpoints, shares.as_ref(), |endpoint| {
                given.get(&endpoint.addresses).cloned()
            });
            match assigned {
                Ok(()) if given.is_empty() => {
                    let text = format!("Topology Aware Hints has been enabled, addressType: {family}");
                    self.recorder.note(service, &Note::normal("TopologyAwareHintsEnabled", text));
                }
                Ok(()) => {}
                Err(refusal) => {
                    let text = format!("{refusal}, addressType: {family}");
                    self.recorder.note(service, &Note::warning("TopologyAwareHintsDisabled", text));
                }
            }
        }
    }
}

/// Carries out one write.
async fn apply(writer: &Writer<EndpointSlice>, action: &Action) -> Result<(), kube::Error> {
    match action {
        Action::Create(slice) => writer.create(slice).await.map(drop),
        Action::Update(slice) => {
            tracing::trace!(slice = name(&slice.metadata), "slice updated");
            writer.replace(slice).await.map(drop)
        }
        Action::Delete(slice) => writer.delete(slice, &DeleteParams::default(), false).await,
    }
}
