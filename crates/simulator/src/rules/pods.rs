//! Pods: who may make, change and remove them, and when.

use std::time::Duration;

use serde_json::Value;

use super::{BEHIND_MAX, long, still_owned};
use crate::chaos::JUMP_MAX_MS;
use crate::model::{Down, Model, Pod, Set, place};
use crate::people::SHARED;
use crate::world::{Actor, Part};

/// Whether everybody must have known for long that the pod counts as available: only then is it a loss.
fn is_available(set: &Set, pod: &Pod) -> bool {
    let seconds = set.json["spec"]["minReadySeconds"].as_u64().unwrap_or(0);
    // Whoever tells the time, and whoever counts from it, may each have a clock that is wrong.
    let wrong = BEHIND_MAX + Duration::from_millis(2 * JUMP_MAX_MS);
    let wait = Duration::from_secs(seconds) + if seconds > 0 { wrong } else { Duration::ZERO };
    pod.ready_since.is_some_and(|since| since.elapsed() > wait)
}

/// A write to a pod; `now` is `None` when it is removed.
pub(crate) fn pod(model: &Model, actor: Actor, name: &str, now: Option<&Pod>) -> Vec<String> {
    let before = model.pods.get(name);
    let begins_to_end = before.is_some_and(|pod| !pod.terminating) && now.is_none_or(|pod| pod.terminating);
    let mut faults = Vec::new();
    let mut judge = |fault: Option<String>| faults.extend(fault);
    match actor.part {
        Part::Sets => {
            judge(foreign(model, name, before, now));
            judge(adopted_unasked(model, actor, before, now));
            match (before, now) {
                (None, Some(pod)) => {
                    judge(unwanted(model, name, pod));
                    judge(out_of_order(model, name, pod));
                    judge(too_new(model, name, pod));
                    judge(beside_an_old_one(model, name, pod));
                }
                (Some(pod), _) if begins_to_end => {
                    judge(removed_out_of_order(model, actor, name, pod));
                    judge(disrupted(model, actor, name, pod));
                    judge(unasked(model, name, pod));
                }
                _ => {}
            }
        }
        Part::Garbage if begins_to_end => judge(before.and_then(|pod| still_owned(model, &pod.json))),
        Part::Scheduler => judge(misplaced(model, before, now)),
        Part::Upkeep if begins_to_end => judge(before.and_then(|pod| taken_from_the_well(model, pod))),
        Part::Garbage | Part::Upkeep | Part::Claims | Part::Node(_) | Part::Server | Part::User => {}
    }
    judge(freed_while_it_runs(model, name, now));
    if actor.evicts && begins_to_end {
        judge(over_budget(model, name, before));
        judge(over_shared_budget(model, name, before));
    }
    faults
}

/// The StatefulSet controller touches pods of its sets only.
fn foreign(model: &Model, name: &str, before: Option<&Pod>, now: Option<&Pod>) -> Option<String> {
    let known = |pod: &Pod| pod.owner.as_ref().is_some_and(|uid| model.ever.contains_key(uid));
    let adopts = |before: &Pod| before.owner.is_none() && now.is_some_and(|now| known(now) && now.uid == before.uid);
    let set_of = |pod: &Pod| pod.owner.as_ref().and_then(|uid| model.ever.get(uid)).map(|(set, _)| set.clone());
    match (before, now) {
        (None, Some(pod)) if set_of(pod).as_deref() == place(name).map(|(set, _)| set) => None,
        (None, Some(_)) => Some("creates a pod that is no set's".to_owned()),
        (Some(before), _) if known(before) || adopts(before) => None,
        (Some(before), _) => Some(format!("touches a pod of another owner: {:?}", before.owner)),
        (None, None) => None,
    }
}

/// Before it adopts, the controller asks the server whether the set still exists; what its cache has does not count.
fn adopted_unasked(model: &Model, actor: Actor, before: Option<&Pod>, now: Option<&Pod>) -> Option<String> {
    let adopter = now?.owner.as_ref().filter(|_| before.is_some_and(|pod| pod.owner.is_none()))?;
    let (set, gone) = model.ever.get(adopter)?;
    match model.asked.get(&(actor, set.clone())) {
        None => Some("adopts a pod without having asked for its set".to_owned()),
        Some(asked) => gone.is_some_and(|gone| gone < *asked).then(|| "adopts a pod for a set that is gone".to_owned()),
    }
}

