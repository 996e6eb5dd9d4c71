//! Mirroring: Endpoints that people write themselves, for Services without a selector, as slices, which is what nodes read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::apply;
use super::desired::{Group, Port};
use super::plan::{self, Action, MANAGED_BY, SERVICE_NAME};
use crate::context::Context;
use crate::runtime::children::follow_self;
use crate::runtime::object::{
    ObjectKey, annotation, controller_reference, deleting, key_of, label, name, namespace,
};
use crate::runtime::outcome;
use crate::runtime::queue::Queue;
use crate::runtime::recorder::{Note, Recorder};
use crate::runtime::store::Store;
use crate::runtime::worker::{Outcome, drive};
use crate::runtime::writer::Writer;

const IDENTITY: &str = "endpointslicemirroring-controller";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const WIDTH: usize = 4;
const BY_SERVICE: &str = "mirrored service";
/// Endpoints with this label are not mirrored: who writes them writes slices too.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints were once used for elections.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// The most addresses of a subset that are mirrored.
const CAPACITY: usize = 1000;

struct Controller {
    endpoints: Arc<Store<Endpoints>>,
    services: Arc<Store<Service>>,
    slices: Arc<Store<EndpointSlice>>,
    writer: Writer<EndpointSlice>,
    recorder: Recorder,
}

/// The controller of mirrored slices.
pub(crate) fn start(context: &Context) -> BoxFuture<'static, ()> {
    let controller = Controller {
        endpoints: context.informers.all(),
        services: context.informers.all(),
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
    follow_self(&controller.endpoints, queue.clone());
    follow_self(&controller.services, queue.clone());
    let sink = queue.clone();
    controller.slices.on_change(move |change| {
        let meta = &change.object().metadata;
        if let Some(service) = label(meta, SERVICE_NAME).filter(|_| label(meta, MANAGED_BY) == Some(MANAGER))
        {
            sink.add(ObjectKey::namespaced(namespace(meta), service));
        }
    });
    let cancel = context.cancel.clone();
    async move {
        controller.endpoints.wait_synced().await;
        controller.services.wait_synced().await;
        controller.slices.wait_synced().await;
        drive(IDENTITY, queue, WIDTH, cancel, |key| controller.reconcile(key)).await;
    }
    .boxed()
}

/// Whether Endpoints are mirrored: somebody has written them by hand for a Service.
fn mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let by_hand = service.is_some_and(|s| {
        let selector = s.spec.as_ref().and_then(|s| s.selector.as_ref());
        selector.is_none_or(BTreeMap::is_empty) && !deleting(&s.metadata)
    });
    by_hand
        && !deleting(&endpoints.metadata)
        && label(&endpoints.metadata, SKIP) != Some("true")
        && annotation(&endpoints.metadata, LEADER).is_none()
}

/// The endpoints of all subsets, by family and ports. An address that is both ready and not is ready.
fn desired(endpoints: &Endpoints) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let mut ports: Vec<Port> = (subset.ports.iter().flatten())
            .map(|port| Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                number: Some(port.port),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        ports.sort();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
        let mut seen = BTreeSet::new();
        for (address, ready) in ready.chain(unready).take(CAPACITY) {
            let family = match address.ip.parse() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => continue,
            };
            if seen.insert(address.ip.as_str()) {
                let group = Group { family, ports: ports.clone() };
                groups.entry(group).or_default().push(endpoint(address, ready));
            }
        }
    }
    groups
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

