//! Whether a CronJob starts a Job now, and which of its old ones go. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::schedule::Schedule;
use crate::runtime::object::{
    after_seconds, annotation, controller_reference, created, deleting, name, set_annotation, time, uid,
};
use crate::runtime::recorder::{Note, reference};

/// The annotation with the time for which a Job was started.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) delete: Vec<Arc<Job>>,
    /// The Job of a scheduled time.
    pub(super) create: Option<(Box<Job>, Timestamp)>,
    pub(super) status: CronJobStatus,
    pub(super) notes: Vec<Note>,
    pub(super) again: Option<Duration>,
}

/// Empty lists as the server shows them: absent.
pub(super) fn tidy(mut status: CronJobStatus) -> CronJobStatus {
    status.active = status.active.filter(|a| !a.is_empty());
    status
}

/// Notes a Job that was started for a time.
pub(super) fn started(status: &mut CronJobStatus, job: &Job, at: Timestamp) {
    let active = status.active.get_or_insert_default();
    if !active.iter().any(|a| a.uid == job.metadata.uid) {
        active.push(reference(job));
    }
    status.last_schedule_time = Some(time(at));
}

/// `Complete` or `Failed`, if the Job has ended.
fn ended(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.iter().flatten();
    let mut finished =
        conditions.filter(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"));
    finished.next().map(|c| c.type_.as_str())
}

/// Plans one pass.
pub(super) fn plan(cron_job: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron_job.status.clone().unwrap_or_default(), ..Plan::default() };
    account(cron_job, jobs, &mut plan);
    if !deleting(&cron_job.metadata) {
        history(cron_job, jobs, &mut plan);
        if cron_job.spec.suspend != Some(true) {
            start(cron_job, jobs, now, &mut plan);
        }
    }
    plan.status = tidy(plan.status);
    plan
}

/// When a Job was due, if it is one that the schedule started.
fn scheduled(cron_job: &CronJob, job: &Job) -> Option<Timestamp> {
    let at: Timestamp = annotation(&job.metadata, SCHEDULED)?.parse().ok()?;
    (name(&job.metadata) == job_name(cron_job, at)).then_some(at)
}

/// Brings the list of active Jobs up to date.
fn account(cron_job: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) {
    let mut active: Vec<ObjectReference> = plan.status.active.take().unwrap_or_default();
    for job in jobs {
        let job_name = name(&job.metadata);
        let listed = active.iter().position(|a| a.uid.as_deref() == Some(uid(&job.metadata)));
        let due = scheduled(cron_job, job);
        match (ended(job), listed) {
            // It was started, and only the note of it was lost.
            (None, None) if due.is_some() && !deleting(&job.metadata) => active.push(reference(&**job)),
            (None, None) if !deleting(&job.metadata) => {
                let text = format!("Saw a job that the controller did not create or forgot: {job_name}");
                plan.notes.push(Note::warning("UnexpectedJob", text));
            }
            (Some(how), Some(index)) => {
                active.remove(index);
                let text = format!("Saw completed job: {job_name}, condition: {how}");
                plan.notes.push(Note::normal("SawCompletedJob", text));
            }
            _ => {}
        }
        let last = plan.status.last_schedule_time.as_ref().map(|t| t.0);
        if due > last {
            plan.status.last_schedule_time = due.map(time);
        }
        let completed = job.status.as_ref().and_then(|s| s.completion_time.clone());
        if ended(job) == Some("Complete") && completed > plan.status.last_successful_time {
            plan.status.last_successful_time = completed;
        }
    }
    active.retain(|a| {
        let there = jobs.iter().any(|job| job.metadata.uid == a.uid);
        if !there {
            let text = format!("Active job went missing: {}", a.name.as_deref().unwrap_or_default());
            plan.notes.push(Note::normal("MissingJob", text));
        }
        there
    });
    plan.status.active = Some(active);
}

