//! Endpoints: the older form of a Service's addresses, one object with all of them, for clients that still read it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DeleteParams;

use crate::context::Context;
use crate::endpoint_slice::{desired, follow_pods};
use crate::runtime::object::{
    ObjectKey, deleting, finished, key_of, label, namespace, node_name, ready, selects,
};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "endpoint-controller";
const WIDTH: usize = 8;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The most addresses in one object.
const CAPACITY: usize = 1000;

struct Controller {
    services: Arc<Store<Service>>,
    pods: Arc<Store<Pod>>,
    endpoints: Arc<Store<Endpoints>>,
    writer: Writer<Endpoints>,
}

/// The controller of Endpoints.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        services: context.informers.all(),
        pods: context.informers.all(),
        endpoints: context.informers.all(),
        writer: context.writer(IDENTITY),
    };
    let queue = Arc::new(Queue::default());
    let sink = queue.clone();
    controller.services.on_change(move |change| sink.add(key_of(&change.object().metadata)));
    let sink = queue.clone();
    controller.endpoints.on_change(move |change| sink.add(key_of(&change.object().metadata)));
    follow_pods(&controller.pods, controller.services.clone(), queue.clone());
    let cancel = context.cancel.clone();
    async move {
        controller.services.wait_synced().await;
        controller.pods.wait_synced().await;
        controller.endpoints.wait_synced().await;
        drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

/// The subsets for a Service's pods, and whether some addresses found no room.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.as_ref();
    let publish = spec.and_then(|s| s.publish_not_ready_addresses) == Some(true);
    let has_ports = spec.is_some_and(|s| s.ports.iter().flatten().next().is_some());
    let family = desired::families(service).first().copied().unwrap_or("IPv4");
    let mut groups: BTreeMap<Vec<desired::Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> =
        BTreeMap::new();
    for pod in pods.iter().filter(|p| !finished(p) && (publish || !deleting(&p.metadata))) {
        let Some(ip) = desired::address(pod, family) else { continue };
        let ports = desired::ports(service, pod);
        if has_ports && ports.is_empty() {
            continue;
        }
        let address = EndpointAddress {
            ip,
            hostname: desired::hostname(service, pod),
            node_name: Some(node_name(pod)).filter(|n| !n.is_empty()).map(str::to_owned),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectReference::default()
            }),
        };
        let group = groups.entry(ports).or_default();
        if publish || ready(pod) { group.0.push(address) } else { group.1.push(address) }
    }
    let mut room = CAPACITY;
    let mut truncated = false;
    let mut cut = |list: &mut Vec<EndpointAddress>| {
        list.sort_by(|a, b| order(a).cmp(&order(b)));
        truncated |= list.len() > room;
        list.truncate(room);
        room -= list.len();
    };
    groups.values_mut().for_each(|(ready, _)| cut(ready));
    groups.values_mut().for_each(|(_, unready)| cut(unready));
    let subsets = (groups.into_iter())
        .filter(|(_, (ready, unready))| !ready.is_empty() || !unready.is_empty())
        .map(|(ports, (ready, unready))| EndpointSubset {
            addresses: Some(ready).filter(|a| !a.is_empty()),
            not_ready_addresses: Some(unready).filter(|a| !a.is_empty()),
            ports: Some(ports.iter().map(port).collect::<Vec<_>>()).filter(|p| !p.is_empty()),
        })
        .collect();
    (subsets, truncated)
}

fn order(address: &EndpointAddress) -> (Option<IpAddr>, Option<&String>) {
    (address.ip.parse().ok(), address.target_ref.as_ref().and_then(|t| t.uid.as_ref()))
}

fn port(port: &desired::Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()).filter(|n| !n.is_empty()),
        port: port.number.unwrap_or_default(),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

