//! What a CronJob should do next: which Job to start, which to end, and which to forget.
//!
//! Source: `pkg/controller/cronjob/cronjob_controllerv2.go`.

mod schedule;

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use crate::owner::controller_ref;
pub use schedule::Schedule;

/// On a Job: the time for which it was started.
pub const SCHEDULED_TIMESTAMP: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// So many missed times are told as too many.
const MISSED_MAX: i64 = 100;

/// What the decision may look at.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    pub cron: &'a CronJob,
    /// The Jobs that it controls.
    pub jobs: &'a [Arc<Job>],
    /// The zone of `spec.timeZone`, UTC without one; or why there is none of that name.
    pub zone: Result<&'a TimeZone, &'a str>,
    pub now: Timestamp,
}

/// What happened, for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// What to do, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub happenings: Vec<Happening>,
    /// Jobs that run and are to be replaced: their names.
    pub replace: Vec<String>,
    /// The Job to start, and for which time; then it goes into the status with [`Plan::started`].
    pub start: Option<(Box<Job>, Timestamp)>,
    /// To be published.
    pub status: CronJobStatus,
    /// Finished Jobs beyond the limits of history: their names.
    pub forget: Vec<String>,
    /// When the next one is due.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    /// The status once `job` was started for that time.
    pub fn started(&mut self, job: &Job, at: Timestamp) {
        self.status.active.get_or_insert_default().push(ObjectReference {
            api_version: Some("batch/v1".to_owned()),
            kind: Some("Job".to_owned()),
            name: job.metadata.name.clone(),
            namespace: job.metadata.namespace.clone(),
            uid: job.metadata.uid.clone(),
            resource_version: job.metadata.resource_version.clone(),
            ..ObjectReference::default()
        });
        self.status.last_schedule_time = Some(Time(at));
    }

    fn tell(&mut self, warning: bool, reason: &'static str, message: String) {
        self.happenings.push(Happening { warning, reason, message });
    }
}

/// The reference that Jobs have to their CronJob.
#[must_use]
pub fn cron_ref(cron: &CronJob) -> OwnerReference {
    controller_ref("batch/v1", "CronJob", &cron.metadata)
}

#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let status = observed.cron.status.clone().unwrap_or_default();
    let mut plan = Plan { status, ..Plan::default() };
    look_at_jobs(observed, &mut plan);
    schedule_next(observed, &mut plan);
    forget_old(observed, &mut plan);
    plan.status.active = plan.status.active.take().filter(|active| !active.is_empty());
    plan
}

/// Takes note of Jobs that finished, went missing, or came from elsewhere.
fn look_at_jobs(observed: &Observed<'_>, plan: &mut Plan) {
    let mut active = plan.status.active.take().unwrap_or_default();
    for job in observed.jobs {
        let (name, known) = (name(&job.metadata), active.iter().any(|one| one.uid == job.metadata.uid));
        match (finished(job), known) {
            (None, false) => {
                let text = format!("Saw a job that the controller did not create or forgot: {name}");
                plan.tell(true, "UnexpectedJob", text);
            }
            (Some(how), true) => {
                active.retain(|one| one.uid != job.metadata.uid);
                plan.tell(false, "SawCompletedJob", format!("Saw completed job: {name}, condition: {how}"));
            }
            _ => {}
        }
        let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
        let newest = plan.status.last_successful_time.as_ref().map(|time| time.0);
        if finished(job) == Some("Complete") && completed.as_ref().map(|time| time.0) > newest {
            plan.status.last_successful_time = completed;
        }
    }
    active.retain(|one| {
        let there = observed.jobs.iter().any(|job| job.metadata.uid == one.uid);
        if !there {
            let text = format!("Active job went missing: {}", one.name.as_deref().unwrap_or_default());
            plan.tell(false, "MissingJob", text);
        }
        there
    });
    plan.status.active = Some(active);
}

