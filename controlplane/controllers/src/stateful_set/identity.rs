//! What makes a pod of a StatefulSet itself: its ordinal, its name, its claims. Pure.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};

use crate::runtime::object::{controller_reference, name, set_label};
use crate::runtime::pods::from_template;
use crate::runtime::revisions::REVISION_HASH;

/// The ordinal in a pod's name; `None` if the name is not one of this set's.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (parent, number) = name(&pod.metadata).rsplit_once('-')?;
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (parent == name(&set.metadata) && plain).then(|| number.parse().ok()).flatten()
}

/// The first ordinal.
pub(super) fn first(set: &StatefulSet) -> i32 {
    set.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0)
}

/// The template that a revision holds; the set's own if it is unreadable.
pub(super) fn template_of(set: &StatefulSet, revision: &ControllerRevision) -> PodTemplateSpec {
    let mut value = revision.data.0.pointer("/spec/template").cloned().unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("$patch");
    }
    serde_json::from_value(value).unwrap_or_else(|_| set.spec.template.clone())
}

fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", name(&set.metadata))
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}", name(&template.metadata), pod_name(set, ordinal))
}

/// The pod of an ordinal.
pub(super) fn pod(set: &StatefulSet, template: &PodTemplateSpec, ordinal: i32, revision: &str) -> Pod {
    let mut pod = from_template(&set.metadata, controller_reference(set), template);
    let own_name = pod_name(set, ordinal);
    pod.metadata.generate_name = Some(format!("{}-", name(&set.metadata)));
    pod.metadata.name = Some(own_name.clone());
    set_label(&mut pod.metadata, "statefulset.kubernetes.io/pod-name", own_name.clone());
    set_label(&mut pod.metadata, "apps.kubernetes.io/pod-index", ordinal.to_string());
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