/// The object as it shall be; `None` if it is so already.
fn plan(service: &Service, pods: &[Arc<Pod>], there: Option<&Endpoints>) -> Option<Endpoints> {
    let (subsets, truncated) = subsets(service, pods);
    let subsets = Some(subsets).filter(|s| !s.is_empty());
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(MANAGED_BY.to_owned(), IDENTITY.to_owned());
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let mut endpoints = there.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    endpoints.metadata.labels = Some(labels);
    let mut annotations = endpoints.metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    endpoints.metadata.annotations = Some(annotations).filter(|a| !a.is_empty());
    endpoints.subsets = subsets;
    let same = there.is_some_and(|there| {
        let mut there = there.clone();
        there.subsets = there.subsets.filter(|s| !s.is_empty());
        there.metadata.annotations = there.metadata.annotations.filter(|a| !a.is_empty());
        there == endpoints
    });
    (!same).then_some(endpoints)
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let there = self.endpoints.get(&key);
        let Some(service) = self.services.get(&key) else {
            if let Some(there) = there.filter(|e| label(&e.metadata, MANAGED_BY) == Some(IDENTITY)) {
                self.writer.delete(&there, &DeleteParams::default(), false).await?;
            }
            return Ok(None);
        };
        if deleting(&service.metadata) {
            return Ok(None);
        }
        let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()) else { return Ok(None) };
        let pods: Vec<Arc<Pod>> = (self.pods.in_namespace(namespace(&service.metadata)).into_iter())
            .filter(|pod| selects(selector, &pod.metadata))
            .collect();
        let Some(endpoints) = plan(&service, &pods, there.as_deref()) else { return Ok(None) };
        let result = if there.is_some() {
            self.writer.replace(&endpoints).await
        } else {
            self.writer.create(&endpoints).await
        };
        match result {
            Err(error) if outcome::namespace_terminating(&error) => Ok(None),
            other => Ok(other.map(|_| None)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "labels": {"l": "1"}},
            "spec": {"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
                     "ports": [{"port": 80, "targetPort": "http"}]},
        }))
        .unwrap()
    }

    fn pod(name: &str, ip: &str, ready: bool, port: i32) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "ns", "uid": name},
                "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
                "status": {"phase": "Running", "podIPs": [{"ip": ip}, {"ip": "fd00::1"}],
                           "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn subsets_by_ports_sorted_by_address() {
        let pods = [
            pod("a", "10.1.0.10", true, 80),
            pod("b", "10.1.0.2", true, 80),
            pod("c", "10.1.0.3", false, 80),
            pod("d", "10.1.0.4", true, 81),
        ];
        let made = plan(&service(), &pods, None).unwrap();
        let shown = serde_json::to_value(&made.subsets).unwrap();
        let ips = |path: &str| shown.pointer(path).and_then(|v| v.as_str()).map(str::to_owned);
        assert_eq!(ips("/0/addresses/0/ip").as_deref(), Some("10.1.0.2"));
        assert_eq!(ips("/0/addresses/1/ip").as_deref(), Some("10.1.0.10"));
        assert_eq!(ips("/0/notReadyAddresses/0/ip").as_deref(), Some("10.1.0.3"));
        assert_eq!(ips("/1/addresses/0/ip").as_deref(), Some("10.1.0.4"));
        assert_eq!(shown.pointer("/1/ports/0/port"), Some(&json!(81)));
        assert_eq!(plan(&service(), &pods, Some(&made)), None);
        assert!(plan(&service(), &pods[1..], Some(&made)).is_some());
        assert_eq!(plan(&service(), &[], Some(&made)).unwrap().subsets, None);
    }

    #[test]
    fn at_most_a_thousand_ready_ones_first() {
        let pods: Vec<_> = (0..1100)
            .map(|i| pod(&format!("p{i}"), &format!("10.1.{}.{}", i / 250, i % 250), i % 2 == 0, 80))
            .collect();
        let made = plan(&service(), &pods, None).unwrap();
        let subset = &made.subsets.unwrap()[0];
        assert_eq!(subset.addresses.as_ref().unwrap().len(), 550);
        assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 450);
        assert_eq!(made.metadata.annotations.unwrap()[OVER_CAPACITY], "truncated");
    }
}
