//! The rules for Jobs and for the template of one in a CronJob.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::selectors::LabelSelector;
use serde_json::Value;

use super::policies;
use crate::resources::fields::{Fields, same, set};
use crate::resources::internal::{self, pod};
use crate::resources::pod_spec::{self, workload};
use crate::resources::rules::{
    Errors, IMMUTABLE, immutable, label_selector, non_negative, nothing, one_of, optional_one_of, shown,
};

/// What is wrong with a Job.
pub(super) fn job(job: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = job.at("spec");
    self::spec(&mut errors, &path, spec);
    selector(&mut errors, &path, job);
    last_pod_name(&mut errors, job);
    errors
}

/// The specification, but for the selector, which a CronJob's template does not have.
pub(crate) fn spec(errors: &mut Errors, path: &Path, spec: &Value) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(errors, &path.child(field), spec.int(field));
    }
    let indexed = spec.text("completionMode") == "Indexed";
    let mode = spec.some_text("completionMode");
    optional_one_of(errors, &path.child("completionMode"), mode, &["Indexed", "NonIndexed"]);
    if indexed && !spec.has("completions") {
        let text = "when completion mode is Indexed";
        errors.push(FieldError::required(path.child("completions"), text));
    }
    per_index(errors, path, spec, indexed);
    policies::check(errors, path, spec, indexed);
    let replacement = spec.some_text("podReplacementPolicy");
    let known: &[&str] =
        if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    optional_one_of(errors, &path.child("podReplacementPolicy"), replacement, known);
    template(errors, &path.child("template"), spec);
}

fn per_index(errors: &mut Errors, path: &Path, spec: &Value, indexed: bool) {
    if let Some(limit) = spec.some_int("backoffLimitPerIndex").filter(|_| !indexed) {
        let text = "requires indexed completion mode";
        errors.push(FieldError::invalid(path.child("backoffLimitPerIndex"), limit, text));
    }
    if let Some(most) = spec.some_int("maxFailedIndexes") {
        if !spec.has("backoffLimitPerIndex") {
            let text = "when maxFailedIndexes is specified";
            errors.push(FieldError::required(path.child("backoffLimitPerIndex"), text));
        }
        if spec.some_int("completions").is_some_and(|completions| most > completions) {
            let text = "must be less than or equal to completions";
            errors.push(FieldError::invalid(path.child("maxFailedIndexes"), most, text));
        }
    }
}

fn template(errors: &mut Errors, path: &Path, spec: &Value) {
    let template = spec.at("template");
    pod_spec::template(errors, path, template);
    let policy = template.text("spec.restartPolicy");
    let path = path.child("spec.restartPolicy");
    match policy {
        "" | "Always" => {
            let text = "valid values: \"OnFailure\", \"Never\"";
            errors.push(FieldError::required(&path, text));
        }
        _ => one_of(errors, &path, policy, &["OnFailure", "Never"]),
    }
    if spec.has("podFailurePolicy") && policy == "OnFailure" {
        let text = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(FieldError::invalid(&path, policy, text));
    }
}

fn selector(errors: &mut Errors, path: &Path, job: &Value) {
    let selector = job.at("spec.selector");
    let path_of = path.child("selector");
    if selector.is_null() {
        errors.push(FieldError::required(&path_of, ""));
    } else {
        label_selector(errors, &path_of, selector, false);
    }
    if let Ok(parsed) = LabelSelector::from_json(selector)
        && !parsed.matches_object(job.at("spec.template"))
    {
        let nothing = LabelSelector::nothing();
        workload::matching_labels(errors, &path.child("template"), job.at("spec.template"), &nothing);
    }
}

/// The pods of an Indexed Job are named after it: the longest of these names must be good.
fn last_pod_name(errors: &mut Errors, job: &Value) {
    let completions = job.int("spec.completions");
    if job.text("spec.completionMode") != "Indexed" || completions <= 0 {
        return;
    }
    let name = job.text("metadata.name");
    for complaint in labels::dns_label(&format!("{name}-{}", completions - 1)) {
        let text = format!("will not able to create pod with invalid DNS label: {complaint}");
        errors.push(FieldError::invalid("metadata.name", name, text));
    }
}

/// What is wrong with the change of a Job.
pub(super) fn change(job: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = self::job(job);
    let path = Path::new("spec");
    let (new, before) = (job.at("spec"), old.at("spec"));
    completions(&mut errors, &path.child("completions"), new, before);
    if !same(new.at("selector"), before.at("selector")) {
        let value = match new.at("selector") {
            Value::Null => nothing(),
            selector => shown(selector),
        };
        errors.push(FieldError::invalid(path.child("selector"), value, IMMUTABLE));
    }
    template_change(&mut errors, &path.child("template"), job, old);
    for (field, members) in
        [("podFailurePolicy", policies::FAILURE_POLICY), ("successPolicy", policies::SUCCESS_POLICY)]
    {
        if !same(new.at(field), before.at(field)) {
            let value = match new.at(field) {
                Value::Null => nothing(),
                policy => internal::shown(policy, members),
            };
            errors.push(FieldError::invalid(path.child(field), value, IMMUTABLE));
        }
    }
    for field in ["completionMode", "backoffLimitPerIndex", "managedBy"] {
        immutable(&mut errors, &path.child(field), new.at(field), before.at(field));
    }
    errors
}

/// Completions stay, unless an Indexed Job grows or shrinks with its parallelism.
fn completions(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let elastic = new.text("completionMode") == "Indexed"
        && new.has("completions")
        && new.at("completions") == new.at("parallelism");
    if !elastic {
        immutable(errors, path, new.at("completions"), old.at("completions"));
    } else if new.at("completions") != old.at("completions") && old.at("completions") != old.at("parallelism")
    {
        let text = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid(path, new.at("completions").clone(), text));
    }
}

/// The template stays; before the first start of a suspended Job, where its pods go and what they are labelled with may change.
fn template_change(errors: &mut Errors, path: &Path, job: &Value, old: &Value) {
    let (new, before) = (job.at("spec.template"), old.at("spec.template"));
    let waiting = old.flag("spec.suspend") && !old.has("status.startTime");
    if !waiting {
        if !same(new, before) {
            let value = internal::shown(new, pod::TEMPLATE);
            errors.push(FieldError::invalid(path, value, IMMUTABLE));
        }
        return;
    }
    let mut fixed = new.at("spec").clone();
    for field in ["affinity", "nodeSelector", "tolerations", "schedulingGates"] {
        let value = before.at("spec").at(field);
        set(&mut fixed, field, (!value.is_null()).then(|| value.clone()));
    }
    if !same(&fixed, before.at("spec")) {
        let value = internal::shown(&fixed, pod::SPEC);
        errors.push(FieldError::invalid(path.child("spec"), value, IMMUTABLE));
    }
}
