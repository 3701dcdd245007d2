//! What is stored, as the simulator sees it: kept beside the store, write by write, and judged by [`crate::rules`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use stead_machinery::overrides::{self, Overrides};
use tokio::time::Instant;

use crate::rules;
use crate::world::{Actor, Part, World};

/// The kinds that are followed, by their place in the store.
pub(crate) const PODS: &str = "/registry/pods/default/";
pub(crate) const SETS: &str = "/registry/statefulsets.apps/default/";
pub(crate) const CLAIMS: &str = "/registry/persistentvolumeclaims/default/";
pub(crate) const VOLUMES: &str = "/registry/persistentvolumes/";
const NODES: &str = "/registry/nodes/";
pub(crate) const BUDGETS: &str = "/registry/poddisruptionbudgets.policy/default/";
/// All of them, with the name of their resource.
const FOLLOWED: [(&str, &str); 6] = [
    (PODS, "pods"),
    (SETS, "statefulsets"),
    (CLAIMS, "persistentvolumeclaims"),
    (VOLUMES, "persistentvolumes"),
    (NODES, "nodes"),
    (BUDGETS, "poddisruptionbudgets"),
];

/// Everything that rules look at.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) sets: BTreeMap<String, Set>,
    pub(crate) claims: BTreeMap<String, Claim>,
    pub(crate) volumes: BTreeMap<String, Arc<Value>>,
    pub(crate) budgets: BTreeMap<String, Arc<Value>>,
    /// Since when each node is Ready; `None`: it is not.
    pub(crate) nodes: BTreeMap<String, Option<Instant>>,
    /// When a process last asked the server for a set, by its name, and was served.
    pub(crate) asked: BTreeMap<(Actor, String), Instant>,
    /// Seconds since 1970 at the beginning, when no clock jumps.
    pub(crate) epoch: Option<(Timestamp, Instant)>,
    /// Every set that ever was, by UID: its name, and when it went.
    pub(crate) ever: BTreeMap<String, (String, Option<Instant>)>,
    /// UIDs of sets that are gone and took their claims with them.
    took_claims: BTreeSet<String>,
    /// Containers that run, by the name of their pod: the UIDs, and on which node.
    pub(crate) live: BTreeMap<String, BTreeMap<String, u8>>,
    /// Pods that the user removed by force: their containers may run beside those of their successors on other nodes.
    pub(crate) forced: BTreeSet<String>,
    /// Places that have no Ready pod, by set UID and ordinal.
    pub(crate) down: BTreeMap<(String, u32), Down>,
    /// Since when all ordinals below one were last all Ready, by set UID and ordinal.
    pub(crate) prefix_ready: BTreeMap<(String, u32), Instant>,
    /// Pods that were evicted and whose successors are not Ready yet: by name, the UID.
    pub(crate) evicted: BTreeMap<String, String>,
    /// What was there before the first write.
    base: u64,
    /// The key of every write, by its revision.
    written: BTreeMap<u64, String>,
    /// The revision of everything that exists.
    pub(crate) revisions: BTreeMap<String, u64>,
    pub(crate) writes: u64,
    /// Writes of each part but for events and leases.
    pub(crate) touched: BTreeMap<Part, u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) json: Arc<Value>,
    pub(crate) uid: String,
    /// UID of the controller.
    pub(crate) owner: Option<String>,
    pub(crate) owner_kind: String,
    pub(crate) node: Option<String>,
    pub(crate) terminating: bool,
    pub(crate) ready: bool,
    pub(crate) phase: String,
    pub(crate) revision: String,
    pub(crate) image: String,
    pub(crate) since: Instant,
    /// Who told it to end.
    pub(crate) ended_by: Option<Actor>,
    /// Since when it is Ready.
    pub(crate) ready_since: Option<Instant>,
    /// The same as the pod itself says it.
    pub(crate) ready_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) json: Arc<Value>,
    pub(crate) uid: String,
    pub(crate) deleting: bool,
    pub(crate) start: u32,
    pub(crate) replicas: u32,
    pub(crate) ordered: bool,
    /// Ordinals that are wanted but are to have no pod for now.
    pub(crate) stopped: Vec<u32>,
    /// When start, replicas or what is stopped last changed; when the spec or its annotations did.
    pub(crate) range_since: Instant,
    pub(crate) spec_since: Instant,
    /// How it was before, each with the time until which it was so.
    past: Vec<(Instant, Arc<Set>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) json: Arc<Value>,
    pub(crate) uid: String,
    pub(crate) deleting: bool,
    /// What has been true at some time since it was made.
    pub(crate) scaled_policy: bool,
    pub(crate) out_of_range: bool,
    pub(crate) deleted_policy: bool,
    pub(crate) set_gone: bool,
}

