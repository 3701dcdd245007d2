//! Bugs planted on purpose: each must be found, or the rules are worth little.
//!
//! A decision is made of what its process has read, and is carried out by what its process sends. So a bug of a decision is
//! planted as a lens on the line between process and server: what is read shows something else than there is (a set without
//! its partition), or what is sent is not what was meant (a delete without its precondition). Bugs of the server are planted in
//! the store below it, those of a node in the simulated node. The product has no switch for any of them that could be left on.

use std::collections::BTreeMap;

use bytes::Bytes;
use clap::ValueEnum;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::model::place;
use crate::rng::Rng;
use crate::world::Part;

/// One event in so many is lost, one write in so many is forgotten.
const LOST_ONE_IN: u64 = 40;

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// The StatefulSet controller takes a pod that still terminates for missing.
    TerminatingIsMissing,
    /// It does not look at the partition.
    PartitionIgnored,
    /// It takes one pod more down than `maxUnavailable` says.
    BudgetOffByOne,
    /// It keeps no order.
    OrderIgnored,
    /// It takes a pod for available as soon as it is Ready.
    MinReadyIgnored,
    /// It replaces pods of a set that is updated on deletion only.
    OnDeleteIgnored,
    /// It takes a paused set for one that is not.
    PauseIgnored,
    /// It lets claims be deleted whatever the policy says.
    RetentionIgnored,
    /// It adopts pods without asking the server whether the set still exists.
    OwnerNotAskedAgain,
    /// It does not wait until it sees what it wrote.
    OwnWritesNotAwaited,
    /// Now and then a watch event does not get to its cache.
    EventLost,
    /// It takes over pods of its names that have another owner.
    NamesakeTaken,
    /// Controllers delete by name, whichever object has it by then.
    NoPrecondition,
    /// The garbage collector knows owners by their names only.
    OwnerByName,
    /// It takes an owner that its cache does not have for gone.
    OwnerNotLookedUp,
    /// The pods of a silent node are removed as if they had ended.
    SilenceIsDeath,
    /// The scheduler does not look where the volume of a pod is.
    VolumePlaceIgnored,
    /// A node starts a pod although the one before of that name still runs.
    StartsTooEarly,
    /// The server writes over what has changed meanwhile.
    ConflictIgnored,
    /// The server acknowledges a write that it did not do, now and then.
    WriteForgotten,
    /// An eviction takes nothing from its disruption budget.
    EvictionUncounted,
}

/// A plant, how it is found, and by which seeds.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    pub plant: Plant,
    /// What the violation says.
    pub told: &'static [&'static str],
    /// Seeds that find it, as far as is known.
    pub seeds: &'static [u64],
}

const fn bug(plant: Plant, told: &'static [&'static str], seeds: &'static [u64]) -> Bug {
    Bug { plant, told, seeds }
}

/// The bugs whose finding a test asserts.
pub const BUGS: &[Bug] = &[
    bug(Plant::TerminatingIsMissing, &["above it is still there"], &[1]),
    bug(Plant::PartitionIgnored, &["below the partition"], &[187]),
    bug(Plant::BudgetOffByOne, &["are not available"], &[1]),
    bug(Plant::OrderIgnored, &["although one below it is not Ready"], &[0]),
    bug(Plant::MinReadyIgnored, &["are not available"], &[2]),
    bug(Plant::OnDeleteIgnored, &["updated on deletion only"], &[32]),
    bug(Plant::PauseIgnored, &["of a paused set"], &[47]),
    bug(Plant::RetentionIgnored, &["deletes a claim that its policy retains"], &[1]),
    bug(Plant::OwnerNotAskedAgain, &["without having asked for its set", "for a set that is gone"], &[18]),
    bug(Plant::EventLost, &["after the last fault", "the cache of"], &[2]),
    bug(Plant::NamesakeTaken, &["touches a pod of another owner"], &[31]),
    bug(Plant::NoPrecondition, &["touches a pod of another owner"], &[3]),
    bug(Plant::OwnerByName, &["is another owner's", "is left over"], &[1]),
    bug(Plant::OwnerNotLookedUp, &["collects what still has its owner"], &[12]),
    bug(Plant::SilenceIsDeath, &["that still runs on"], &[9]),
    bug(Plant::VolumePlaceIgnored, &["where its volume"], &[4]),
    bug(Plant::StartsTooEarly, &["run at once"], &[7]),
    bug(Plant::ConflictIgnored, &["without having been removed", "and now has"], &[17]),
    bug(Plant::WriteForgotten, &["which was never written", "after the last fault"], &[0]),
    bug(Plant::EvictionUncounted, &["evicts while"], &[42]),
];

/// How one process sees and does what is not so.
#[derive(Debug)]
pub(crate) struct Lens {
    plant: Plant,
    /// By resource and name: what was seen of it first, and last.
    seen: Mutex<BTreeMap<String, (Value, Value)>>,
    rng: Rng,
}

