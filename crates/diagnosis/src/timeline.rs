//! What happened to an object and those that belong to it, in order.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use crate::snapshot::{Snapshot, claim_names, event_count, event_time, name};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// `pod/web-0`.
    pub object: String,
    /// The reason of an event, or what kind of thing it is: `Created`, `Ready=True`, `Changed`.
    pub what: String,
    pub text: String,
    /// How often it was seen.
    pub count: i32,
    /// When it was seen first, when it was seen more than once.
    #[serde(serialize_with = "as_text_option", skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Where it belongs within its second: the version of the event that tells of it, and whether before or after that.
    #[serde(skip)]
    order: (u64, u8),
}

fn as_text<S: serde::Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&at.to_string())
}

fn as_text_option<S: serde::Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => as_text(at, to),
        None => to.serialize_none(),
    }
}

/// The history of a set, its pods and its claims (also of those that exist no more), oldest first.
#[must_use]
pub fn of_set(snapshot: &Snapshot, set_name: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some(set) = snapshot.sets.get(set_name).found() {
        object(&mut entries, "statefulset", &set.metadata);
        for condition in set.status.iter().flat_map(|s| s.conditions.iter().flatten()) {
            let at = condition.last_transition_time.as_ref().map(|time| time.0);
            let text = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or_default();
            push(
                &mut entries,
                at,
                format!("statefulset/{set_name}"),
                state_of(condition.type_.as_deref(), condition.status.as_deref()),
                text,
            );
        }
        for revision in
            snapshot.revisions.values().filter(|revision| is_owned(&revision.metadata, set.metadata.uid.as_ref()))
        {
            let at = revision.metadata.creation_timestamp.as_ref().map(|time| time.0);
            let word = format!("controllerrevision/{}", name(&revision.metadata));
            push(
                &mut entries,
                at,
                word,
                "Created".to_owned(),
                &format!("revision {} of the template", revision.revision.unwrap_or_default()),
            );
        }
    }
    for pod in snapshot.pods.values().filter(|pod| is_member(set_name, name(&pod.metadata))) {
        of_pod_object(snapshot, &mut entries, pod);
    }
    let claim_fits = |claim: &str| {
        claim
            .rsplit_once('-')
            .is_some_and(|(rest, ordinal)| is_number(ordinal) && rest.ends_with(&format!("-{set_name}")))
    };
    for claim in snapshot.claims.values().filter(|claim| claim_fits(name(&claim.metadata))) {
        object(&mut entries, "persistentvolumeclaim", &claim.metadata);
    }
    let fits = |event: &&Event| {
        let own = event.involved_object.name.as_deref().unwrap_or_default();
        match event.involved_object.kind.as_deref() {
            Some("StatefulSet") => own == set_name,
            Some("Pod") => is_member(set_name, own),
            Some("PersistentVolumeClaim") => claim_fits(own),
            _ => false,
        }
    };
    entries.extend(snapshot.events.iter().filter(fits).filter_map(event));
    ordered(placed(snapshot, entries))
}

/// The history of one pod and its claims.
#[must_use]
pub fn of_pod(snapshot: &Snapshot, pod_name: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let pod = snapshot.pods.get(pod_name).found();
    let claims: Vec<String> = pod.into_iter().flat_map(claim_names).collect();
    if let Some(pod) = pod {
        of_pod_object(snapshot, &mut entries, pod);
    }
    for claim in claims.iter().filter_map(|claim| snapshot.claims.get(claim).found()) {
        object(&mut entries, "persistentvolumeclaim", &claim.metadata);
    }
    let fits = |event: &&Event| {
        let own = event.involved_object.name.as_deref().unwrap_or_default();
        match event.involved_object.kind.as_deref() {
            Some("Pod") => own == pod_name,
            Some("PersistentVolumeClaim") => claims.iter().any(|claim| claim == own),
            _ => false,
        }
    };
    entries.extend(snapshot.events.iter().filter(fits).filter_map(event));
    ordered(placed(snapshot, entries))
}