/// Below the partition a pod is made anew as it was.
fn too_new(model: &Model, name: &str, pod: &Pod) -> Option<String> {
    let (_, ordinal) = place(name)?;
    let too_new = |set: &Set| {
        let below = ordinal.checked_sub(set.start).is_some_and(|index| index < set.partition()) && !set.on_delete();
        let update = set.update_revision();
        below && set.is_observed() && pod.revision == update && set.json["status"]["currentRevision"] != update
    };
    let set = set_of(model, name, pod)?;
    set.views()
        .all(too_new)
        .then(|| format!("creates a pod of the new revision below the partition {}", set.partition()))
}

/// A pod is bound once, and to where its volume is.
fn misplaced(model: &Model, before: Option<&Pod>, now: Option<&Pod>) -> Option<String> {
    let (before, now) = (before?, now?);
    let node = now.node.as_ref().filter(|node| before.node.as_ref() != Some(node))?;
    if let Some(there) = &before.node {
        return Some(format!("moves a pod from {there} to {node}"));
    }
    let volumes = now.json["spec"]["volumes"].as_array()?;
    volumes.iter().find_map(|volume| {
        let claim = model.claims.get(volume["persistentVolumeClaim"]["claimName"].as_str()?)?;
        let volume = claim.json["spec"]["volumeName"].as_str()?;
        let place = model.volumes.get(volume)?["spec"]["nodeAffinity"].to_string();
        let elsewhere = place.contains("node-") && !place.contains(node.as_str());
        elsewhere.then(|| format!("binds a pod to {node}, where its volume {volume} is not"))
    })
}

/// A name is free only when the containers of its pod have ended, but for what people remove by force.
fn freed_while_it_runs(model: &Model, name: &str, now: Option<&Pod>) -> Option<String> {
    let uid = &model.pods.get(name).filter(|_| now.is_none())?.uid;
    let node = model.live.get(name)?.get(uid).filter(|_| !model.forced.contains(uid))?;
    Some(format!("removes a pod that still runs on node-{node}"))
}

/// Nobody takes a pod from a node that has been well for long.
fn taken_from_the_well(model: &Model, pod: &Pod) -> Option<String> {
    let node = pod.node.as_ref()?;
    let well = model.nodes.get(node).is_some_and(|since| since.is_some_and(long));
    let runs = !matches!(pod.phase.as_str(), "Failed" | "Succeeded");
    (well && runs).then(|| format!("removes a pod from {node}, which is well"))
}

/// No pod is made for a set that is gone, or that has not wanted it for long.
fn unwanted(model: &Model, name: &str, pod: &Pod) -> Option<String> {
    let (_, gone) = model.ever.get(pod.owner.as_ref()?)?;
    if gone.is_some_and(long) {
        return Some("creates a pod for a set that is gone".to_owned());
    }
    let (_, ordinal) = place(name)?;
    let set = set_of(model, name, pod)?;
    let unwanted = set.views().all(|view| !view.has(ordinal));
    unwanted.then(|| format!("creates a pod beyond the range {}..{}", set.start, set.start + set.replicas))
}

/// In order, a pod is made only when all below it are Ready.
fn out_of_order(model: &Model, name: &str, pod: &Pod) -> Option<String> {
    let (set, ordinal) = place(name)?;
    let set = model.sets.get(set).filter(|set| Some(&set.uid) == pod.owner.as_ref() && set.ordered)?;
    if !set.has(ordinal) || !long(set.range_since) && set.start != 0 {
        return None;
    }
    let at = model.prefix_ready.get(&(set.uid.clone(), ordinal));
    let never = at.is_none_or(|at| long(*at));
    never.then(|| "creates a pod although one below it is not Ready".to_owned())
}