/// A place without a Ready pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Down {
    pub(crate) since: Instant,
    /// The process that deleted the pod.
    pub(crate) by: Option<Actor>,
    /// Its successor is Ready and will be available then.
    pub(crate) until: Option<Timestamp>,
}

impl Set {
    /// How it is, and every way that somebody may still see it.
    pub(crate) fn views(&self) -> impl Iterator<Item = &Self> {
        let past = self.past.iter().filter(|(until, _)| !rules::long(*until)).map(|(_, set)| &**set);
        std::iter::once(self).chain(past)
    }

    /// Whether its status is about its newest spec.
    #[must_use]
    pub(crate) fn is_observed(&self) -> bool {
        self.json["status"]["observedGeneration"] == self.json["metadata"]["generation"]
    }

    #[must_use]
    pub(crate) fn min_ready(&self) -> u64 {
        self.json["spec"]["minReadySeconds"].as_u64().unwrap_or(0)
    }

    /// Whether the ordinal is wanted.
    #[must_use]
    fn wants(&self, ordinal: u32) -> bool {
        (self.start..self.start + self.replicas).contains(&ordinal)
    }

    /// Whether the ordinal is to have a pod now.
    #[must_use]
    pub(crate) fn has(&self, ordinal: u32) -> bool {
        self.wants(ordinal) && !self.stopped.contains(&ordinal)
    }

    /// The ordinals that are to have a pod now.
    pub(crate) fn running(&self) -> impl Iterator<Item = u32> {
        (self.start..self.start + self.replicas).filter(|ordinal| self.has(*ordinal))
    }

    #[must_use]
    pub(crate) fn policy(&self, when: &str) -> &str {
        self.json["spec"]["persistentVolumeClaimRetentionPolicy"][when].as_str().unwrap_or("Retain")
    }