/// The writes for one object of Endpoints.
fn plan(
    endpoints: Option<&Endpoints>,
    service: Option<&Service>,
    existing: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let Some(endpoints) = endpoints.filter(|e| mirrored(e, service)) else {
        let alive = existing.iter().filter(|s| !deleting(&s.metadata));
        return alive.cloned().map(Action::Delete).collect();
    };
    let meta = &endpoints.metadata;
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name(meta).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| key != LAST_APPLIED && key != TRIGGER_TIME);
    let new = ObjectMeta {
        generate_name: Some(format!("{}-", name(meta))),
        namespace: meta.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|a| !a.is_empty()),
        owner_references: Some(vec![controller_reference(endpoints)]),
        ..ObjectMeta::default()
    };
    plan::plan_for(&new, desired(endpoints), existing)
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let endpoints = self.endpoints.get(&key);
        let service = self.services.get(&key);
        let existing = self.slices.by_index(BY_SERVICE, &key.to_string());
        let actions = plan(endpoints.as_deref(), service.as_deref(), &existing);
        for result in join_all(actions.iter().map(|action| apply(&self.writer, action))).await {
            match result {
                Err(error) if outcome::namespace_terminating(&error) => return Ok(None),
                Err(error) => {
                    if let Some(endpoints) = endpoints.as_deref().filter(|_| !outcome::conflict(&error)) {
                        let why = outcome::message(&error);
                        let place = key_of(&endpoints.metadata);
                        let text = format!("Error updating Endpoint Slices for Endpoints {place}: {why}");
                        self.recorder.note(endpoints, &Note::warning("FailedToUpdateEndpointSlices", text));
                    }
                    return Err(error.into());
                }
                Ok(()) => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(selector: Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "db", "namespace": "ns"}, "spec": {"selector": selector}}),
        )
        .unwrap()
    }

    fn endpoints(labels: Value, subsets: Value) -> Endpoints {
        serde_json::from_value(
            json!({"metadata": {"name": "db", "namespace": "ns", "uid": "E", "labels": labels}, "subsets": subsets}),
        )
        .unwrap()
    }

    fn subsets() -> Value {
        json!([{"addresses": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "hostname": "b"}],
                "notReadyAddresses": [{"ip": "192.0.2.3"}, {"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}],
                "ports": [{"name": "sql", "port": 5432}]}])
    }

    #[test]
    fn what_is_written_by_hand_is_mirrored() {
        let plain = endpoints(json!({"l": "1"}), subsets());
        let mut actions = plan(Some(&plain), Some(&service(Value::Null)), &[]);
        actions.sort_by_key(|a| matches!(a, Action::Create(s) if s.address_type == "IPv6"));
        let [Action::Create(v4), Action::Create(v6)] = actions.as_slice() else { panic!("{actions:?}") };
        let shown: Vec<(&str, Option<bool>)> = (v4.endpoints.iter().flatten())
            .map(|e| (e.addresses[0].as_str(), e.conditions.as_ref().and_then(|c| c.ready)))
            .collect();
        assert_eq!(shown, [("192.0.2.1", Some(true)), ("192.0.2.2", Some(true)), ("192.0.2.3", Some(false))]);
        assert_eq!(v4.ports.as_ref().unwrap()[0].port, Some(5432));
        assert_eq!((v6.address_type.as_str(), v6.endpoints.as_ref().unwrap().len()), ("IPv6", 1));
        let labels = v4.metadata.labels.as_ref().unwrap();
        assert_eq!(
            (labels["l"].as_str(), labels[MANAGED_BY].as_str(), labels[SERVICE_NAME].as_str()),
            ("1", MANAGER, "db")
        );
        assert_eq!(v4.metadata.owner_references.as_ref().unwrap()[0].kind, "Endpoints");
        // What is there already is not written again; without addresses nothing is left.
        let named = |slice: &EndpointSlice, name: &str| {
            let mut slice = slice.clone();
            (slice.metadata.name, slice.metadata.uid) = (Some(name.to_owned()), Some(name.to_owned()));
            Arc::new(slice)
        };
        let there = [named(v4, "a"), named(v6, "b")];
        assert_eq!(plan(Some(&plain), Some(&service(Value::Null)), &there), []);
        let empty = endpoints(json!({"l": "1"}), Value::Null);
        let gone = plan(Some(&empty), Some(&service(Value::Null)), &there);
        assert!(gone.len() == 2 && gone.iter().all(|a| matches!(a, Action::Delete(_))), "{gone:?}");
    }

    #[test]
    fn what_others_keep_is_not() {
        let plain = endpoints(json!({}), subsets());
        let skipped = endpoints(json!({SKIP: "true"}), subsets());
        let chooses = service(json!({"app": "db"}));
        let by_hand = service(Value::Null);
        for (endpoints, service, expected) in [
            (&plain, Some(&by_hand), true),
            (&plain, Some(&chooses), false),
            (&plain, None, false),
            (&skipped, Some(&by_hand), false),
        ] {
            assert_eq!(!plan(Some(endpoints), service, &[]).is_empty(), expected);
        }
    }
}