/// Ended Jobs beyond the limits, oldest first.
fn history(cron_job: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) {
    let limits = [
        ("Complete", cron_job.spec.successful_jobs_history_limit),
        ("Failed", cron_job.spec.failed_jobs_history_limit),
    ];
    for (how, limit) in limits {
        let Some(limit) = limit else { continue };
        let mut done: Vec<_> =
            jobs.iter().filter(|j| ended(j) == Some(how) && !deleting(&j.metadata)).cloned().collect();
        let surplus = done.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        done.sort_by_key(|job| {
            let started = job.status.as_ref().and_then(|s| s.start_time.as_ref().map(|t| t.0));
            (started, name(&job.metadata).to_owned())
        });
        plan.delete.extend(done.into_iter().take(surplus));
    }
}

/// The schedule and its time zone; a note about what is wrong with them.
fn timetable(cron_job: &CronJob) -> Result<(Schedule, TimeZone), Note> {
    let spec = &cron_job.spec;
    let schedule = Schedule::parse(&spec.schedule).map_err(|error| {
        let text = format!("unparseable schedule: {:?} : {error}", spec.schedule);
        Note::warning("UnparseableSchedule", text)
    })?;
    let zone = match spec.time_zone.as_deref() {
        None => TimeZone::UTC,
        Some(zone) => TimeZone::get(zone).map_err(|error| {
            Note::warning("UnknownTimeZone", format!("invalid timeZone: {zone:?}: {error}"))
        })?,
    };
    Ok((schedule, zone))
}

fn start(cron_job: &CronJob, jobs: &[Arc<Job>], now: Timestamp, plan: &mut Plan) {
    let spec = &cron_job.spec;
    let (schedule, zone) = match timetable(cron_job) {
        Ok(timetable) => timetable,
        Err(note) => return plan.notes.push(note),
    };
    let since = plan.status.last_schedule_time.as_ref().map_or(created(&cron_job.metadata), |t| t.0);
    plan.again = schedule.upcoming(since, now, &zone).map(|next| {
        Duration::try_from(next.duration_since(now)).unwrap_or_default() + Duration::from_millis(100)
    });
    let floor = spec.starting_deadline_seconds.map_or(Timestamp::MIN, |s| after_seconds(now, -s));
    let Some((at, many)) = schedule.latest(since, floor, now, &zone) else { return };
    if many {
        let text =
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.notes.push(Note::warning("TooManyMissedTimes", text));
    }
    let job = job_for(cron_job, at, &zone);
    if jobs.iter().any(|j| j.metadata.name == job.metadata.name) {
        // Two times within one minute come to one Job.
        plan.status.last_schedule_time = Some(time(at));
        return;
    }
    let active = plan.status.active.as_deref().unwrap_or_default();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return plan.notes.push(Note::normal("JobAlreadyActive", text));
        }
        Some("Replace") => {
            let listed = |job: &&Arc<Job>| active.iter().any(|a| a.uid == job.metadata.uid);
            let doomed = jobs.iter().filter(listed).filter(|j| !deleting(&j.metadata));
            plan.delete.extend(doomed.cloned());
            plan.status.active = None;
        }
        _ => {}
    }
    plan.create = Some((Box::new(job), at));
}

/// The name of the Job of a scheduled time: it says which, so that it is never started twice.
fn job_name(cron_job: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", name(&cron_job.metadata), at.as_second().div_euclid(60))
}

/// The Job of a scheduled time.
fn job_for(cron_job: &CronJob, at: Timestamp, zone: &TimeZone) -> Job {
    let template = &cron_job.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut job = Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron_job, at)),
            namespace: cron_job.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![controller_reference(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    };
    let local = at.to_zoned(zone.clone());
    let stamp = match local.offset().is_zero() {
        true => at.to_string(),
        false => local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    };
    set_annotation(&mut job.metadata, SCHEDULED, stamp);
    job
}

#[cfg(test)]
mod tests;
