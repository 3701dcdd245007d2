//! Events for users to read (`kubectl get events`), written aside so that no loop ever waits for them.
//!
//! Correlation is upstream's (`k8s.io/client-go/tools/record/events_cache.go`): the same event again counts up the
//! one that exists; more than ten alike within ten minutes become one "(combined from similar events)"; and an object
//! has 25 events at once, then one every five minutes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde_json::json;
use stead_client::{Class, Client, classify, message};
use tokio::sync::mpsc;

use crate::Clock;

/// Events that may wait to be written; what comes on top is dropped and logged.
pub const EVENTS_WAITING_MAX: usize = 1000;
/// Groups and events that are remembered; the longest unused one is forgotten first.
const REMEMBERED_MAX: usize = 4096;
/// This many different messages of one group are told one by one, within [`SIMILAR_WITHIN`].
const SIMILAR_MAX: usize = 10;
const SIMILAR_WITHIN: SignedDuration = SignedDuration::from_secs(600);
/// Events that one source may tell of one object at once ...
const BURST: f64 = 25.0;
/// ... and how fast it may go on: one every five minutes.
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
const COMBINED: &str = "(combined from similar events): ";

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    Normal,
    Warning,
}

impl Severity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One thing that happened to one object, before correlation.
#[derive(Clone, Debug)]
pub struct EventRecord {
    pub regarding: ObjectReference,
    pub severity: Severity,
    pub reason: String,
    pub message: String,
}

/// Tells events in the name of one component. Cheap to clone; never waits.
#[derive(Clone)]
pub struct Recorder {
    clock: Clock,
    queue: mpsc::Sender<(Timestamp, EventRecord)>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("room", &self.queue.capacity()).finish_non_exhaustive()
    }
}

impl Recorder {
    /// A recorder for `component` (`statefulset-controller`) on `host` (empty for the control plane). Starts the
    /// writing task, which ends with the last clone; must be called within a tokio runtime.
    #[must_use]
    pub fn new(client: Client, component: &str, host: &str, clock: Clock) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(Timestamp, EventRecord)>(EVENTS_WAITING_MAX);
        let source = EventSource {
            component: Some(component.to_owned()),
            host: Some(host.to_owned()).filter(|host| !host.is_empty()),
        };
        let mut correlator = Correlator::new(source);
        tokio::spawn(async move {
            while let Some((now, record)) = waiting.recv().await {
                if let Some(told) = correlator.correlate(&record, now) {
                    let stored = write(&client, &told).await;
                    correlator.stored(&told, stored);
                }
            }
        });
        Self { clock, queue }
    }

    /// A recorder that drops everything, for tests of what has nothing to do with events.
    #[must_use]
    pub fn silent(clock: Clock) -> Self {
        let (queue, _) = mpsc::channel(1);
        Self { clock, queue }
    }

    /// Tells that something happened to `object`.
    pub fn event<K>(&self, object: &K, severity: Severity, reason: &str, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.event_ref(object.object_ref(&()), severity, reason, message);
    }

    /// The same for an object that is known by reference only.
    pub fn event_ref(&self, regarding: ObjectReference, severity: Severity, reason: &str, message: impl Into<String>) {
        let record = EventRecord { regarding, severity, reason: reason.to_owned(), message: message.into() };
        if let Err(mpsc::error::TrySendError::Full((_, lost))) = self.queue.try_send(((self.clock)(), record)) {
            tracing::warn!(reason = lost.reason, message = lost.message, "too many events wait: one is dropped");
        }
    }
}

/// What is to be written for one record: a new event, or a higher count of one that exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub event: Event,
    /// Whether an event of this name was written before.
    pub again: bool,
    identity: Identity,
}

/// Everything but the message: what makes events similar.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    namespace: String,
    object: String,
    kind: String,
    severity: Severity,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    group: Group,
    message: String,
}

/// Decides what to write. Pure: the time comes in as an argument.
#[derive(Debug)]
pub struct Correlator {
    source: EventSource,
    similar: Recent<Group, Similar>,
    written: Recent<Identity, Written>,
    buckets: Recent<String, Bucket>,
}

#[derive(Clone, Debug, Default)]
struct Similar {
    messages: HashSet<String>,
    last: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Written {
    name: String,
    count: i32,
    first: Timestamp,
}

#[derive(Clone, Debug)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

impl Correlator {
    #[must_use]
    pub fn new(source: EventSource) -> Self {
        Self { source, similar: Recent::new(), written: Recent::new(), buckets: Recent::new() }
    }

