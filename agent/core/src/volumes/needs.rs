//! Which config maps, secrets and tokens a pod refers to. Must not know whether they exist.

use std::collections::BTreeSet;

use crate::pods::spec::{ObjectVolume, Pod, TokenProjection, VolumeSource};

/// An object of the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// A config map.
    ConfigMap(String),
    /// A secret.
    Secret(String),
}

/// All config maps and secrets that the pod's volumes and environment refer to.
pub fn needs(pod: &Pod) -> BTreeSet<Need> {
    let mut out = volume_needs(pod);
    for (_, container) in pod.containers() {
        for source in &container.env_from {
            out.extend(source.config_map_ref.iter().map(|reference| Need::ConfigMap(reference.name.clone())));
            out.extend(source.secret_ref.iter().map(|reference| Need::Secret(reference.name.clone())));
        }
        for source in container.env.iter().filter_map(|variable| variable.value_from.as_ref()) {
            out.extend(
                source.config_map_key_ref.iter().map(|reference| Need::ConfigMap(reference.name.clone())),
            );
            out.extend(source.secret_key_ref.iter().map(|reference| Need::Secret(reference.name.clone())));
        }
    }
    out.extend(pod.spec.image_pull_secrets.iter().map(|reference| Need::Secret(reference.name.clone())));
    out
}

/// Those that the pod's volumes refer to: a change of them changes files.
pub fn volume_needs(pod: &Pod) -> BTreeSet<Need> {
    let config_map = |source: &ObjectVolume| Need::ConfigMap(source.name.clone());
    let secret = |source: &ObjectVolume| Need::Secret(source.name.clone());
    let mut out = BTreeSet::new();
    for volume in &pod.spec.volumes {
        match &volume.source {
            VolumeSource::ConfigMap(source) => {
                out.insert(config_map(source));
            }
            VolumeSource::Secret(source) => {
                out.insert(secret(source));
            }
            VolumeSource::Projected(projected) => {
                for part in &projected.sources {
                    out.extend(part.config_map.iter().map(config_map));
                    out.extend(part.secret.iter().map(secret));
                }
            }
            _ => {}
        }
    }
    out
}

/// The tokens that the pod's volumes show.
pub fn tokens(pod: &Pod) -> impl Iterator<Item = &TokenProjection> {
    let projected = pod.spec.volumes.iter().filter_map(|volume| match &volume.source {
        VolumeSource::Projected(projected) => Some(projected),
        _ => None,
    });
    projected.flat_map(|projected| &projected.sources).filter_map(|part| part.service_account_token.as_ref())
}
