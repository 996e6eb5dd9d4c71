//! NodeUnschedulable: a cordoned node takes only pods that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::tolerated;
use super::{Candidate, Reason};
use crate::pod::PodInfo;

pub(crate) fn filter(pod: &PodInfo, candidate: Candidate<'_>, reasons: &mut Vec<Reason>) {
    if !candidate.facts.unschedulable {
        return;
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if !tolerated(&taint, &pod.tolerations) {
        reasons.push(Reason::lasting("node(s) were unschedulable"));
    }
}