/// What becomes of one object that is read.
enum Look {
    Through,
    /// It is not there.
    Gone,
    /// Nothing is heard of it.
    Unheard,
}

impl Lens {
    /// The lens of a part, when the plant concerns it.
    pub(crate) fn of(plant: Option<Plant>, part: Part, rng: Rng) -> Option<Self> {
        let plant = plant?;
        let concerned: &[Part] = match plant {
            Plant::TerminatingIsMissing
            | Plant::PartitionIgnored
            | Plant::BudgetOffByOne
            | Plant::OrderIgnored
            | Plant::MinReadyIgnored
            | Plant::OnDeleteIgnored
            | Plant::PauseIgnored
            | Plant::RetentionIgnored
            | Plant::OwnerNotAskedAgain
            | Plant::OwnWritesNotAwaited
            | Plant::EventLost
            | Plant::NamesakeTaken => &[Part::Sets],
            Plant::NoPrecondition => &[Part::Sets, Part::Garbage, Part::Upkeep],
            Plant::OwnerByName | Plant::OwnerNotLookedUp => &[Part::Garbage],
            Plant::SilenceIsDeath => &[Part::Upkeep],
            Plant::VolumePlaceIgnored => &[Part::Scheduler],
            Plant::StartsTooEarly | Plant::ConflictIgnored | Plant::WriteForgotten | Plant::EvictionUncounted => &[],
        };
        concerned.contains(&part).then(|| Self { plant, seen: Mutex::default(), rng })
    }

    /// The body of a request as it is really sent.
    pub(crate) fn sent(&self, method: &Method, path: &str, body: Bytes) -> Bytes {
        let deletes = *method == Method::DELETE;
        match self.plant {
            Plant::NoPrecondition if deletes => change(&body, |options| {
                options.as_object_mut().map(|options| options.remove("preconditions"));
            }),
            Plant::SilenceIsDeath if deletes && resource_of(path) == "pods" => change(&body, |options| {
                options["gracePeriodSeconds"] = 0.into();
            }),
            // What was misread on the way in is right on the way out.
            Plant::OwnerByName => {
                let mut text = String::from_utf8_lossy(&body).into_owned();
                for (first, last) in self.seen.lock().values() {
                    text = text.replace(uid(first), uid(last));
                }
                text.into()
            }
            _ => body,
        }
    }

    /// An answer that is made up instead of asking the server.
    pub(crate) fn made_up(&self, method: &Method, path: &str) -> Option<(u16, Value)> {
        let single = *method == Method::GET && is_single(path);
        match self.plant {
            Plant::OwnerNotAskedAgain if single && resource_of(path) == "statefulsets" => {
                let name = path.rsplit('/').next().unwrap_or("");
                let (_, last) = self.seen.lock().get(&format!("statefulsets/{name}"))?.clone();
                let answer = json!({
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": last["metadata"],
                });
                Some((200, answer))
            }
            Plant::OwnerNotLookedUp if single => Some((
                404,
                json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "planted", "reason": "NotFound", "code": 404,
                }),
            )),
            _ => None,
        }
    }

    /// An answer as it is understood.
    pub(crate) fn answered(&self, method: &Method, path: &str, body: Bytes) -> Bytes {
        let resource = resource_of(path);
        change(&body, |answer| {
            if let Some(items) = answer["items"].as_array_mut() {
                items.retain_mut(|item| !matches!(self.look(resource, item), Look::Gone));
                return;
            }
            if answer["kind"] == "Status" {
                return;
            }
            self.look(resource, answer);
            if self.plant == Plant::OwnWritesNotAwaited && *method != Method::GET {
                answer["metadata"]["resourceVersion"] = "1".into();
            }
        })
    }

    /// The lines of a watch as they are understood.
    pub(crate) fn watched(&self, path: &str, frame: &Bytes) -> Bytes {
        let resource = resource_of(path);
        let mut out = Vec::with_capacity(frame.len());
        for line in frame.split_inclusive(|byte| *byte == b'\n') {
            let Ok(mut event) = serde_json::from_slice::<Value>(line) else {
                out.extend_from_slice(line);
                continue;
            };
            if !matches!(event["type"].as_str(), Some("ADDED" | "MODIFIED" | "DELETED")) {
                out.extend_from_slice(line);
                continue;
            }
            match self.look(resource, &mut event["object"]) {
                Look::Unheard => continue,
                Look::Gone => event["type"] = "DELETED".into(),
                Look::Through => {}
            }
            out.extend_from_slice(event.to_string().as_bytes());
            out.push(b'\n');
        }
        out.into()
    }

    /// Changes one object to what the process takes it for.
    fn look(&self, resource: &str, object: &mut Value) -> Look {
        let name = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
        if resource == "statefulsets" {
            let mut seen = self.seen.lock();
            let entry = seen.entry(format!("statefulsets/{name}")).or_insert_with(|| (object.clone(), Value::Null));
            entry.1 = object.clone();
        }
        match (self.plant, resource) {
            (Plant::TerminatingIsMissing, "pods") if object["metadata"]["deletionTimestamp"].is_string() => Look::Gone,
            (Plant::EventLost, "pods") if self.rng.below(LOST_ONE_IN) == 0 => Look::Unheard,
            (Plant::NamesakeTaken, "pods") => {
                self.take_namesake(&name, object);
                Look::Through
            }
            (Plant::OwnerByName, _) => {
                self.name_owners(resource, &name, object);
                Look::Through
            }
            (Plant::VolumePlaceIgnored, "persistentvolumes") => {
                object["spec"]["nodeAffinity"] = Value::Null;
                Look::Through
            }
            (plant, "statefulsets") => {
                misread(plant, object);
                Look::Through
            }
            _ => Look::Through,
        }
    }

    fn take_namesake(&self, name: &str, pod: &mut Value) {
        let Some((set, _)) = place(name) else { return };
        let Some((_, set)) = self.seen.lock().get(&format!("statefulsets/{set}")).cloned() else { return };
        let owners = pod["metadata"]["ownerReferences"].as_array_mut();
        for owner in owners.into_iter().flatten().filter(|owner| owner["controller"] == true) {
            *owner = json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set["metadata"]["name"],
                "uid": set["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
            });
        }
    }

    /// Gives every set the UID of the first one of its name.
    fn name_owners(&self, resource: &str, name: &str, object: &mut Value) {
        let seen = self.seen.lock();
        let first = |name: &str| seen.get(&format!("statefulsets/{name}")).map(|(first, _)| uid(first).to_owned());
        if let Some(first) = (resource == "statefulsets").then(|| first(name)).flatten() {
            object["metadata"]["uid"] = first.into();
        }
        let owners = object["metadata"]["ownerReferences"].as_array_mut();
        for owner in owners.into_iter().flatten().filter(|owner| owner["kind"] == "StatefulSet") {
            if let Some(first) = first(owner["name"].as_str().unwrap_or("")) {
                owner["uid"] = first.into();
            }
        }
    }
}

