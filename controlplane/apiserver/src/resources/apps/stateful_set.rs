//! StatefulSets.

use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, existing, items_mut, object_at};
use crate::resources::pod_spec::defaults;
use crate::strategy::Strategy;

/// The strategy of `statefulsets`.
pub(crate) struct StatefulSets;

impl Strategy for StatefulSets {
    fn default(&self, object: &mut Value) {
        let spec = object_at(object, "spec");
        default_text(spec, "podManagementPolicy", "OrderedReady");
        let strategy = object_at(spec, "updateStrategy");
        if strategy.text("type").is_empty() {
            default_text(strategy, "type", "RollingUpdate");
            default(object_at(strategy, "rollingUpdate"), "partition", 0);
        }
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = existing(strategy, "rollingUpdate")
        {
            default(rolling, "partition", 0);
            default(rolling, "maxUnavailable", 1);
        }
        let retention = object_at(spec, "persistentVolumeClaimRetentionPolicy");
        default_text(retention, "whenDeleted", "Retain");
        default_text(retention, "whenScaled", "Retain");
        default(spec, "replicas", 1);
        default(spec, "revisionHistoryLimit", 10);
        for claim in items_mut(spec, "volumeClaimTemplates") {
            crate::resources::core::persistent_volume_claim::default_claim(claim);
        }
        if let Some(template) = existing(spec, "template") {
            defaults::template(template);
        }
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = cells::containers(object, "spec.template.spec.containers");
        vec![
            cells::name(object),
            format!("{}/{}", object.int("status.readyReplicas"), object.int("spec.replicas")).into(),
            cells::age(object, now),
            names,
            images,
        ]
    }
}