/// The history of any other object: its own times, and its events.
#[must_use]
pub fn of_any(snapshot: &Snapshot, kind: &str, meta: &ObjectMeta) -> Vec<Entry> {
    let mut entries = Vec::new();
    object(&mut entries, &kind.to_lowercase(), meta);
    let fits =
        |event: &&Event| event.involved_object.kind.as_deref() == Some(kind) && event.involved_object.name == meta.name;
    entries.extend(snapshot.events.iter().filter(fits).filter_map(event));
    ordered(placed(snapshot, entries))
}

fn state_of(kind: Option<&str>, status: Option<&str>) -> String {
    format!("{}={}", kind.unwrap_or_default(), status.unwrap_or_default())
}

fn is_member(set: &str, pod: &str) -> bool {
    pod.strip_prefix(set).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_owned(meta: &ObjectMeta, uid: Option<&String>) -> bool {
    meta.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == uid)
}

fn push(entries: &mut Vec<Entry>, at: Option<Timestamp>, object: String, what: String, text: &str) {
    if let Some(at) = at {
        entries.push(Entry { at, object, what, text: text.trim().to_owned(), count: 1, since: None, order: (0, 0) });
    }
}

/// Creation, deletion, and who changed it when.
fn object(entries: &mut Vec<Entry>, kind: &str, meta: &ObjectMeta) {
    let word = format!("{kind}/{}", name(meta));
    let made = meta.creation_timestamp.as_ref().map(|time| time.0);
    push(entries, made, word.clone(), "Created".to_owned(), "");
    let grace = meta.deletion_grace_period_seconds.unwrap_or(0);
    let deleted = meta
        .deletion_timestamp
        .as_ref()
        .and_then(|time| time.0.checked_sub(jiff::SignedDuration::from_secs(grace)).ok());
    push(entries, deleted, word.clone(), "Deleted".to_owned(), &format!("it may take {grace} s to end"));
    for fields in meta.managed_fields.iter().flatten() {
        // The status is told by conditions and events.
        if fields.subresource.as_deref().is_some_and(|sub| sub == "status") {
            continue;
        }
        let at = fields.time.as_ref().map(|time| time.0).filter(|at| Some(*at) != made);
        let by = fields.manager.as_deref().unwrap_or("somebody");
        let through = fields.subresource.as_deref().map(|sub| format!(" ({sub})")).unwrap_or_default();
        push(entries, at, word.clone(), "Changed".to_owned(), &format!("by {by}{through}"));
    }
}

fn of_pod_object(_: &Snapshot, entries: &mut Vec<Entry>, pod: &Pod) {
    object(entries, "pod", &pod.metadata);
    let word = format!("pod/{}", name(&pod.metadata));
    let Some(status) = &pod.status else { return };
    for condition in status.conditions.iter().flatten() {
        let at = condition.last_transition_time.as_ref().map(|time| time.0);
        let text = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or_default();
        push(entries, at, word.clone(), format!("{}={}", condition.type_, condition.status), text);
    }
    for container in status.init_container_statuses.iter().chain(&status.container_statuses).flatten() {
        of_container(entries, &word, container);
    }
}

fn of_container(entries: &mut Vec<Entry>, pod: &str, container: &ContainerStatus) {
    for state in [&container.last_state, &container.state].into_iter().flatten() {
        if let Some(running) = &state.running {
            push(
                entries,
                running.started_at.as_ref().map(|t| t.0),
                pod.to_owned(),
                "Running".to_owned(),
                &format!("container {}", container.name),
            );
        }
        if let Some(ended) = &state.terminated {
            let own = &container.name;
            push(
                entries,
                ended.started_at.as_ref().map(|t| t.0),
                pod.to_owned(),
                "Running".to_owned(),
                &format!("container {own}"),
            );
            let text = format!(
                "container {own}, exit code {}, reason {}",
                ended.exit_code,
                ended.reason.as_deref().unwrap_or("-")
            );
            push(entries, ended.finished_at.as_ref().map(|t| t.0), pod.to_owned(), "Ended".to_owned(), &text);
        }
    }
}

fn event(event: &Event) -> Option<Entry> {
    let kind = event.involved_object.kind.as_deref()?.to_lowercase();
    let count = event_count(event);
    let first = event.first_timestamp.as_ref().map(|t| t.0).or_else(|| event.event_time.as_ref().map(|t| t.0));
    Some(Entry {
        at: event_time(event)?,
        object: format!("{kind}/{}", event.involved_object.name.as_deref()?),
        what: event.reason.clone().unwrap_or_default(),
        text: event.message.as_deref().unwrap_or_default().trim().to_owned(),
        count,
        since: first.filter(|_| count > 1),
        order: (version(event), TOLD),
    })
}

