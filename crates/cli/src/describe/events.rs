//! The events of an object, oldest first.

use jiff::Timestamp;
use serde_json::Value;

use super::Page;
use crate::print::{at, int};

/// Adds them.
pub(super) fn describe(page: &mut Page, events: &[Value], now: Timestamp) {
    if events.is_empty() {
        return page.line(0, "Events:\t<none>");
    }
    let mut events: Vec<&Value> = events.iter().collect();
    events.sort_by_key(|event| stead_machinery::time::parse(&event["lastTimestamp"]));
    page.line(0, "Events:");
    page.line(1, "Type\tReason\tAge\tFrom\tMessage");
    page.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let source = match at(event, "/source/component") {
            "" => at(event, "/reportingComponent"),
            component => component,
        };
        page.line(
            1,
            &format!(
                "{}\t{}\t{}\t{source}\t{}",
                at(event, "/type"),
                at(event, "/reason"),
                interval(event, now),
                at(event, "/message").trim()
            ),
        );
    }
}

/// How long ago an event happened, and how often since.
pub(crate) fn interval(event: &Value, now: Timestamp) -> String {
    let since = |time: &Value| stead_machinery::time::since(time, now);
    let first =
        if event["eventTime"].is_string() { since(&event["eventTime"]) } else { since(&event["firstTimestamp"]) };
    if event["series"].is_object() {
        let last = since(&event["series"]["lastObservedTime"]);
        return format!("{last} (x{} over {first})", int(event, "/series/count"));
    }
    match int(event, "/count") {
        count if count > 1 => format!("{} (x{count} over {first})", since(&event["lastTimestamp"])),
        _ => first,
    }
}
