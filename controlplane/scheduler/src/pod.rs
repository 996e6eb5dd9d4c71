//! A pod as the scheduler sees it, computed once per change. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, NodeAffinity, ObjectReference, Pod, Toleration};
use pagurus_controlplane_api::key::ObjectKey;

use crate::plugins::inter_pod_affinity::Terms;
use crate::plugins::node_affinity::Required;
use crate::plugins::topology_spread::Constraint;
use crate::plugins::volumes::{ClaimRef, claims};
use crate::resources::{Resources, requests};

/// A port of the node that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    /// `0.0.0.0` stands for all addresses.
    pub(crate) ip: String,
    pub(crate) protocol: String,
    pub(crate) port: i32,
}

/// The PodScheduled condition that a pod has: status, reason, message.
pub(crate) type Scheduled = (String, String, String);

/// What decisions need to know of a pod.
#[derive(Debug, Clone)]
pub(crate) struct PodInfo {
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    pub(crate) priority: i32,
    /// Its preemptionPolicy is Never.
    pub(crate) never_preempts: bool,
    pub(crate) scheduler: String,
    /// Empty before it is bound.
    pub(crate) node: String,
    pub(crate) deleting: bool,
    /// Succeeded or failed: takes no room any more.
    pub(crate) finished: bool,
    pub(crate) gates: Vec<String>,
    pub(crate) requests: Resources,
    pub(crate) scored: Resources,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) required: Required,
    pub(crate) affinity: Option<NodeAffinity>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) affinity_terms: Terms,
    pub(crate) spread: Vec<Constraint>,
    pub(crate) claims: Vec<ClaimRef>,
    /// The uid of its controller: pods of one controller spread.
    pub(crate) owner: Option<String>,
    pub(crate) condition: Option<Scheduled>,
    pub(crate) resource_version: Option<String>,
}

impl PodInfo {
    pub(crate) fn new(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let spec = pod.spec.clone().unwrap_or_default();
        let status = pod.status.as_ref();
        let (requests, scored) = requests(pod);
        let ports = host_ports(&spec);
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.clone());
        Self {
            key: ObjectKey { namespace: meta.namespace.clone(), name: text(&meta.name) },
            uid: text(&meta.uid),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            scheduler: spec.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".to_owned()),
            node: text(&spec.node_name),
            deleting: meta.deletion_timestamp.is_some(),
            finished: matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed")),
            gates: spec.scheduling_gates.iter().flatten().map(|g| g.name.clone()).collect(),
            requests,
            scored,
            ports,
            required: Required::new(spec.node_selector.as_ref(), affinity.as_ref()),
            affinity,
            tolerations: spec.tolerations.unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            affinity_terms: Terms::new(pod),
            spread: Constraint::all(pod),
            claims: claims(pod),
            owner: (meta.owner_references.iter().flatten())
                .find(|o| o.controller == Some(true))
                .map(|o| o.uid.clone()),
            condition: status
                .and_then(|s| s.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled"))
                .map(|c| (c.status.clone(), text(&c.reason), text(&c.message))),
            resource_version: meta.resource_version.clone(),
        }
    }

    /// Whether the pod still needs a node from a scheduler of this name.
    pub(crate) fn wants(&self, scheduler: &str) -> bool {
        self.node.is_empty() && !self.deleting && !self.finished && self.scheduler == scheduler
    }

    /// Whether other pods decide where this one can go.
    pub(crate) fn looks_at_pods(&self) -> bool {
        !self.affinity_terms.is_empty() || !self.spread.is_empty()
    }

    /// For events.
    pub(crate) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: self.key.namespace.clone(),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.clone()),
            resource_version: self.resource_version.clone(),
            field_path: None,
        }
    }

    /// The namespace, empty if there is none.
    pub(crate) fn namespace(&self) -> &str {
        self.key.namespace.as_deref().unwrap_or_default()
    }

    /// Whether a change from `old` can make an unschedulable pod schedulable.
    pub(crate) fn relieved_since(&self, old: &Self) -> bool {
        self.requests != old.requests
            || self.gates != old.gates
            || self.tolerations != old.tolerations
            || self.required != old.required
            || self.labels != old.labels
    }
}

fn host_ports(spec: &k8s_openapi::api::core::v1::PodSpec) -> Vec<HostPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let taken = |port: &ContainerPort| {
        let number = port.host_port.filter(|n| *n > 0)?;
        Some(HostPort {
            ip: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned()),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: number,
        })
    };
    spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten()).filter_map(taken).collect()
}
