//! Names of pods, and the labels and annotations by which their containers are found again in the runtime.
//! Must not know what a pod is made of.

use std::fmt;

/// Namespace and name of a pod. Names are used again; for identity see [`PodUid`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl PodName {
    /// The pod `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The identity of a pod: never used twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PodUid(pub String);

impl PodUid {
    /// The text of the identity.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Labels and annotations in the runtime. They are the kubelet's, so that either can take over from the other.
pub mod runtime {
    /// Label of sandboxes and containers: name of the pod.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// Label of sandboxes and containers: namespace of the pod.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// Label of sandboxes and containers: identity of the pod.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// Label of containers: name of the container.
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    /// Annotation of containers: how often the container was started before.
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    /// Annotation of containers: how many of these restarts count for the back-off.
    pub const BACKOFF_STEP: &str = "pagurus.io/backoff-step";
    /// Annotation of containers: the image that the pod wanted when the container was made.
    pub const WANTED_IMAGE: &str = "pagurus.io/wanted-image";
    /// Annotation of containers: file with the last words.
    pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    /// Annotation of containers: where else to look for last words.
    pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    /// Annotation of containers: seconds a pod has to end.
    pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// Annotation of containers: the preStop handler as JSON.
    pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
    /// Annotation of containers: the ports as JSON.
    pub const PORTS: &str = "io.kubernetes.container.ports";
}
