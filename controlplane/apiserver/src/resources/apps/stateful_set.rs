//! StatefulSets.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::core::persistent_volume_claim;
use crate::resources::deprecations;
use crate::resources::fields::{Fields, default, default_text, existing, items_mut, object_at};
use crate::resources::internal::{self, STATEFUL_SET_ROLLING_UPDATE, STATEFUL_SET_STRATEGY};
use crate::resources::pod_spec::{defaults, warnings, workload};
use crate::resources::rules::{Errors, names, non_negative, one_of};
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
            default_text(claim, "kind", "PersistentVolumeClaim");
            default_text(claim, "apiVersion", "v1");
            persistent_volume_claim::default_claim(claim);
        }
        defaults::template(object_at(spec, "template"));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (path, spec) = (Path::new("spec"), object.at("spec"));
        policies(&mut errors, &path, spec);
        for field in ["replicas", "minReadySeconds"] {
            non_negative(&mut errors, &path.child(field), spec.int(field));
        }
        non_negative(&mut errors, &path.child("ordinals.start"), spec.int("ordinals.start"));
        let service = spec.text("serviceName");
        if !service.is_empty() {
            names(&mut errors, &path.child("serviceName"), service, labels::dns_label(service));
        }
        if let Some(selector) = workload::selector(&mut errors, &path, spec, "statefulset", "") {
            let template = path.child("template");
            workload::matching_labels(&mut errors, &template, spec.at("template"), &selector);
            workload::lasting_template(&mut errors, &template, &with_claims(spec), "StatefulSet");
        }
        for (i, claim) in spec.items("volumeClaimTemplates").iter().enumerate() {
            let path = path.child("volumeClaimTemplates").index(i).child("spec");
            persistent_volume_claim::spec(&mut errors, &path, claim.at("spec"));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate(object);
        let changeable = [
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ];
        let fixed = |object: &Value| {
            let mut spec = object.at("spec").clone();
            if let Some(fields) = spec.as_object_mut() {
                fields.retain(|name, _| !changeable.contains(&name.as_str()));
            }
            spec
        };
        if !crate::resources::fields::same(&fixed(object), &fixed(old)) {
            let text = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            errors.push(FieldError::forbidden("spec", text));
        }
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = warnings::changed_template(object, old, "spec.template");
        if old.is_some_and(|old| crate::resources::fields::same(object.at("spec"), old.at("spec"))) {
            return out;
        }
        for (i, claim) in object.items("spec.volumeClaimTemplates").iter().enumerate() {
            let path = Path::new("spec.volumeClaimTemplates").index(i).child("spec");
            deprecations::claim(&mut out, &path, claim.at("spec"));
        }
        if object.int("spec.revisionHistoryLimit") < 0 {
            out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
        out
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

fn policies(errors: &mut Errors, path: &Path, spec: &Value) {
    let policy = spec.text("podManagementPolicy");
    let policy_path = path.child("podManagementPolicy");
    match policy {
        "" => errors.push(FieldError::required(policy_path, "")),
        "OrderedReady" | "Parallel" => {}
        _ => {
            let text = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid(policy_path, policy, text));
        }
    }
    let update = path.child("updateStrategy");
    let strategy = spec.at("updateStrategy");
    let rolling = strategy.at("rollingUpdate");
    match strategy.text("type") {
        "" => errors.push(FieldError::required(&update, "")),
        "OnDelete" => {
            if !rolling.is_null() {
                let text = "only allowed for updateStrategy 'RollingUpdate'";
                let value = internal::shown(rolling, STATEFUL_SET_ROLLING_UPDATE);
                errors.push(FieldError::invalid(update.child("rollingUpdate"), value, text));
            }
        }
        "RollingUpdate" => {
            let path = update.child("rollingUpdate");
            non_negative(errors, &path.child("partition"), rolling.int("partition"));
            let unavailable = rolling.at("maxUnavailable");
            if !unavailable.is_null() {
                let path = path.child("maxUnavailable");
                workload::number_or_percent(errors, &path, unavailable);
                if workload::amount(unavailable) == 0 {
                    errors.push(FieldError::invalid(&path, unavailable.clone(), "cannot be 0"));
                }
                workload::at_most_all(errors, &path, unavailable);
            }
        }
        _ => {
            let text = "must be 'RollingUpdate' or 'OnDelete'";
            let value = internal::shown(strategy, STATEFUL_SET_STRATEGY);
            errors.push(FieldError::invalid(&update, value, text));
        }
    }
    for field in ["whenDeleted", "whenScaled"] {
        let path = path.child("persistentVolumeClaimRetentionPolicy").child(field);
        let policy = spec.at("persistentVolumeClaimRetentionPolicy").text(field);
        one_of(errors, &path, policy, &["Retain", "Delete"]);
    }
}

/// The template as its pods will have it: with a volume for each claim.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec.at("template").clone();
    let claims = spec.items("volumeClaimTemplates").iter().map(|claim| {
        let name = claim.text("metadata.name");
        json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
    });
    let mut volumes: Vec<Value> = Vec::new();
    for claim in claims {
        if !volumes.contains(&claim) {
            volumes.push(claim);
        }
    }
    let own = template.items("spec.volumes").iter();
    let own: Vec<Value> =
        own.filter(|v| !volumes.iter().any(|c| c.text("name") == v.text("name"))).cloned().collect();
    volumes.extend(own);
    object_at(&mut template, "spec")["volumes"] = volumes.into();
    template
}
