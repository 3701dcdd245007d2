//! Claims and volumes: what may be deleted, and what belongs to what.

use serde_json::Value;

use super::still_owned;
use crate::model::{Claim, Model};
use crate::world::{Actor, Part};

/// A write to a claim.
pub(crate) fn claim(model: &Model, actor: Actor, name: &str, now: Option<&Claim>) -> Vec<String> {
    let mut faults: Vec<String> = now.and_then(|claim| shared(model, name, claim)).into_iter().collect();
    let Some(before) = model.claims.get(name) else { return faults };
    let begins_to_end = !before.deleting && now.is_none_or(|claim| claim.deleting || claim.uid != before.uid);
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

/// A volume belongs to one claim.
fn shared(model: &Model, name: &str, claim: &Claim) -> Option<String> {
    let volume = claim.json["spec"]["volumeName"].as_str().filter(|volume| !volume.is_empty())?;
    let has_it = |other: &Claim| other.json["spec"]["volumeName"] == volume;
    let (other, _) = model.claims.iter().find(|(other, claim)| *other != name && has_it(claim))?;
    Some(format!("has the volume {volume} of {other}"))
}

/// A write to a volume: none goes that a claim still has, but for what people do.
pub(crate) fn volume(model: &Model, actor: Actor, name: &str, now: Option<&Value>) -> Vec<String> {
    let going = |volume: &Value| volume["metadata"]["deletionTimestamp"].is_string();
    let begins_to_end = model.volumes.get(name).is_some_and(|before| !going(before)) && now.is_none_or(going);
    if actor.part == Part::User || !begins_to_end {
        return Vec::new();
    }
    let holder = model.claims.iter().find(|(_, claim)| claim.json["spec"]["volumeName"] == name && !claim.deleting);
    holder.map(|(claim, _)| format!("deletes the volume of claim {claim}")).into_iter().collect()
}
