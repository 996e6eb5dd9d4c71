//! What ReplicaSet and ReplicationController have in common, so that one controller serves both.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};

use crate::runtime::object::Matcher;

/// A set of so many pods of one template.
pub(super) trait Replicated {
    /// The service account of its controller.
    const IDENTITY: &'static str;

    /// How many pods it asks for.
    fn replicas(&self) -> i32;
    /// Which pods are its own; `None` if the selector is malformed.
    fn matcher(&self) -> Option<Matcher>;
    /// What its pods look like.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// How long a pod must be ready to count as available.
    fn min_ready_seconds(&self) -> i32;
    /// The status it has, as a ReplicaSet's.
    fn status(&self) -> ReplicaSetStatus;
    /// The same set with another status.
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Replicated for ReplicaSet {
    const IDENTITY: &'static str = "replicaset-controller";

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn matcher(&self) -> Option<Matcher> {
        Matcher::new(&self.spec.selector).filter(|m| !m.is_empty())
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.template.as_ref()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }
}

impl Replicated for ReplicationController {
    const IDENTITY: &'static str = "replication-controller";

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn matcher(&self) -> Option<Matcher> {
        let labels = self.spec.as_ref()?.selector.as_ref()?;
        Some(Matcher::from_map(labels)).filter(|m| !m.is_empty())
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            terminating_replicas: None,
            observed_generation: status.observed_generation,
            conditions: status.conditions.map(|list| {
                list.into_iter()
                    .map(|c| ReplicaSetCondition {
                        last_transition_time: c.last_transition_time,
                        message: c.message,
                        reason: c.reason,
                        status: Some(c.status),
                        type_: Some(c.type_),
                    })
                    .collect()
            }),
        }
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions: status.conditions.map(|list| {
                list.into_iter()
                    .map(|c| ReplicationControllerCondition {
                        last_transition_time: c.last_transition_time,
                        message: c.message,
                        reason: c.reason,
                        status: c.status.unwrap_or_default(),
                        type_: c.type_.unwrap_or_default(),
                    })
                    .collect()
            }),
        };
        Self { status: Some(status), ..self.clone() }
    }
}