/// A set that recreates its pods makes none while one of another revision is there.
fn beside_an_old_one(model: &Model, name: &str, pod: &Pod) -> Option<String> {
    let (set_name, _) = place(name)?;
    let set = model.sets.get(set_name).filter(|set| Some(&set.uid) == pod.owner.as_ref())?;
    if !set.recreates() || !long(set.spec_since) || set.annotation("stead.dev/paused") == Some("true") {
        return None;
    }
    let other = model
        .pods
        .iter()
        .find(|(_, other)| other.owner == pod.owner && other.revision != pod.revision && long(other.since));
    other.map(|(other, _)| format!("creates a pod beside {other} of another revision"))
}

/// In order, the highest pod goes first, and each goes only when the one above is gone.
fn removed_out_of_order(model: &Model, actor: Actor, name: &str, pod: &Pod) -> Option<String> {
    let (set_name, ordinal) = place(name)?;
    let set = model.sets.get(set_name).filter(|set| Some(&set.uid) == pod.owner.as_ref() && set.ordered)?;
    if set.has(ordinal) && !set.deleting {
        return None;
    }
    if set.views().any(Set::recreates) {
        // All go at once, those too that nobody wants any more.
        return None;
    }
    // A roll-out of a moment ago may take several at once.
    let at_once = set.views().any(|view| view.has(ordinal) && view.max_unavailable() > 1);
    let above = model.pods.iter().find(|(other, other_pod)| {
        let above = place(other).is_some_and(|(s, o)| s == set_name && o > ordinal && (!set.has(o) || set.deleting));
        let own = !at_once && other_pod.ended_by == Some(actor);
        let known = long(other_pod.since) && long(set.range_since) || own;
        above && other_pod.owner == pod.owner && known
    });
    above.map(|(other, _)| format!("removes a pod while {other} above it is still there"))
}

/// A roll-out takes no more Ready pods down than its budget allows, none that it is to leave alone, and goes from the top.
/// Whichever way the set was within the time that a view can be behind: the controller may see it like that.
fn disrupted(model: &Model, actor: Actor, name: &str, pod: &Pod) -> Option<String> {
    let (_, ordinal) = place(name)?;
    let set = set_of(model, name, pod)?;
    if !is_available(set, pod) {
        return None;
    }
    let refusals: Option<Vec<String>> =
        set.views().map(|view| refused(model, actor, view, (name, ordinal, pod))).collect();
    refusals?.into_iter().next()
}

/// The set that a pod belongs to.
fn set_of<'a>(model: &'a Model, name: &str, pod: &Pod) -> Option<&'a Set> {
    model.sets.get(place(name)?.0).filter(|set| Some(&set.uid) == pod.owner.as_ref())
}

/// Why a pod that works must not go when the set is like that; `None`: it may.
fn refused(model: &Model, actor: Actor, set: &Set, (name, ordinal, pod): (&str, u32, &Pod)) -> Option<String> {
    if set.deleting || !set.has(ordinal) {
        return None;
    }
    if set.on_delete() {
        return Some("replaces a pod of a set that is updated on deletion only".to_owned());
    }
    if ordinal - set.start < set.partition() {
        return Some(format!("replaces a pod below the partition {}", set.partition()));
    }
    if set.annotation("stead.dev/paused") == Some("true") {
        return Some("replaces a pod of a paused set".to_owned());
    }
    if !set.is_observed() {
        // The newest revision is not known yet.
        return if set.recreates() { None } else { too_many(model, actor, set, ordinal) };
    }
    if set.is_updated(name, pod) {
        return Some("replaces a pod that is up to date".to_owned());
    }
    if set.recreates() {
        // All go at once.
        return None;
    }
    let mut waiting = (ordinal + 1..set.start + set.replicas).filter(|above| {
        let name = format!("{}-{above}", set.name());
        let own = |pod: &Pod| set.has(*above) && pod.owner.as_ref() == Some(&set.uid);
        let outdated = |pod: &Pod| !set.is_updated(&name, pod) && !pod.terminating && pod.ready_since.is_some_and(long);
        // Of several that were asked to hand over, the first one that has goes first.
        model.pods.get(&name).is_some_and(|pod| own(pod) && outdated(pod) && !is_asked(pod))
    });
    // Of a parallel set as many as may be down are asked at the same time, and whoever hears it first goes first.
    let together = if set.ordered { 0 } else { set.max_unavailable() as usize - 1 };
    if let Some(above) = waiting.nth(together) {
        return Some(format!("replaces a pod before {}-{above} above it", set.name()));
    }
    too_many(model, actor, set, ordinal)
}

