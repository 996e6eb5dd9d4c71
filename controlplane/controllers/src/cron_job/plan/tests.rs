//! A CronJob and its Jobs at a time; then what is started and deleted.

use serde_json::{Value, json};

use super::*;

fn cron_job(spec: Value, status: Value) -> CronJob {
    let mut full = json!({"schedule": "*/10 * * * *", "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}},
        "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1});
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": "c", "namespace": "ns", "uid": "C", "creationTimestamp": "2024-01-01T00:05:00Z"},
        "spec": full, "status": status,
    }))
    .unwrap()
}

/// `name running|Complete|Failed minute-of-start`
fn job(text: &str) -> Arc<Job> {
    let field: Vec<&str> = text.split_whitespace().collect();
    let conditions =
        if field[1] == "running" { json!([]) } else { json!([{"type": field[1], "status": "True"}]) };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": field[0], "namespace": "ns", "uid": field[0], "annotations":
                {SCHEDULED: format!("2024-01-01T00:{}:00Z", field[2])}},
            "spec": {"template": {}},
            "status": {"conditions": conditions, "startTime": format!("2024-01-01T00:{}:00Z", field[2]),
                       "completionTime": format!("2024-01-01T00:{}:30Z", field[2])},
        }))
        .unwrap(),
    )
}

fn check(
    spec: Value,
    status: Value,
    jobs: &[&str],
    now: &str,
    create: Option<&str>,
    delete: &[&str],
    notes: &[&str],
) -> Plan {
    let jobs: Vec<_> = jobs.iter().map(|j| job(j)).collect();
    let plan = plan(&cron_job(spec, status), &jobs, now.parse().unwrap());
    let created = plan.create.as_ref().map(|(j, _)| name(&j.metadata));
    let deleted: Vec<&str> = plan.delete.iter().map(|j| name(&j.metadata)).collect();
    let told: Vec<&str> = plan.notes.iter().map(|n| n.reason).collect();
    assert_eq!((created, deleted.as_slice(), told.as_slice()), (create, delete, notes), "at {now}");
    plan
}

const TEN: &str = "c-28401130";
const TWENTY: &str = "c-28401140";

#[test]
fn starts_when_due() {
    let none = json!({});
    let early = check(none.clone(), none.clone(), &[], "2024-01-01T00:09:00Z", None, &[], &[]);
    assert_eq!(early.again, Some(Duration::from_millis(60_100)));
    let due = check(none.clone(), none.clone(), &[], "2024-01-01T00:10:00Z", Some(TEN), &[], &[]);
    let made = &due.create.unwrap().0.metadata;
    assert_eq!(
        made.annotations.as_ref().unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2024-01-01T00:10:00Z"
    );
    assert_eq!(made.labels.as_ref().unwrap()["a"], "b");
    let done = json!({"lastScheduleTime": "2024-01-01T00:10:00Z"});
    check(none.clone(), done, &[], "2024-01-01T00:10:30Z", None, &[], &[]);
    check(
        none.clone(),
        none.clone(),
        &[&format!("{TEN} running 10")],
        "2024-01-01T00:10:30Z",
        None,
        &[],
        &[],
    );
    check(json!({"suspend": true}), none.clone(), &[], "2024-01-01T00:10:00Z", None, &[], &[]);
    // Missed times come to one start, that of the last, unless that too is past its deadline.
    check(none.clone(), none.clone(), &[], "2024-01-01T00:25:00Z", Some(TWENTY), &[], &[]);
    check(json!({"startingDeadlineSeconds": 60}), none, &[], "2024-01-01T00:25:00Z", None, &[], &[]);
}

#[test]
fn concurrency() {
    let active = json!({"active": [{"name": "x", "uid": "x"}], "lastScheduleTime": "2024-01-01T00:10:00Z"});
    let at = "2024-01-01T00:20:00Z";
    check(json!({}), active.clone(), &["x running 10"], at, Some(TWENTY), &[], &[]);
    check(
        json!({"concurrencyPolicy": "Forbid"}),
        active.clone(),
        &["x running 10"],
        at,
        None,
        &[],
        &["JobAlreadyActive"],
    );
    check(
        json!({"concurrencyPolicy": "Replace"}),
        active.clone(),
        &["x running 10"],
        at,
        Some(TWENTY),
        &["x"],
        &[],
    );
    let ended = check(
        json!({"concurrencyPolicy": "Forbid"}),
        active.clone(),
        &["x Complete 10"],
        at,
        Some(TWENTY),
        &[],
        &["SawCompletedJob"],
    );
    assert_eq!(ended.status.last_successful_time.unwrap().0.to_string(), "2024-01-01T00:10:30Z");
    check(json!({"concurrencyPolicy": "Forbid"}), active, &[], at, Some(TWENTY), &[], &["MissingJob"]);
}

#[test]
fn what_was_lost_is_found() {
    // Started, but the status was never written.
    let at = "2024-01-01T00:12:00Z";
    let found = check(json!({}), json!({}), &[&format!("{TEN} running 10")], at, None, &[], &[]);
    assert_eq!(found.status.active.unwrap()[0].name.as_deref(), Some(TEN));
    assert_eq!(found.status.last_schedule_time.unwrap().0.to_string(), "2024-01-01T00:10:00Z");
    let ended = check(json!({}), json!({}), &[&format!("{TEN} Failed 10")], at, None, &[], &[]);
    assert_eq!((ended.status.active, ended.status.last_schedule_time.is_some()), (None, true));
    // Somebody's own Job is told of, and is in nobody's way.
    let forbid = json!({"concurrencyPolicy": "Forbid"});
    check(forbid, json!({}), &["mine running 10"], at, Some(TEN), &[], &["UnexpectedJob"]);
    let replace = json!({"concurrencyPolicy": "Replace"});
    check(replace, json!({}), &["mine running 10"], at, Some(TEN), &[], &["UnexpectedJob"]);
}

#[test]
fn times_of_a_zone() {
    let spec = json!({"schedule": "0 2 * * *", "timeZone": "Europe/Berlin"});
    let last = json!({"lastScheduleTime": "2024-01-01T01:00:00Z"});
    let plan = check(spec, last, &[], "2024-01-02T01:00:05Z", Some("c-28402620"), &[], &[]);
    let stamp = &plan.create.unwrap().0.metadata.annotations.unwrap()[SCHEDULED];
    assert_eq!(stamp, "2024-01-02T02:00:00+01:00");
    assert_eq!(plan.again, Some(Duration::from_millis(24 * 3_600_000 - 5_000 + 100)));
}

#[test]
fn old_jobs_go() {
    let last = json!({"lastScheduleTime": "2024-01-01T00:50:00Z"});
    check(
        json!({}),
        last,
        &["a Complete 10", "b Complete 20", "c Failed 30", "d Failed 40"],
        "2024-01-01T00:55:00Z",
        None,
        &["a", "c"],
        &[],
    );
}

#[test]
fn what_cannot_be_understood_is_told() {
    check(
        json!({"schedule": "x"}),
        json!({}),
        &[],
        "2024-01-01T00:10:00Z",
        None,
        &[],
        &["UnparseableSchedule"],
    );
    check(
        json!({"timeZone": "Moon/Crater"}),
        json!({}),
        &[],
        "2024-01-01T00:10:00Z",
        None,
        &[],
        &["UnknownTimeZone"],
    );
}
