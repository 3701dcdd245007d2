//! What must never happen, judged at every write, before the model takes it in.
//!
//! A controller acts on what it sees, and may see it late. So a rule that compares with the present state counts only
//! what has been true for longer than anybody's view can be behind ([`BEHIND_MAX`]), or what the same process did itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Claim, Model, Pod, Set, place};
use crate::world::{Actor, Part};

/// How far behind the present a controller's view may be while there are faults.
pub(crate) const BEHIND_MAX: Duration = Duration::from_secs(90);

fn long(since: Instant) -> bool {
    since.elapsed() > BEHIND_MAX
}

/// Whether everybody must have known for long that the pod counts as available: only then is it a loss.
fn is_available(set: &Set, pod: &Pod) -> bool {
    let seconds = set.json["spec"]["minReadySeconds"].as_u64().unwrap_or(0);
    let wait = Duration::from_secs(seconds) + if seconds > 0 { BEHIND_MAX } else { Duration::ZERO };
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
            match (before, now) {
                (None, Some(pod)) => {
                    judge(unwanted(model, name, pod));
                    judge(out_of_order(model, name, pod));
                    judge(beside_an_old_one(model, name, pod));
                }
                (Some(pod), _) if begins_to_end => {
                    judge(removed_out_of_order(model, name, pod));
                    judge(disrupted(model, actor, name, pod));
                }
                _ => {}
            }
        }
        Part::Garbage if begins_to_end => judge(before.and_then(|pod| still_owned(model, &pod.json))),
        Part::Garbage | Part::Scheduler | Part::Upkeep | Part::Claims | Part::Node(_) | Part::Server => {}
        Part::User => {}
    }
    if actor.evicts && begins_to_end {
        judge(over_budget(model, name, before));
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

/// No pod is made for a set that is gone, or that has not wanted it for long.
fn unwanted(model: &Model, name: &str, pod: &Pod) -> Option<String> {
    let (_, gone) = model.ever.get(pod.owner.as_ref()?)?;
    if gone.is_some_and(long) {
        return Some("creates a pod for a set that is gone".to_owned());
    }
    let (set, ordinal) = place(name)?;
    let set = model.sets.get(set).filter(|set| Some(&set.uid) == pod.owner.as_ref())?;
    let unwanted = !set.has(ordinal) && long(set.range_since) && reserved(set).is_none();
    unwanted.then(|| format!("creates a pod beyond the range {}..{}", set.start, set.start + set.replicas))
}

fn reserved(set: &Set) -> Option<&str> {
    set.annotation("stead.dev/reserve-ordinals")
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
fn removed_out_of_order(model: &Model, name: &str, pod: &Pod) -> Option<String> {
    let (set_name, ordinal) = place(name)?;
    let set = model.sets.get(set_name).filter(|set| Some(&set.uid) == pod.owner.as_ref() && set.ordered)?;
    if set.has(ordinal) && !set.deleting {
        return None;
    }
    let above = model.pods.iter().find(|(other, other_pod)| {
        let above = place(other).is_some_and(|(s, o)| s == set_name && o > ordinal && (!set.has(o) || set.deleting));
        above && other_pod.owner == pod.owner && long(other_pod.since) && long(set.range_since)
    });
    above.map(|(other, _)| format!("removes a pod while {other} above it is still there"))
}

/// A roll-out takes no more Ready pods down than its budget allows, none that it is to leave alone, and goes from the top.
fn disrupted(model: &Model, actor: Actor, name: &str, pod: &Pod) -> Option<String> {
    let (set_name, ordinal) = place(name)?;
    let set = model.sets.get(set_name).filter(|set| Some(&set.uid) == pod.owner.as_ref() && !set.deleting)?;
    if !is_available(set, pod) || !set.has(ordinal) {
        return None;
    }
    // All go at once, and may still do so for somebody who sees the spec of a moment ago.
    let recreates = set.recreates() || set.recreated.is_some_and(|then| !long(then));
    if !long(set.spec_since) {
        return if recreates { None } else { too_many(model, actor, set, ordinal) };
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
    if set.is_updated(name, pod) {
        return Some("replaces a pod that is up to date".to_owned());
    }
    if recreates {
        return None;
    }
    let waiting = (ordinal + 1..set.start + set.replicas).find(|above| {
        let name = format!("{set_name}-{above}");
        model
            .pods
            .get(&name)
            .is_some_and(|pod| !set.is_updated(&name, pod) && !pod.terminating && pod.ready_since.is_some_and(long))
    });
    if let Some(above) = waiting {
        return Some(format!("replaces a pod before {set_name}-{above} above it"));
    }
    too_many(model, actor, set, ordinal)
}

fn too_many(model: &Model, actor: Actor, set: &Set, ordinal: u32) -> Option<String> {
    let down: Vec<u32> = model
        .down
        .iter()
        .filter(|((uid, other), down)| {
            *uid == set.uid && *other != ordinal && set.has(*other) && (down.by == Some(actor) || long(down.since))
        })
        .map(|((_, other), _)| *other)
        .collect();
    // The budget may have just been made smaller.
    let allowed =
        if long(set.spec_since) { set.max_unavailable() as usize } else { set.max_unavailable().max(3) as usize };
    (down.len() >= allowed).then(|| format!("takes a Ready pod down while {down:?} are not Ready, {allowed} allowed"))
}

/// The garbage collector removes only what has lost every owner.
fn still_owned(model: &Model, json: &serde_json::Value) -> Option<String> {
    let owners = json["metadata"]["ownerReferences"].as_array()?;
    let alive = owners.iter().find(|owner| {
        let uid = owner["uid"].as_str().unwrap_or("");
        let pod = model.pods.values().any(|pod| pod.uid == uid && !pod.terminating);
        pod || model.sets.values().any(|set| set.uid == uid && !set.deleting)
    })?;
    Some(format!("collects what still has its owner {} {}", alive["kind"], alive["name"]))
}

/// A write to a claim.
pub(crate) fn claim(model: &Model, actor: Actor, name: &str, now: Option<&Claim>) -> Vec<String> {
    let Some(before) = model.claims.get(name) else { return Vec::new() };
    let begins_to_end = !before.deleting && now.is_none_or(|claim| claim.deleting || claim.uid != before.uid);
    let mut faults = Vec::new();
    let freed = before.scaled_policy && before.out_of_range || before.deleted_policy && before.set_gone;
    if begins_to_end && actor.part != Part::User && !freed {
        faults.push("deletes a claim that its policy retains".to_owned());
    }
    if begins_to_end && actor.part == Part::Garbage {
        faults.extend(still_owned(model, &before.json));
    }
    if begins_to_end && actor.part == Part::Sets {
        faults.push("deletes a claim itself".to_owned());
    }
    faults
}

/// Evictions leave as many pods as the disruption budget wants.
fn over_budget(model: &Model, name: &str, before: Option<&Pod>) -> Option<String> {
    let pod = before.filter(|pod| pod.ready)?;
    let app = &pod.json["metadata"]["labels"]["app"];
    let budget = model.budgets.values().find(|budget| budget["spec"]["selector"]["matchLabels"]["app"] == *app)?;
    let allowed = budget["spec"]["maxUnavailable"].as_u64()? as usize;
    let (set, _) = place(name)?;
    // A place that was given up meanwhile is nobody's loss.
    let wanted =
        |other: &str| place(other).is_some_and(|(s, o)| s == set && model.sets.get(s).is_some_and(|s| s.has(o)));
    let others: Vec<&String> = model.evicted.keys().filter(|other| *other != name && wanted(other)).collect();
    (others.len() >= allowed).then(|| format!("evicts while {others:?} are not back, {allowed} allowed"))
}
