//! When a schedule in the form of cron comes round.
//!
//! Rules of the library that upstream uses (robfig/cron): five fields, names of months and days, steps; when both days
//! are restricted either may match. Times that a change of the clock leaves out are skipped, those that it repeats
//! come twice.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

/// After this many days without a match there is none (29 February is at most 8 years away).
const DAYS_MAX: i64 = 366 * 9;
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A schedule that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// A bit for every value of each field that matches.
    Fields(Fields),
    /// That long after the last time.
    Every(SignedDuration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// One of the two kinds of days is not restricted: both have to match then, otherwise either.
    any_day: bool,
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What part of it cannot be understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let standard = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => match text.strip_prefix("@every ") {
                Some(duration) => return every(duration),
                None if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
                None => text,
            },
        };
        let parts: Vec<&str> = standard.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
        };
        Ok(Self::Fields(Fields {
            minutes: bits(minutes, 0, 59, &[])?,
            hours: bits(hours, 0, 23, &[])?,
            days: bits(days, 1, 31, &[])?,
            months: bits(months, 1, 12, &MONTHS)?,
            weekdays: bits(weekdays, 0, 6, &WEEKDAYS)?,
            any_day: is_any(days) || is_any(weekdays),
        }))
    }

    /// The first time after `after`; `None` when there is none in years.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(period) => Timestamp::from_second(after.as_second()).ok()?.checked_add(*period).ok(),
            Self::Fields(fields) => fields.next(after, zone),
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut at = Timestamp::from_second(after.as_second().div_euclid(60) * 60 + 60).ok()?;
        let last = after.checked_add(SignedDuration::from_hours(24 * DAYS_MAX)).unwrap_or(Timestamp::MAX);
        while at <= last {
            let civil = zone.to_datetime(at);
            at = if !has(self.months, civil.month()) {
                start_of(civil.date().last_of_month().tomorrow().ok()?, at, zone)?
            } else if !self.is_day(civil.date()) {
                start_of(civil.date().tomorrow().ok()?, at, zone)?
            } else if !has(self.hours, civil.hour()) {
                at.checked_add(i64::from(60 - civil.minute()).minutes()).ok()?
            } else if !has(self.minutes, civil.minute()) {
                at.checked_add(1.minute()).ok()?
            } else {
                return Some(at);
            };
        }
        None
    }

    fn is_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.any_day { day && weekday } else { day || weekday }
    }
}

/// The first moment of a day; always later than `at`, whatever the clocks do.
fn start_of(date: Date, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let midnight = zone.to_timestamp(DateTime::from_parts(date, jiff::civil::Time::midnight())).ok()?;
    Some(if midnight > at { midnight } else { at.checked_add(1.minute()).ok()? })
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits >> value & 1 == 1)
}

fn is_any(field: &str) -> bool {
    field.split(',').any(|part| matches!(part, "*" | "?" | "*/1" | "?/1"))
}

/// `1h30m`, `90s`: at least a second.
fn every(text: &str) -> Result<Schedule, String> {
    let wrong = || format!("failed to parse duration @every {text}: time: invalid duration {text:?}");
    let (mut total, mut rest) = (0.0_f64, text.trim());
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = &rest[digits..];
        let (seconds, length) = match unit {
            unit if unit.starts_with("ms") => (0.001, 2),
            unit if unit.starts_with('h') => (3600.0, 1),
            unit if unit.starts_with('m') => (60.0, 1),
            unit if unit.starts_with('s') => (1.0, 1),
            _ => return Err(wrong()),
        };
        total += number * seconds;
        rest = &unit[length..];
    }
    let period = SignedDuration::try_from_secs_f64(total).map_err(|_| wrong())?;
    Ok(Schedule::Every(SignedDuration::from_secs(period.as_secs().max(1))))
}