/// Starts what is due.
fn schedule_next(observed: &Observed<'_>, plan: &mut Plan) {
    let (cron, now) = (observed.cron, observed.now);
    let spec = &cron.spec;
    if cron.metadata.deletion_timestamp.is_some() {
        return;
    }
    let zone = match observed.zone {
        Ok(zone) => zone,
        Err(why) => {
            let text = format!("invalid timeZone: {:?}: {why}", spec.time_zone.as_deref().unwrap_or_default());
            return plan.tell(true, "UnknownTimeZone", text);
        }
    };
    if spec.suspend == Some(true) {
        return;
    }
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(why) => {
            let text = format!("unparseable schedule: {:?} : {why}", spec.schedule);
            return plan.tell(true, "UnparseableSchedule", text);
        }
    };
    plan.wake_at = schedule.next(now, zone);
    let Some(due) = due(observed, &schedule, zone, plan) else { return };
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if deadline.is_some_and(|deadline| due.checked_add(deadline).is_ok_and(|last| last < now)) {
        let at = due.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z");
        return plan.tell(true, "MissSchedule", format!("Missed scheduled time to start a job: {at}"));
    }
    let job = new_job(cron, due, spec.time_zone.as_ref().map(|_| zone));
    let active = plan.status.active.clone().unwrap_or_default();
    let last = plan.status.last_schedule_time.as_ref().map(|time| time.0);
    if active.iter().any(|one| one.name == job.metadata.name) || last == Some(due) {
        return;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return plan.tell(false, "JobAlreadyActive", text.to_owned());
        }
        Some("Replace") => {
            plan.replace = active.into_iter().filter_map(|one| one.name).collect();
            plan.status.active = None;
        }
        _ => {}
    }
    plan.start = Some((Box::new(job), due));
}

/// The newest time that has come since the last one; older ones that were missed are not made up for.
fn due(observed: &Observed<'_>, schedule: &Schedule, zone: &TimeZone, plan: &mut Plan) -> Option<Timestamp> {
    let (cron, now) = (observed.cron, observed.now);
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let mut from = plan.status.last_schedule_time.as_ref().map_or(created, |time| time.0);
    if let Some(seconds) = cron.spec.starting_deadline_seconds {
        from = from.max(now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN));
    }
    let first = schedule.next(from, zone).filter(|first| *first <= now)?;
    let Some(second) = schedule.next(first, zone).filter(|second| *second <= now) else { return Some(first) };
    // A set of times may be long: leap to shortly before now, taking the first gap for all.
    let gap = second.duration_since(first).as_secs().max(1);
    let missed = now.duration_since(first).as_secs() / gap + 1;
    if missed > MISSED_MAX {
        let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.tell(true, "TooManyMissedTimes", text.to_owned());
    }
    let leap = first.checked_add(SignedDuration::from_secs((missed - 2).max(0) * gap)).unwrap_or(first);
    let mut newest = None;
    let mut at = schedule.next(leap.min(now), zone);
    while let Some(time) = at.filter(|time| *time <= now) {
        newest = Some(time);
        at = schedule.next(time, zone);
    }
    newest
}

/// The Job for that time. Its name follows from the time, so that no time is served twice.
fn new_job(cron: &CronJob, at: Timestamp, zone: Option<&TimeZone>) -> Job {
    let template = &cron.spec.job_template;
    let from = template.metadata.clone().unwrap_or_default();
    let zoned = at.to_zoned(zone.cloned().unwrap_or(TimeZone::UTC));
    let stamp =
        if zoned.offset().is_zero() { at.to_string() } else { zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() };
    let mut annotations = from.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_TIMESTAMP.to_owned(), stamp);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", name(&cron.metadata), at.as_second().div_euclid(60))),
            namespace: cron.metadata.namespace.clone(),
            labels: Some(from.labels.unwrap_or_default()),
            annotations: Some(annotations),
            owner_references: Some(vec![cron_ref(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The oldest finished Jobs beyond what is to be kept of each kind.
fn forget_old(observed: &Observed<'_>, plan: &mut Plan) {
    let spec = &observed.cron.spec;
    let limits = [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)];
    for (how, limit) in limits {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let mut of_kind: Vec<_> = observed.jobs.iter().filter(|job| finished(job) == Some(how)).collect();
        let started = |job: &Job| job.status.as_ref().and_then(|status| Some(status.start_time.as_ref()?.0));
        of_kind.sort_by_key(|job| Reverse((started(job), job.metadata.name.clone())));
        plan.forget.extend(of_kind.into_iter().skip(limit).map(|job| name(&job.metadata).to_owned()));
    }
    if let Some(active) = &mut plan.status.active {
        active.retain(|one| !one.name.as_ref().is_some_and(|name| plan.forget.contains(name)));
    }
}

/// `Complete` or `Failed`.
fn finished(job: &Job) -> Option<&'static str> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .filter(|condition| condition.status == "True")
        .find_map(|condition| ["Complete", "Failed"].into_iter().find(|kind| *kind == condition.type_))
}

fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod stories;
