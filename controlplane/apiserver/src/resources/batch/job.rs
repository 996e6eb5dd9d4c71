//! Jobs.

mod policies;
mod validate;

use jiff::Timestamp;
use pagurus_controlplane_api::conditions;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::time;
use serde_json::{Value, json};

use crate::registry::{FieldName, named};
use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, existing, items_mut, object_at};
use crate::resources::pod_spec::{defaults, warnings};
use crate::strategy::{Context, Strategy, drop_status};

pub(super) use validate::spec as validate_spec;

/// The label by which a Job finds its pods.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The label that carries the Job's name.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// The strategy of `jobs`.
pub(crate) struct Jobs;

/// Fills in a Job's specification.
fn default_spec(spec: &mut Value) {
    if !spec.has("completions") && !spec.has("parallelism") {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    let per_index = spec.has("backoffLimitPerIndex");
    default(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    let has_policy = spec.has("podFailurePolicy");
    default(spec, "podReplacementPolicy", if has_policy { "Failed" } else { "TerminatingOrFailed" });
    for rule in items_mut(spec, "podFailurePolicy.rules") {
        for pattern in items_mut(rule, "onPodConditions") {
            default_text(pattern, "status", "True");
        }
    }
    defaults::template(object_at(spec, "template"));
}

impl Strategy for Jobs {
    fn default(&self, object: &mut Value) {
        let labels = object.at("spec.template.metadata.labels").clone();
        if object.entries("metadata.labels").next().is_none()
            && labels.as_object().is_some_and(|labels| !labels.is_empty())
        {
            object_at(object, "metadata")["labels"] = labels;
        }
        let spec = object_at(object, "spec");
        default_spec(spec);
        default(spec, "manualSelector", false);
    }

    fn prepare_create(&self, context: &Context<'_>, object: &mut Value) {
        drop_status(context.resource, object);
        if !object.flag("spec.manualSelector") {
            let (name, uid) =
                (object.text("metadata.name").to_owned(), object.text("metadata.uid").to_owned());
            // Labels that were taken over from the template go on following it.
            let follow = crate::resources::fields::same(
                object.at("metadata.labels"),
                object.at("spec.template.metadata.labels"),
            );
            if let Some(spec) = existing(object, "spec") {
                generate_selector(spec, &name, &uid);
            }
            if follow {
                let labels = object.at("spec.template.metadata.labels").clone();
                object_at(object, "metadata")["labels"] = labels;
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate::job(object)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        validate::change(object, old)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::workload(object, old, "spec.template")
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn deletion_warning(&self) -> Option<&'static str> {
        Some(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning",
        )
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &[FieldName] {
        const { &[named("status.successful")] }
    }

    fn field(&self, object: &Value, _name: &str) -> Option<String> {
        Some(object.int("status.succeeded").to_string())
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = cells::containers(object, "spec.template.spec.containers");
        vec![
            cells::name(object),
            status(object).into(),
            completions(object).into(),
            duration(object, now).into(),
            cells::age(object, now),
            names,
            images,
            cells::selector(object, "spec.selector"),
        ]
    }
}

/// The selector and the pod labels by which a Job owns its pods and nobody else's.
fn generate_selector(spec: &mut Value, name: &str, uid: &str) {
    let labels = object_at(spec, "template.metadata.labels");
    for (key, value) in [("controller-uid", uid), (CONTROLLER_UID, uid), ("job-name", name), (JOB_NAME, name)]
    {
        labels[key] = value.into();
    }
    object_at(spec, "selector.matchLabels")[CONTROLLER_UID] = json!(uid);
}

fn status(job: &Value) -> &'static str {
    let is = |kind| conditions::is_true(job, kind);
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if job.has("metadata.deletionTimestamp") => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = job.int("status.succeeded");
    match (job.some_int("spec.completions"), job.int("spec.parallelism")) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let text = job.some_text("status.startTime");
    let Some(start) = text.and_then(time::parse) else { return String::new() };
    match job.some_text("status.completionTime").and_then(time::parse) {
        Some(end) => time::human_duration(time::seconds_between(start, end) * 1000),
        None => time::age(text, now),
    }
}
