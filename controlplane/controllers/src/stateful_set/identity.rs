//! What makes a pod of a StatefulSet itself: its ordinal, its name, its claims. Pure.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};

use crate::runtime::object::{controller_reference, label, name, set_label};
use crate::runtime::pods::from_template;
use crate::runtime::revisions::REVISION_HASH;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in a pod's name; `None` if the name is not one of this set's.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (parent, number) = name(&pod.metadata).rsplit_once('-')?;
    let plain = number.bytes().all(|b| b.is_ascii_digit()) && (number == "0" || !number.starts_with('0'));
    (parent == name(&set.metadata) && plain).then(|| number.parse().ok()).flatten()
}

/// The first ordinal.
pub(super) fn first(set: &StatefulSet) -> i32 {
    set.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0)
}

/// The template that a revision holds; `None` if it holds something else.
pub(super) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut value = revision.data.0.pointer("/spec/template")?.clone();
    value.as_object_mut()?.remove("$patch");
    serde_json::from_value(value).ok()
}

/// The name of an ordinal's pod.
pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", name(&set.metadata))
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}", name(&template.metadata), pod_name(set, ordinal))
}

fn identity_labels(set: &StatefulSet, ordinal: i32) -> [(&'static str, String); 2] {
    [(POD_NAME, pod_name(set, ordinal)), (POD_INDEX, ordinal.to_string())]
}

/// The labels that say who a pod is and that it lacks, as may be after an adoption.
pub(super) fn missing_labels(set: &StatefulSet, pod: &Pod) -> Vec<(&'static str, String)> {
    let Some(ordinal) = ordinal(set, pod) else { return Vec::new() };
    let mut labels = identity_labels(set, ordinal).to_vec();
    labels.retain(|(key, value)| label(&pod.metadata, key) != Some(value));
    labels
}

/// The pod of an ordinal.
pub(super) fn pod(set: &StatefulSet, template: &PodTemplateSpec, ordinal: i32, revision: &str) -> Pod {
    let mut pod = from_template(&set.metadata, controller_reference(set), template);
    let own_name = pod_name(set, ordinal);
    pod.metadata.generate_name = Some(format!("{}-", name(&set.metadata)));
    pod.metadata.name = Some(own_name.clone());
    for (label, value) in identity_labels(set, ordinal) {
        set_label(&mut pod.metadata, label, value);
    }
    set_label(&mut pod.metadata, REVISION_HASH, revision);
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(own_name);
    spec.subdomain = set.spec.service_name.clone().filter(|s| !s.is_empty());
    for template in set.spec.volume_claim_templates.iter().flatten() {
        let volume_name = name(&template.metadata).to_owned();
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|v| v.name != volume_name);
        volumes.push(Volume {
            name: volume_name,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, template, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    pod
}

/// Whether a claim's name is that of a pod of this set.
pub(super) fn may_claim(set: &StatefulSet, claim: &str) -> bool {
    let set_name = name(&set.metadata);
    set.spec.volume_claim_templates.iter().flatten().any(|template| {
        let rest = claim.strip_prefix(name(&template.metadata)).and_then(|r| r.strip_prefix('-'));
        rest.and_then(|r| r.strip_prefix(set_name)).is_some_and(|r| r.starts_with('-'))
    })
}

/// The claims of an ordinal.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    templates
        .map(|template| {
            let mut claim = template.clone();
            claim.metadata.name = Some(claim_name(set, template, ordinal));
            claim.metadata.namespace = set.metadata.namespace.clone();
            claim.status = None;
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
            claim
        })
        .collect()
}