fn too_many(model: &Model, actor: Actor, set: &Set, ordinal: u32) -> Option<String> {
    let steady =
        model.sets.get(set.name()).is_some_and(|set| set.views().all(|view| view.min_ready() == set.min_ready()));
    let counts = |down: &Down| {
        let known = down.by == Some(actor) || long(down.since);
        known && down.until.is_none_or(|until| steady && model.time() < until)
    };
    let down = model
        .down
        .iter()
        .filter(|((uid, other), down)| *uid == set.uid && *other != ordinal && set.has(*other) && counts(down));
    let down: Vec<u32> = down.map(|((_, other), _)| *other).collect();
    let allowed = set.max_unavailable() as usize;
    (down.len() >= allowed)
        .then(|| format!("takes a Ready pod down while {down:?} are not available, {allowed} allowed"))
}

/// Where a set wishes it, its controller takes no Ready pod down that was not asked to hand over; nobody is where all go at once.
fn unasked(model: &Model, name: &str, pod: &Pod) -> Option<String> {
    let set = set_of(model, name, pod).filter(|set| pod.ready && !set.deleting)?;
    let wishes = set.annotation("stead.dev/hand-over").is_some() && !set.views().any(Set::recreates);
    (wishes && pod.ready_since.is_some_and(long) && !is_asked(pod))
        .then(|| "takes a Ready pod down that was not asked to hand over".to_owned())
}

/// Whether it was asked to hand over.
fn is_asked(pod: &Pod) -> bool {
    pod.json["metadata"]["annotations"]["stead.dev/hand-over-requested"].is_string()
}

/// Evictions leave as many pods as the disruption budget of the pod's set wants.
fn over_budget(model: &Model, name: &str, before: Option<&Pod>) -> Option<String> {
    let pod = before?;
    let (set, _) = place(name)?;
    let app = &pod.json["metadata"]["labels"]["app"];
    let budget = model.budgets.values().find(|budget| budget["spec"]["selector"]["matchLabels"]["app"] == *app)?;
    beyond(model, name, pod, budget, |other| place(other).is_some_and(|(s, _)| s == set))
}

/// And as many as a budget over several sets wants.
fn over_shared_budget(model: &Model, name: &str, before: Option<&Pod>) -> Option<String> {
    let is_strange = |pod: &Pod| pod.json["metadata"]["labels"]["app"] == "other";
    let pod = before.filter(|pod| pod.owner.is_some() && !is_strange(pod))?;
    beyond(model, name, pod, model.budgets.get(SHARED)?, |_| true)
}

/// Whether so many pods of a budget have been evicted and are not back that this one must stay.
fn beyond(model: &Model, name: &str, pod: &Pod, budget: &Value, covers: impl Fn(&str) -> bool) -> Option<String> {
    let allowed = budget["spec"]["maxUnavailable"].as_u64()? as usize;
    // A place that was given up meanwhile is nobody's loss.
    let wants = |set: &Set, ordinal| set.has(ordinal) && !set.deleting;
    let wanted =
        |other: &str| place(other).is_some_and(|(set, o)| model.sets.get(set).is_some_and(|set| wants(set, o)));
    // A budget may have been counted while a set was another one, or not there.
    let steady = model.sets.values().all(|set| long(set.range_since));
    if !pod.ready || !wanted(name) || !steady {
        return None;
    }
    let others: Vec<&String> =
        model.evicted.keys().filter(|other| *other != name && covers(other) && wanted(other)).collect();
    // What is there beyond what is wanted counts as healthy, as long as the budget has not been counted again.
    let beyond = |name: &str, other: &Pod| covers(name) && (other.owner.is_none() || !wanted(name));
    let more = model.pods.iter().filter(|(name, other)| beyond(name, other)).count();
    (others.len() >= allowed + more).then(|| format!("evicts while {others:?} are not back, {allowed} allowed"))
}