/// The values that a field matches.
fn bits(field: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, String> {
    let mut bits = 0;
    for part in field.split(',') {
        let (span, step) = part.split_once('/').map_or((part, None), |(span, step)| (span, Some(step)));
        let value = |text: &str| number(text, low, names);
        let (first, last) = match span.split_once('-') {
            _ if span == "*" || span == "?" => (low, high),
            Some((first, last)) => (value(first)?, value(last)?),
            None if step.is_some() => (value(span)?, high),
            None => (value(span)?, value(span)?),
        };
        let step = step.map_or(Ok(1), value)?;
        if step == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        if first < low {
            return Err(format!("beginning of range ({first}) below minimum ({low}): {part}"));
        }
        if last > high {
            return Err(format!("end of range ({last}) above maximum ({high}): {part}"));
        }
        if first > last {
            return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
        }
        let steps = usize::try_from(step).unwrap_or(usize::MAX);
        bits |= (first..=last).step_by(steps).fold(0, |bits, value| bits | 1 << value);
    }
    Ok(bits)
}

fn number(text: &str, low: u32, names: &[&str]) -> Result<u32, String> {
    if let Some(place) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(low + u32::try_from(place).unwrap_or(0));
    }
    text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// Central Europe as a rule, so that no data base is needed.
    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule")
    }

    #[test]
    fn the_next_times() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-11-20T14:00:00Z", "2026-11-20T14:01:00Z"),
            ("* * * * *", "2026-11-20T14:00:59Z", "2026-11-20T14:01:00Z"),
            ("*/15 * * * *", "2026-11-20T14:46:00Z", "2026-11-20T15:00:00Z"),
            ("0 0 29 2 *", "2026-11-20T14:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 12 * * mon-fri", "2026-11-20T12:00:00Z", "2026-11-23T12:00:00Z"),
            ("0 0 13 * 5", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"),
            ("0 0 */13 * 5", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"),
            ("0 0 13 * ?", "2026-11-01T00:00:00Z", "2026-11-13T00:00:00Z"),
            ("5 4 1 jan,jul *", "2026-11-20T14:00:00Z", "2027-01-01T04:05:00Z"),
            ("10-20/5 1 * * *", "2026-11-20T01:10:00Z", "2026-11-20T01:15:00Z"),
            ("@hourly", "2026-11-20T14:00:00Z", "2026-11-20T15:00:00Z"),
            ("@every 1h30m", "2026-11-20T14:00:07Z", "2026-11-20T15:30:07Z"),
            ("@every 1ms", "2026-11-20T14:00:07Z", "2026-11-20T14:00:08Z"),
        ] {
            let parsed = Schedule::parse(schedule).expect("a schedule");
            assert_eq!(parsed.next(time(after), &TimeZone::UTC), Some(time(expected)), "{schedule}");
        }
        let never = Schedule::parse("0 0 31 2 *").expect("a schedule");
        assert_eq!(never.next(time("2026-11-20T14:00:00Z"), &TimeZone::UTC), None);
    }

    #[test]
    fn times_are_those_of_the_zone() {
        let daily = Schedule::parse("30 2 * * *").expect("a schedule");
        let next = |after: &str| daily.next(time(after), &berlin()).expect("a time").to_string();
        assert_eq!(next("2026-11-20T14:00:00Z"), "2026-11-21T01:30:00Z");
        assert_eq!(next("2026-07-20T14:00:00Z"), "2026-07-21T00:30:00Z");
        // On 29 March 2026 there is no half past two; on 25 October there are two.
        assert_eq!(next("2026-03-28T01:30:00Z"), "2026-03-30T00:30:00Z");
        assert_eq!(next("2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(next("2026-10-25T00:30:00Z"), "2026-10-25T01:30:00Z");
        assert_eq!(next("2026-10-25T01:30:00Z"), "2026-10-26T01:30:00Z");
    }

    #[test]
    fn what_cannot_be_understood_is_said() {
        for (text, expected) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("9-3 * * * *", "beginning of range (9) beyond end of range (3): 9-3"),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(Schedule::parse(text), Err(expected.to_owned()));
        }
        for wrong in ["x * * * *", "@every", "@every soon", "@every 5", "@every -1h"] {
            assert!(Schedule::parse(wrong).is_err(), "{wrong}");
        }
    }
}