    /// What to write for `record` at `now`; `None` when the object had too many events lately.
    pub fn correlate(&mut self, record: &EventRecord, now: Timestamp) -> Option<Told> {
        let group = Group {
            namespace: record.regarding.namespace.clone().unwrap_or_default(),
            object: format!(
                "{}/{}/{}",
                record.regarding.name.as_deref().unwrap_or_default(),
                record.regarding.uid.as_deref().unwrap_or_default(),
                record.regarding.field_path.as_deref().unwrap_or_default()
            ),
            kind: record.regarding.kind.clone().unwrap_or_default(),
            severity: record.severity,
            reason: record.reason.clone(),
        };
        let combined = self.combines(&group, &record.message, now);
        let text = if combined { format!("{COMBINED}{}", record.message) } else { record.message.clone() };
        let identity = Identity { group, message: if combined { COMBINED.to_owned() } else { text.clone() } };
        let before = self.written.get(&identity).cloned();
        let written = match &before {
            Some(old) => Written { count: old.count + 1, ..old.clone() },
            None => Written { name: event_name(record, now), count: 1, first: now },
        };
        let event = self.event(record, text, &written, now);
        // Counted even when it is not told, so that the next one says how many there were.
        self.written.put(identity.clone(), written);
        if !self.may_tell(record, now) {
            return None;
        }
        Some(Told { event, again: before.is_some(), identity })
    }

    /// Takes note of how writing went: what could not be written is a new event next time.
    pub fn stored(&mut self, told: &Told, stored: bool) {
        if !stored {
            self.written.remove(&told.identity);
        }
    }

    fn combines(&mut self, group: &Group, text: &str, now: Timestamp) -> bool {
        let mut similar = self.similar.get(group).cloned().unwrap_or_default();
        if similar.last.is_none_or(|last| now.duration_since(last) > SIMILAR_WITHIN) {
            similar.messages.clear();
        }
        similar.last = Some(now);
        if similar.messages.len() <= SIMILAR_MAX {
            similar.messages.insert(text.to_owned());
        }
        let combined = similar.messages.len() > SIMILAR_MAX;
        self.similar.put(group.clone(), similar);
        combined
    }

    fn may_tell(&mut self, record: &EventRecord, now: Timestamp) -> bool {
        let object = &record.regarding;
        let key = [&object.kind, &object.namespace, &object.name, &object.uid]
            .map(|part| part.as_deref().unwrap_or_default())
            .join("/");
        let mut bucket = self.buckets.get(&key).cloned().unwrap_or(Bucket { tokens: BURST, at: now });
        let elapsed = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + elapsed * REFILL_PER_SECOND).min(BURST);
        bucket.at = now;
        let may = bucket.tokens >= 1.0;
        if may {
            bucket.tokens -= 1.0;
        }
        self.buckets.put(key, bucket);
        may
    }

    fn event(&self, record: &EventRecord, text: String, written: &Written, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(written.name.clone()),
                namespace: Some(event_namespace(&record.regarding)),
                ..ObjectMeta::default()
            },
            involved_object: record.regarding.clone(),
            reason: Some(record.reason.clone()),
            message: Some(text),
            source: Some(self.source.clone()),
            first_timestamp: Some(Time(whole_seconds(written.first))),
            last_timestamp: Some(Time(whole_seconds(now))),
            count: Some(written.count),
            type_: Some(record.severity.as_str().to_owned()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            ..Event::default()
        }
    }
}

/// Events of cluster-wide objects live in `default`.
fn event_namespace(object: &ObjectReference) -> String {
    object.namespace.clone().filter(|ns| !ns.is_empty()).unwrap_or_else(|| "default".to_owned())
}

/// `web-0.17f2c5b0d3a1e8f4`: the object's name and the time in hexadecimal nanoseconds.
fn event_name(record: &EventRecord, now: Timestamp) -> String {
    format!("{}.{:x}", record.regarding.name.as_deref().unwrap_or_default(), now.as_nanosecond())
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Writes one event; whether it is stored now. Errors are logged: an event is never worth a retry loop.
async fn write(client: &Client, told: &Told) -> bool {
    let namespace = told.event.metadata.namespace.as_deref().unwrap_or("default");
    let name = told.event.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    if told.again {
        let patch = json!({
            "count": told.event.count, "lastTimestamp": told.event.last_timestamp, "message": told.event.message,
        });
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => return true,
            // Ran out meanwhile: write it anew.
            Err(error) if classify(&error) == Class::NotFound => {}
            Err(error) => return refused(told, &error),
        }
    }
    match api.create(&PostParams::default(), &told.event).await {
        Ok(_) => true,
        Err(error) => refused(told, &error),
    }
}

