//! CronJobs.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::{Fields, default, default_text, existing, object_at};
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
        if let Some(spec) = existing(spec, "jobTemplate.spec") {
            default_job_template(spec);
        }
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

/// The template of a Job only gets the defaults of its pods: the rest follows when the Job is made.
fn default_job_template(spec: &mut Value) {
    if let Some(template) = existing(spec, "template") {
        crate::resources::pod_spec::defaults::template(template);
    }
}