/// Changes a set to what the controller takes it for.
fn misread(plant: Plant, set: &mut Value) {
    let spec = &mut set["spec"];
    match plant {
        Plant::PartitionIgnored => {
            if let Some(rolling) = spec["updateStrategy"]["rollingUpdate"].as_object_mut() {
                rolling.remove("partition");
            }
        }
        Plant::BudgetOffByOne => {
            let rolling = &mut spec["updateStrategy"]["rollingUpdate"];
            if let Some(most) = rolling["maxUnavailable"].as_u64() {
                rolling["maxUnavailable"] = (most + 1).into();
            }
        }
        Plant::OrderIgnored => spec["podManagementPolicy"] = "Parallel".into(),
        Plant::MinReadyIgnored => spec["minReadySeconds"] = 0.into(),
        Plant::OnDeleteIgnored if spec["updateStrategy"]["type"] == "OnDelete" => {
            spec["updateStrategy"] = json!({"type": "RollingUpdate"});
        }
        Plant::PauseIgnored => {
            if let Some(annotations) = set["metadata"]["annotations"].as_object_mut() {
                annotations.remove("stead.dev/paused");
            }
        }
        Plant::RetentionIgnored => {
            spec["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
        }
        _ => {}
    }
}

/// Whether the server forgets a write.
pub(crate) fn forgets(plant: Option<Plant>, rng: &Rng) -> bool {
    plant == Some(Plant::WriteForgotten) && rng.below(LOST_ONE_IN) == 0
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or("")
}

fn change(body: &Bytes, how: impl FnOnce(&mut Value)) -> Bytes {
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return body.clone() };
    how(&mut value);
    value.to_string().into()
}

/// What follows group and version (and namespace) in a path.
fn parts_of(path: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let head = if parts.first() == Some(&"api") { 2 } else { 3 };
    parts.drain(..head.min(parts.len()));
    if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts.drain(..2);
    }
    parts
}

/// The resource that a path is about.
pub(crate) fn resource_of(path: &str) -> &str {
    parts_of(path).first().copied().unwrap_or("")
}

fn is_single(path: &str) -> bool {
    parts_of(path).len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_resource() {
        for (path, resource, single) in [
            ("/api/v1/pods", "pods", false),
            ("/api/v1/namespaces/default", "namespaces", true),
            ("/api/v1/namespaces/default/pods/web-0/status", "pods", true),
            ("/apis/apps/v1/namespaces/default/statefulsets/web", "statefulsets", true),
            ("/apis/storage.k8s.io/v1/storageclasses", "storageclasses", false),
        ] {
            assert_eq!((resource_of(path), is_single(path)), (resource, single), "{path}");
        }
    }
}