/// The minor part of an order: what an event tells of comes before the event, what follows from it after.
const BEFORE: u8 = 0;
const TOLD: u8 = 1;
const AFTER: u8 = 2;

/// Versions only grow, so they put events of one second in order.
fn version(event: &Event) -> u64 {
    event.metadata.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Puts what has times of whole seconds only where the events say that it belongs.
fn placed(snapshot: &Snapshot, mut entries: Vec<Entry>) -> Vec<Entry> {
    let said = |entry: &Entry, reasons: &[&str], by_name: bool| {
        let own = entry.object.split_once('/').map_or("", |(_, own)| own);
        let about = |event: &&Event| match by_name {
            true => event.message.as_deref().is_some_and(|text| text.split(' ').any(|word| word == own)),
            false => event.involved_object.name.as_deref() == Some(own),
        };
        let told =
            snapshot.events.iter().filter(|event| reasons.contains(&event.reason.as_deref().unwrap_or_default()));
        let same_second = |event: &&Event| event_time(event).is_some_and(|at| at.as_second() == entry.at.as_second());
        told.filter(about).filter(same_second).map(version).max()
    };
    for entry in &mut entries {
        let (version, minor) = match entry.what.as_str() {
            "Created" if entry.object.starts_with("pod/") || entry.object.starts_with("persistentvolumeclaim/") => {
                (said(entry, &["SuccessfulCreate"], true), BEFORE)
            }
            "Created" | "Changed" => (Some(0), BEFORE),
            "Deleted" => (said(entry, &["SuccessfulDelete"], true), BEFORE),
            "Running" => (said(entry, &["Started"], false), BEFORE),
            "Ended" => (said(entry, &["Started"], false), AFTER),
            what if what.starts_with("PodScheduled=") => {
                (said(entry, &["Scheduled", "FailedScheduling"], false), BEFORE)
            }
            _ if entry.order.1 == TOLD => continue,
            _ => (None, AFTER),
        };
        entry.order = (version.unwrap_or(u64::MAX), minor);
    }
    entries
}

/// Oldest first; what is told twice in the same words becomes one entry with a count.
fn ordered(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by_key(|entry| (entry.at.as_second(), entry.order));
    let mut folded: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let same = folded
            .iter()
            .rposition(|one| (&one.object, &one.what, &one.text) == (&entry.object, &entry.what, &entry.text));
        // The newest time counts, as with events.
        match same {
            Some(at) => {
                let earlier = folded.remove(at);
                let since = earlier.since.unwrap_or(earlier.at);
                let count = earlier.count.saturating_add(entry.count);
                folded.push(Entry { since: (since != entry.at).then_some(since), count, ..entry });
            }
            None => folded.push(entry),
        }
    }
    folded
}

/// One line an entry: time of day (and day, when it changes), object, what, text.
#[must_use]
pub fn text(entries: &[Entry]) -> String {
    let width = |of: fn(&Entry) -> &str| entries.iter().map(|entry| of(entry).chars().count()).max().unwrap_or(0);
    let (objects, whats) = (width(|entry| &entry.object), width(|entry| &entry.what));
    let mut out = String::new();
    let mut day = String::new();
    for entry in entries {
        let stamp = entry.at.to_string();
        let (date, time) = stamp.split_once('T').unwrap_or(("", &stamp));
        if date != day {
            out.push_str(&format!("{date}\n"));
            day = date.to_owned();
        }
        let time = time.trim_end_matches('Z').split('.').next().unwrap_or_default();
        let often = match (entry.count, entry.since) {
            (..=1, _) => String::new(),
            (count, Some(since)) => {
                format!(" (x{count} over {})", crate::text::duration(entry.at.as_second() - since.as_second()))
            }
            (count, None) => format!(" (x{count})"),
        };
        let line = format!(
            "  {time}  {:objects$}  {:whats$}  {}{often}",
            entry.object,
            entry.what,
            entry.text.replace('\n', " ")
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