    #[must_use]
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.json["metadata"]["annotations"][name].as_str()
    }

    #[must_use]
    pub(crate) fn partition(&self) -> u32 {
        self.json["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_u64().unwrap_or(0) as u32
    }

    #[must_use]
    pub(crate) fn max_unavailable(&self) -> u32 {
        self.json["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"].as_u64().unwrap_or(1).max(1) as u32
    }

    #[must_use]
    pub(crate) fn on_delete(&self) -> bool {
        self.json["spec"]["updateStrategy"]["type"] == "OnDelete"
    }

    #[must_use]
    pub(crate) fn recreates(&self) -> bool {
        self.json["spec"]["updateStrategy"]["type"] == "Recreate"
    }

    #[must_use]
    pub(crate) fn update_revision(&self) -> &str {
        self.json["status"]["updateRevision"].as_str().unwrap_or("")
    }

    #[must_use]
    pub(crate) fn name(&self) -> &str {
        self.json["metadata"]["name"].as_str().unwrap_or("")
    }

    /// The names of its claim templates.
    pub(crate) fn templates(&self) -> impl Iterator<Item = &str> {
        let templates = self.json["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
        templates.filter_map(|template| template["metadata"]["name"].as_str())
    }

    #[must_use]
    pub(crate) fn template(&self, name: &str) -> Option<&Value> {
        let mut templates = self.json["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
        templates.find(|template| template["metadata"]["name"] == name)
    }

    /// Whether a pod of that name was made with the patch that is meant for it now.
    fn has_its_override(&self, name: &str, pod: &Pod) -> bool {
        let overrides = Overrides::parse(self.annotation("stead.dev/overrides").unwrap_or(""), &|_| false);
        let (Ok(overrides), Some((_, ordinal))) = (overrides, place(name)) else { return true };
        let made_with = pod.json["metadata"]["annotations"]["stead.dev/override-hash"].as_str();
        overrides.of(ordinal).map(overrides::hash).as_deref() == made_with
    }

    /// Whether a pod of that name is as a new one would be: of the newest revision, with the volumes asked for.
    #[must_use]
    pub(crate) fn is_updated(&self, name: &str, pod: &Pod) -> bool {
        let volumes = pod.json["spec"]["volumes"].as_array();
        let has = |template: &str| {
            let claim = format!("{template}-{name}");
            let volume = volumes.into_iter().flatten().find(|volume| volume["name"] == template);
            volume.is_some_and(|volume| volume["persistentVolumeClaim"]["claimName"] == *claim)
        };
        pod.revision == self.update_revision() && self.templates().all(has) && self.has_its_override(name, pod)
    }
}

/// Set and ordinal that a pod's name stands for.
#[must_use]
pub(crate) fn place(name: &str) -> Option<(&str, u32)> {
    let (set, ordinal) = name.rsplit_once('-')?;
    Some((set, ordinal.parse().ok()?))
}

fn put(all: &mut BTreeMap<String, Arc<Value>>, name: &str, json: Option<Value>) {
    match json {
        Some(json) => drop(all.insert(name.to_owned(), Arc::new(json))),
        None => drop(all.remove(name)),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

fn pod(actor: Actor, json: Value, before: Option<&Pod>) -> Pod {
    let meta = &json["metadata"];
    let owner = meta["ownerReferences"].as_array().into_iter().flatten().find(|owner| owner["controller"] == true);
    let ready = readiness(&json);
    let ready_at = ready.and_then(|ready| ready["lastTransitionTime"].as_str()?.parse().ok());
    let uid = text(&meta["uid"]);
    let before = before.filter(|before| before.uid == uid);
    let ready = ready.is_some() && json["status"]["phase"] == "Running";
    Pod {
        owner: owner.map(|owner| text(&owner["uid"])),
        owner_kind: owner.map(|owner| text(&owner["kind"])).unwrap_or_default(),
        node: json["spec"]["nodeName"].as_str().map(str::to_owned),
        terminating: meta["deletionTimestamp"].is_string(),
        ready,
        phase: text(&json["status"]["phase"]),
        revision: text(&meta["labels"]["controller-revision-hash"]),
        image: text(&json["spec"]["containers"][0]["image"]),
        since: before.map_or_else(Instant::now, |before| before.since),
        ended_by: match before.and_then(|before| before.ended_by) {
            None if meta["deletionTimestamp"].is_string() => Some(actor),
            ended_by => ended_by,
        },
        ready_since: ready.then(|| before.and_then(|before| before.ready_since).unwrap_or_else(Instant::now)),
        ready_at,
        uid,
        json: Arc::new(json),
    }
}

/// The condition that an object is Ready.
fn readiness(object: &Value) -> Option<&Value> {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn set(json: Value, before: Option<&Set>) -> Set {
    let spec = &json["spec"];
    let uid = text(&json["metadata"]["uid"]);
    let before = before.filter(|before| before.uid == uid);
    let start = spec["ordinals"]["start"].as_u64().unwrap_or(0) as u32;
    let replicas = spec["replicas"].as_u64().unwrap_or(1) as u32;
    let stopped = json["metadata"]["annotations"]["stead.dev/stop-ordinals"].as_str().unwrap_or("");
    let stopped: Vec<u32> = stopped.split(',').filter_map(|ordinal| ordinal.parse().ok()).collect();
    let same_range = before.filter(|b| b.start == start && b.replicas == replicas && b.stopped == stopped);
    let same_spec = before
        .filter(|b| b.json["spec"] == *spec && b.json["metadata"]["annotations"] == json["metadata"]["annotations"]);
    let mut past = before.map_or_else(Vec::new, |before| before.past.clone());
    past.retain(|(until, _)| !rules::long(*until));
    past.extend(before.map(|before| (Instant::now(), Arc::new(Set { past: Vec::new(), ..before.clone() }))));
    Set {
        deleting: json["metadata"]["deletionTimestamp"].is_string(),
        start,
        replicas,
        ordered: spec["podManagementPolicy"] != "Parallel",
        stopped,
        range_since: same_range.map_or_else(Instant::now, |b| b.range_since),
        spec_since: same_spec.map_or_else(Instant::now, |b| b.spec_since),
        past,
        uid,
        json: Arc::new(json),
    }
}

impl World {
    /// One write has happened: notes it, judges it, and wakes the nodes that it concerns.
    pub(crate) fn wrote(&self, actor: Actor, revision: u64, key: &[u8], value: Option<&[u8]>) {
        let key = std::str::from_utf8(key).unwrap_or("");
        let hash = [key.as_bytes(), value.unwrap_or_default()].concat();
        self.note(&hash, || told(actor, revision, key, value));
        let mut model = self.model.lock();
        model.written.insert(revision, key.to_owned());
        match value {
            Some(_) => drop(model.revisions.insert(key.to_owned(), revision)),
            None => drop(model.revisions.remove(key)),
        }
        model.writes += 1;
        if !key.contains("/events") && !key.contains("/leases") {
            *model.touched.entry(actor.part).or_default() += 1;
        }
        // Most writes are of kinds that no rule looks at: they are not read.
        let Some((prefix, resource)) = FOLLOWED.iter().find(|(prefix, _)| key.starts_with(prefix)) else { return };
        let name = &key[prefix.len()..];
        let json = value.map(|value| serde_json::from_slice::<Value>(value).unwrap_or_default());
        let mut faults: Vec<String> = model
            .json(prefix, name)
            .zip(json.as_ref())
            .and_then(|(was, is)| rules::undone(&was, is))
            .into_iter()
            .collect();
        let ends_pod = self.wake_nodes_of(&model, (prefix, name), json.as_ref());
        faults.extend(model.take_in(actor, (prefix, name), json));
        drop(model);
        for fault in faults {
            self.violated(format!("{actor}, revision {revision}, {key}: {fault}"));
        }
        self.echo(actor.part, resource, ends_pod);
    }

    /// Wakes the nodes that a write concerns; whether it tells a pod to end.
    fn wake_nodes_of(&self, model: &Model, (prefix, name): (&str, &str), json: Option<&Value>) -> bool {
        if prefix == VOLUMES && json.is_some_and(|json| json["status"]["phase"] == "Released") {
            self.wake_nodes.iter().for_each(tokio::sync::Notify::notify_one);
        }
        if prefix != PODS {
            return false;
        }
        let before = model.pods.get(name);
        let nodes =
            [before.and_then(|pod| pod.node.as_deref()), json.and_then(|json| json["spec"]["nodeName"].as_str())];
        nodes.into_iter().flatten().for_each(|node| self.wake_node(node));
        before.is_some_and(|pod| !pod.terminating)
            && json.is_some_and(|json| json["metadata"]["deletionTimestamp"].is_string())
    }

    fn wake_node(&self, name: &str) {
        let number: Option<usize> = name.strip_prefix("node-").and_then(|n| n.parse().ok());
        if let Some(notify) = number.and_then(|number| self.wake_nodes.get(number)) {
            notify.notify_one();
        }
    }
}

/// One line of the trace.
fn told(actor: Actor, revision: u64, key: &str, value: Option<&[u8]>) -> String {
    let key = key.trim_start_matches("/registry/");
    let Some(json) = value.and_then(|value| serde_json::from_slice::<Value>(value).ok()) else {
        return format!("{actor:<12} r{revision} {key} gone");
    };
    let (meta, spec, status) = (&json["metadata"], &json["spec"], &json["status"]);
    let mut more = String::new();
    if meta["deletionTimestamp"].is_string() {
        more.push_str(" deleting");
    }
    if key.starts_with("pods/") {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let ready = conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        more.push_str(&format!(
            " {} {} on {} {} {}",
            status["phase"].as_str().unwrap_or("-"),
            if ready { "ready" } else { "unready" },
            spec["nodeName"].as_str().unwrap_or("-"),
            spec["containers"][0]["image"].as_str().unwrap_or("-"),
            meta["uid"].as_str().unwrap_or("-").get(..8).unwrap_or("-"),
        ));
    } else if key.starts_with("statefulsets") {
        more.push_str(&format!(" replicas {} {} status {status}", spec["replicas"], spec["updateStrategy"]));
    } else if key.starts_with("persistentvolumeclaims") {
        more.push_str(&format!(" {} owners {} {}", status["phase"], meta["ownerReferences"], meta["finalizers"]));
    } else if key.starts_with("events") {
        more.push_str(&format!(" {} {}", json["reason"], json["message"]));
    } else if key.starts_with("poddisruptionbudgets") {
        more.push_str(&format!(" {status}"));
    }
    format!("{actor:<12} r{revision} {key}{more}")
}

impl Model {
    /// What is stored of a kind that is kept as it is.
    fn json(&self, prefix: &str, name: &str) -> Option<Arc<Value>> {
        match prefix {
            PODS => self.pods.get(name).map(|pod| pod.json.clone()),
            SETS => self.sets.get(name).map(|set| set.json.clone()),
            CLAIMS => self.claims.get(name).map(|claim| claim.json.clone()),
            VOLUMES => self.volumes.get(name).cloned(),
            BUDGETS => self.budgets.get(name).cloned(),
            _ => None,
        }
    }

    /// Takes a write in; what is wrong with it.
    fn take_in(&mut self, actor: Actor, (prefix, name): (&str, &str), json: Option<Value>) -> Vec<String> {
        match prefix {
            PODS => {
                let now = json.map(|json| pod(actor, json, self.pods.get(name)));
                self.pod(actor, name, now)
            }
            SETS => {
                let now = json.map(|json| set(json, self.sets.get(name)));
                self.set(actor, name, now)
            }
            CLAIMS => self.claim(actor, name, json),
            VOLUMES => {
                let faults = rules::volume(self, actor, name, json.as_ref());
                put(&mut self.volumes, name, json);
                faults
            }
            BUDGETS => {
                put(&mut self.budgets, name, json);
                Vec::new()
            }
            _ => {
                self.node(name, json);
                Vec::new()
            }
        }
    }

    /// The first write comes after this revision.
    pub(crate) fn begins_at(&mut self, revision: u64) {
        self.base = revision;
    }

    /// Whether that revision was a write of that key.
    #[must_use]
    pub(crate) fn was_written(&self, revision: u64, key: &str) -> bool {
        revision <= self.base || self.written.get(&revision).is_some_and(|written| written == key)
    }

    /// The revision of what is stored under a key, if it is there and was written since the beginning.
    #[must_use]
    pub(crate) fn latest(&self, key: &str) -> Option<u64> {
        self.revisions.get(key).copied()
    }

    /// The time of day by clocks that do not jump.
    #[must_use]
    pub(crate) fn time(&self) -> Timestamp {
        let elapsed = |began: Instant| SignedDuration::try_from(began.elapsed()).unwrap_or_default();
        self.epoch.map_or(Timestamp::MAX, |(epoch, began)| epoch + elapsed(began))
    }

    fn node(&mut self, name: &str, json: Option<Value>) {
        let Some(json) = json else {
            self.nodes.remove(name);
            return;
        };
        let since = readiness(&json).map(|_| self.nodes.get(name).copied().flatten().unwrap_or_else(Instant::now));
        self.nodes.insert(name.to_owned(), since);
    }

    /// Containers of a pod begin to run; what is wrong with that.
    pub(crate) fn starts(&mut self, name: &str, uid: &str, node: u8) -> Option<String> {
        let live = self.live.entry(name.to_owned()).or_default();
        // Whoever removes a pod by force vouches for its node; on the same node it is the node's own business. A node that
        // does not know of that starts it again when it has power again.
        let vouched = self.forced.contains(uid);
        let counts = |other: &String, there: u8| there == node || !vouched && !self.forced.contains(other);
        let other = live.iter().find(|(other, there)| *other != uid && counts(other, **there));
        let fault = other.map(|(other, there)| {
            format!("two pods {name} run at once: {uid} on node-{node} and {other} on node-{there}")
        });
        live.insert(uid.to_owned(), node);
        fault
    }

    pub(crate) fn stops(&mut self, name: &str, uid: &str) {
        if let Some(live) = self.live.get_mut(name) {
            live.remove(uid);
        }
    }

    fn pod(&mut self, actor: Actor, name: &str, now: Option<Pod>) -> Vec<String> {
        self.remember_prefixes(name);
        let faults = rules::pod(self, actor, name, now.as_ref());
        let before = self.pods.get(name).cloned();
        let was_ready = before.as_ref().is_some_and(|pod| pod.ready && !pod.terminating);
        let is_ready = now.as_ref().is_some_and(|pod| pod.ready && !pod.terminating);
        let owner = now.as_ref().or(before.as_ref()).and_then(|pod| pod.owner.clone());
        if let (Some(owner), Some((_, ordinal))) = (owner, place(name)) {
            let place = (owner, ordinal);
            if is_ready {
                let until = now.as_ref().and_then(|pod| self.available_at(&place, pod));
                match (until, self.down.get_mut(&place)) {
                    (Some(until), Some(down)) => down.until = Some(until),
                    _ => drop(self.down.remove(&place)),
                }
                if self.evicted.get(name).is_some_and(|uid| now.as_ref().is_some_and(|pod| pod.uid != *uid)) {
                    self.evicted.remove(name);
                }
            } else if was_ready || self.down.get(&place).is_none_or(|down| down.until.is_some()) {
                self.down.insert(place, Down { since: Instant::now(), by: was_ready.then_some(actor), until: None });
            }
        }
        if let Some(before) = before.filter(|before| actor.evicts && before.ready && !before.terminating) {
            self.evicted.insert(name.to_owned(), before.uid);
        }
        match now {
            Some(pod) => drop(self.pods.insert(name.to_owned(), pod)),
            None => drop(self.pods.remove(name)),
        }
        faults
    }

    /// When a Ready pod counts as available, where that takes time and no clock jumps.
    fn available_at(&self, (owner, _): &(String, u32), pod: &Pod) -> Option<Timestamp> {
        let set = self.sets.values().find(|set| set.uid == *owner)?;
        let seconds = set.json["spec"]["minReadySeconds"].as_i64().filter(|seconds| *seconds > 0)?;
        let at = pod.ready_at? + SignedDuration::from_secs(seconds);
        (self.epoch.is_some() && at > self.time()).then_some(at)
    }

    /// Notes for which ordinals of the pod's set everything below is Ready this moment.
    fn remember_prefixes(&mut self, name: &str) {
        let Some((set, _)) = place(name) else { return };
        let Some(set) = self.sets.get(set).filter(|set| set.ordered) else { return };
        for ordinal in set.start..=set.start + set.replicas {
            self.prefix_ready.insert((set.uid.clone(), ordinal), Instant::now());
            let pod = self.pods.get(&format!("{}-{ordinal}", set.name()));
            if !set.stopped.contains(&ordinal) && !pod.is_some_and(|pod| pod.ready && !pod.terminating) {
                break;
            }
        }
    }

    fn set(&mut self, actor: Actor, name: &str, now: Option<Set>) -> Vec<String> {
        let before = self.sets.get(name).cloned();
        let faults = rules::set(actor, before.as_ref(), now.as_ref());
        if let Some(before) = &before
            && now.as_ref().is_none_or(|now| now.uid != before.uid)
        {
            self.ever.insert(before.uid.clone(), (name.to_owned(), Some(Instant::now())));
            self.down.retain(|(uid, _), _| *uid != before.uid);
            if before.views().any(|view| view.policy("whenDeleted") == "Delete") {
                self.took_claims.insert(before.uid.clone());
            }
        }
        match now {
            Some(set) => {
                self.ever.insert(set.uid.clone(), (name.to_owned(), None));
                for ordinal in set.running() {
                    let pod = self.pods.get(&format!("{name}-{ordinal}"));
                    if !pod.is_some_and(|pod| pod.ready && !pod.terminating) {
                        let down = Down { since: Instant::now(), by: None, until: None };
                        self.down.entry((set.uid.clone(), ordinal)).or_insert(down);
                    }
                }
                self.down.retain(|(uid, ordinal), _| *uid != set.uid || set.has(*ordinal));
                self.sets.insert(name.to_owned(), set);
                self.remember_prefixes(&format!("{name}-0"));
            }
            None => drop(self.sets.remove(name)),
        }
        let names: Vec<String> = self.claims.keys().cloned().collect();
        for claim in names {
            self.note_claim(&claim, before.as_ref());
        }
        faults
    }

    /// Notes what has become true of the set of a claim.
    fn note_claim(&mut self, name: &str, before: Option<&Set>) {
        let Some((name_of_set, ordinal)) = name.split_once('-').and_then(|(_, pod)| place(pod)) else { return };
        let set = self.sets.get(name_of_set).cloned();
        let before = before.filter(|before| before.name() == name_of_set);
        let Some(claim) = self.claims.get_mut(name) else { return };
        // Whoever sees the set as it was acts on that.
        for set in [before, set.as_ref()].into_iter().flatten().flat_map(Set::views) {
            claim.scaled_policy |= set.policy("whenScaled") == "Delete";
            claim.deleted_policy |= set.policy("whenDeleted") == "Delete";
            claim.out_of_range |= !set.wants(ordinal);
            claim.set_gone |= set.deleting;
        }
        claim.set_gone |= set.is_none();
        // A controller that is late makes a claim for a set that has gone meanwhile.
        let owners = claim.json["metadata"]["ownerReferences"].as_array();
        let late = owners.into_iter().flatten().any(|owner| self.took_claims.contains(&text(&owner["uid"])));
        claim.deleted_policy |= late;
        claim.set_gone |= late;
    }

    fn claim(&mut self, actor: Actor, name: &str, json: Option<Value>) -> Vec<String> {
        let now = json.map(|json| {
            let uid = text(&json["metadata"]["uid"]);
            let before = self.claims.get(name).filter(|claim| claim.uid == uid);
            Claim {
                deleting: json["metadata"]["deletionTimestamp"].is_string(),
                scaled_policy: before.is_some_and(|b| b.scaled_policy),
                out_of_range: before.is_some_and(|b| b.out_of_range),
                deleted_policy: before.is_some_and(|b| b.deleted_policy),
                set_gone: before.is_some_and(|b| b.set_gone),
                json: Arc::new(json),
                uid,
            }
        });
        let faults = rules::claim(self, actor, name, now.as_ref());
        match now {
            Some(claim) => drop(self.claims.insert(name.to_owned(), claim)),
            None => drop(self.claims.remove(name)),
        }
        self.note_claim(name, None);
        faults
    }
}
