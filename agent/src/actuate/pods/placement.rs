//! Whether this node is one that a pod wants to be on, for pods that were given to it by hand or by a scheduler that knew
//! other labels. Must not decide: `agent/core` does.

use pagurus_agent_core::pods::admit::Rejection;
use pagurus_agent_core::pods::admit::affinity::{self, Labels};

use super::{Desired, Host, operations};

/// Why the node is none for a pod that it has not seen before. Without an answer of the API server the scheduler is
/// believed.
pub(super) async fn rejection(host: &Host, desired: &Desired) -> Option<Rejection> {
    let pod = &desired.pod;
    let is_new = !desired.gone && !pod.is_terminating() && !pod.status["startTime"].is_string();
    if !is_new || desired.rejected.is_some() {
        return None;
    }
    let labels = if affinity::asks_for_labels(&pod.spec) {
        match host.api.node_labels(&pod.spec.node_name).await {
            Ok(labels) => labels,
            Err(error) => {
                tracing::warn!(%error, "whether the pod may run on this node is not known; it is taken");
                return None;
            }
        }
    } else {
        Labels::new()
    };
    let rejection = affinity::check(&pod.spec, &pod.spec.node_name, &labels)?;
    tracing::info!(reason = rejection.reason, "the node does not take the pod");
    host.events.warning(&operations::about(pod), &rejection.reason, rejection.message.clone());
    Some(rejection)
}
