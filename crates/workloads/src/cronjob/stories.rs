//! Stories told as tables: the CronJob, its Jobs, the time, and what is done.

use serde_json::{Value, json};

use super::*;

fn time(text: &str) -> Timestamp {
    format!("2026-11-20T{text}Z").parse().expect("a time")
}

fn cron(spec: &Value, status: Value) -> CronJob {
    let mut cron = json!({
        "metadata": {"name": "tick", "namespace": "ns", "uid": "c", "creationTimestamp": time("10:00:30").to_string()},
        "spec": {"schedule": "*/10 * * * *", "jobTemplate": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"template": {"spec": {"containers": []}}},
        }},
        "status": status,
    });
    for (key, value) in spec.as_object().expect("fields") {
        cron["spec"][key] = value.clone();
    }
    serde_json::from_value(cron).expect("a cron job")
}

/// `1000 runs`, `1010 Complete`: a Job named by its time of day, started then.
fn jobs(text: &str) -> Vec<Arc<Job>> {
    let job = |words: &str| {
        let (at, how) = words.split_once(' ').expect("two words");
        let started = time(&format!("{}:{}:00", &at[..2], &at[2..])).to_string();
        let conditions = if how == "runs" { json!([]) } else { json!([{"type": how, "status": "True"}]) };
        let job = json!({
            "metadata": {"name": format!("tick-{at}"), "uid": at},
            "status": {"startTime": started, "completionTime": (how == "Complete").then_some(started.clone()), "conditions": conditions},
        });
        Arc::new(serde_json::from_value(job).expect("a job"))
    };
    text.split(", ").filter(|text| !text.is_empty()).map(job).collect()
}

fn active(names: &[&str]) -> Value {
    names.iter().map(|at| json!({"name": format!("tick-{at}"), "uid": at})).collect()
}

/// What is done, in words.
fn told(plan: &Plan) -> String {
    let mut words: Vec<String> = plan.happenings.iter().map(|happening| happening.reason.to_owned()).collect();
    words.extend(plan.replace.iter().map(|name| format!("replace {name}")));
    words.extend(plan.start.as_ref().map(|(_, at)| format!("start {}", at.strftime("%H:%M"))));
    words.extend(plan.forget.iter().map(|name| format!("forget {name}")));
    let active = plan.status.active.iter().flatten().filter_map(|one| one.name.clone());
    words.extend(active.map(|name| format!("active {name}")));
    words.join(", ")
}

#[test]
fn what_is_done_when() {
    let last = |at: &str| json!({"lastScheduleTime": time(at).to_string()});
    let running = |at: &str| json!({"lastScheduleTime": time(at).to_string(), "active": active(&["1010"])});
    for (what, spec, status, jobs_there, now, expected) in [
        ("nothing is due yet", json!({}), json!({}), "", "10:09:59", ""),
        ("the first time comes", json!({}), json!({}), "", "10:10:00", "start 10:10"),
        ("it was served", json!({}), last("10:10:00"), "", "10:11:00", ""),
        ("only the newest missed time counts", json!({}), json!({}), "", "10:45:00", "start 10:40"),
        (
            "very many were missed",
            json!({"schedule": "* * * * *"}),
            json!({}),
            "",
            "12:00:05",
            "TooManyMissedTimes, start 12:00",
        ),
        ("too late", json!({"startingDeadlineSeconds": 60}), json!({}), "", "10:12:00", ""),
        ("just in time", json!({"startingDeadlineSeconds": 60}), json!({}), "", "10:10:59", "start 10:10"),
        ("suspended", json!({"suspend": true}), json!({}), "", "10:10:00", ""),
        ("rubbish", json!({"schedule": "rubbish"}), json!({}), "", "10:10:00", "UnparseableSchedule"),
        ("side by side", json!({}), running("10:10:00"), "1010 runs", "10:20:00", "start 10:20, active tick-1010"),
        (
            "one at a time",
            json!({"concurrencyPolicy": "Forbid"}),
            running("10:10:00"),
            "1010 runs",
            "10:20:00",
            "JobAlreadyActive, active tick-1010",
        ),
        (
            "the newest only",
            json!({"concurrencyPolicy": "Replace"}),
            running("10:10:00"),
            "1010 runs",
            "10:20:00",
            "replace tick-1010, start 10:20",
        ),
        ("done", json!({}), running("10:10:00"), "1010 Complete", "10:11:00", "SawCompletedJob"),
        ("failed", json!({}), running("10:10:00"), "1010 Failed", "10:11:00", "SawCompletedJob"),
        ("gone", json!({}), running("10:10:00"), "", "10:11:00", "MissingJob"),
        ("not ours", json!({}), last("10:10:00"), "1010 runs", "10:11:00", "UnexpectedJob"),
        (
            "history",
            json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0}),
            last("10:30:00"),
            "1000 Complete, 1020 Complete, 1010 Complete, 1030 Failed",
            "10:31:00",
            "forget tick-1010, forget tick-1000, forget tick-1030",
        ),
    ] {
        let (cron, jobs) = (cron(&spec, status), jobs(jobs_there));
        let plan = plan(&Observed { cron: &cron, jobs: &jobs, zone: Ok(&TimeZone::UTC), now: time(now) });
        assert_eq!(told(&plan), expected, "{what}");
    }
}

#[test]
fn the_job_carries_its_time_in_the_zone_of_the_schedule() {
    let cron = cron(&json!({"timeZone": "Europe/Berlin"}), json!({}));
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule");
    let mut plan = plan(&Observed { cron: &cron, jobs: &[], zone: Ok(&zone), now: time("10:10:03") });
    let (job, at) = plan.start.clone().expect("a job");
    assert_eq!(job.metadata.name.as_deref(), Some("tick-29919490"));
    let annotations = job.metadata.annotations.as_ref().expect("annotations");
    assert_eq!(annotations[SCHEDULED_TIMESTAMP], "2026-11-20T11:10:00+01:00");
    assert_eq!(job.metadata.labels.as_ref().expect("labels")["a"], "b");
    assert_eq!(job.metadata.owner_references.as_ref().expect("an owner")[0].kind, "CronJob");
    assert_eq!(plan.wake_at, Some(time("10:20:00")));
    plan.started(&job, at);
    assert_eq!(plan.status.last_schedule_time.map(|time| time.0), Some(time("10:10:00")));
    assert_eq!(plan.status.active.expect("active")[0].name, job.metadata.name);
}

#[test]
fn an_unknown_zone_is_told() {
    let cron = cron(&json!({"timeZone": "Europe/Atlantis"}), json!({}));
    let zone = Err("unknown time zone Europe/Atlantis");
    let plan = plan(&Observed { cron: &cron, jobs: &[], zone, now: time("10:10:03") });
    assert_eq!(plan.happenings[0].message, "invalid timeZone: \"Europe/Atlantis\": unknown time zone Europe/Atlantis");
    assert_eq!((plan.start, plan.wake_at), (None, None));
}

#[test]
fn the_last_success_is_remembered() {
    let cron = cron(&json!({}), json!({"lastScheduleTime": time("10:20:00").to_string()}));
    let jobs = jobs("1020 Complete, 1010 Complete");
    let plan = plan(&Observed { cron: &cron, jobs: &jobs, zone: Ok(&TimeZone::UTC), now: time("10:21:00") });
    assert_eq!(plan.status.last_successful_time.map(|time| time.0), Some(time("10:20:00")));
}
