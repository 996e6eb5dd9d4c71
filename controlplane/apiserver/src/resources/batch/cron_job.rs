//! CronJobs.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::{Value, json};

use super::{job, schedule};
use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, object_at};
use crate::resources::pod_spec::{defaults, warnings};
use crate::resources::rules::{Errors, non_negative, required_one_of};
use crate::strategy::Strategy;

/// The strategy of `cronjobs`.
pub(crate) struct CronJobs;

impl Strategy for CronJobs {
    fn default(&self, object: &mut Value) {
        let spec = object_at(object, "spec");
        default_text(spec, "concurrencyPolicy", "Allow");
        default(spec, "suspend", false);
        default(spec, "successfulJobsHistoryLimit", 3);
        default(spec, "failedJobsHistoryLimit", 1);
        // The Job's own defaults follow when the Job is made; its pods' are filled in here.
        defaults::template(object_at(spec, "jobTemplate.spec.template"));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (path, spec) = (Path::new("spec"), object.at("spec"));
        times(&mut errors, &path, spec);
        let policy = path.child("concurrencyPolicy");
        let known = ["Allow", "Forbid", "Replace"];
        required_one_of(&mut errors, &policy, spec.text("concurrencyPolicy"), &known);
        for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            non_negative(&mut errors, &path.child(field), spec.int(field));
        }
        job::validate_spec(&mut errors, &path.child("jobTemplate.spec"), spec.at("jobTemplate.spec"));
        if object.text("metadata.name").len() > MAX_NAME {
            let text = format!("must be no more than {MAX_NAME} characters");
            errors.push(FieldError::invalid("metadata.name", object.text("metadata.name"), text));
        }
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::workload(object, old, "spec.jobTemplate.spec.template")
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = cells::containers(object, "spec.jobTemplate.spec.template.spec.containers");
        let last = match object.has("status.lastScheduleTime") {
            true => cells::since(object, "status.lastScheduleTime", now),
            false => cells::NONE.to_owned(),
        };
        let suspend = match object.some_flag("spec.suspend") {
            None => "<unset>",
            Some(true) => "True",
            Some(false) => "False",
        };
        vec![
            cells::name(object),
            object.text("spec.schedule").into(),
            cells::or_none(object.text("spec.timeZone")),
            suspend.into(),
            json!(object.items("status.active").len()),
            last.into(),
            cells::age(object, now),
            names,
            images,
            cells::selector(object, "spec.jobTemplate.spec.selector"),
        ]
    }
}

/// Jobs are named after their CronJob, with eleven characters more.
const MAX_NAME: usize = 52;

fn times(errors: &mut Errors, path: &Path, spec: &Value) {
    let (when, path_of) = (spec.text("schedule"), path.child("schedule"));
    if when.is_empty() {
        errors.push(FieldError::required(path_of, ""));
    } else if when.contains("TZ=") {
        let text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(path_of, when, text));
    } else if let Some(complaint) = schedule::complaint(when) {
        errors.push(FieldError::invalid(path_of, when, complaint));
    }
    let Some(zone) = spec.some_text("timeZone") else { return };
    let text = match zone {
        "" => "timeZone must be nil or non-empty string".to_owned(),
        _ if zone.eq_ignore_ascii_case("local") => {
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned()
        }
        // A machine without the database knows no zone; then none can be refused.
        _ if jiff::tz::db().is_definitively_empty() || TimeZone::get(zone).is_ok() => return,
        _ => format!("unknown time zone {zone}"),
    };
    errors.push(FieldError::invalid(path.child("timeZone"), zone, text));
}