fn refused(told: &Told, error: &kube::Error) -> bool {
    let expected = matches!(classify(error), Class::NamespaceTerminating | Class::NotFound);
    if !expected {
        tracing::warn!(reason = told.event.reason, error = message(error), "cannot write an event");
    }
    false
}

/// A map that forgets what was not used for longest.
#[derive(Debug)]
struct Recent<K, V> {
    values: HashMap<Arc<K>, (V, u64)>,
    order: BTreeMap<u64, Arc<K>>,
    clock: u64,
}

impl<K: Eq + std::hash::Hash, V> Recent<K, V> {
    fn new() -> Self {
        Self { values: HashMap::new(), order: BTreeMap::new(), clock: 0 }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(value, _)| value)
    }

    fn put(&mut self, key: K, value: V) {
        self.remove(&key);
        self.clock += 1;
        let key = Arc::new(key);
        self.values.insert(key.clone(), (value, self.clock));
        self.order.insert(self.clock, key);
        if self.values.len() > REMEMBERED_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.values.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some((_, at)) = self.values.remove(key) {
            self.order.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> EventRecord {
        let regarding = ObjectReference {
            kind: Some("StatefulSet".into()),
            namespace: Some("ns".into()),
            name: Some("web".into()),
            uid: Some("u".into()),
            ..ObjectReference::default()
        };
        EventRecord { regarding, severity: Severity::Normal, reason: "SuccessfulCreate".into(), message: text.into() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    fn tell(correlator: &mut Correlator, text: &str, second: i64) -> String {
        match correlator.correlate(&record(text), at(second)) {
            None => "dropped".to_owned(),
            Some(told) => {
                let verb = if told.again { "patch" } else { "create" };
                format!("{verb} x{} {}", told.event.count.unwrap_or(0), told.event.message.unwrap_or_default())
            }
        }
    }

    #[test]
    fn the_same_event_again_counts_up() {
        let mut c = Correlator::new(EventSource::default());
        assert_eq!(tell(&mut c, "create Pod web-0", 0), "create x1 create Pod web-0");
        assert_eq!(tell(&mut c, "create Pod web-1", 1), "create x1 create Pod web-1");
        assert_eq!(tell(&mut c, "create Pod web-0", 2), "patch x2 create Pod web-0");
    }

    #[test]
    fn from_the_eleventh_on_similar_events_are_combined() {
        let mut c = Correlator::new(EventSource::default());
        for n in 0..10 {
            assert_eq!(tell(&mut c, &format!("m{n}"), n), format!("create x1 m{n}"));
        }
        assert_eq!(tell(&mut c, "m10", 10), "create x1 (combined from similar events): m10");
        assert_eq!(tell(&mut c, "m11", 11), "patch x2 (combined from similar events): m11");
        assert_eq!(tell(&mut c, "m12", 11 + 601), "create x1 m12");
    }

    #[test]
    fn an_object_has_25_events_at_once_and_then_one_every_five_minutes() {
        let mut c = Correlator::new(EventSource::default());
        let told = (0..40).filter(|_| tell(&mut c, "same", 0) != "dropped").count();
        assert_eq!(told, 25);
        assert_eq!(tell(&mut c, "same", 299), "dropped");
        assert_eq!(tell(&mut c, "same", 301), "patch x42 same");
    }

    #[test]
    fn what_could_not_be_written_is_new_the_next_time() {
        let mut c = Correlator::new(EventSource::default());
        let told = c.correlate(&record("m"), at(0)).expect("within the burst");
        c.stored(&told, false);
        assert_eq!(tell(&mut c, "m", 1), "create x1 m");
    }

    #[test]
    fn memory_is_bounded() {
        let mut recent = Recent::new();
        for n in 0..REMEMBERED_MAX + 10 {
            recent.put(n, ());
        }
        assert_eq!(recent.values.len(), REMEMBERED_MAX);
        assert!(recent.get(&9).is_none() && recent.get(&10).is_some());
    }
}
