//! Whether the cluster is as its objects say: what must become true after the faults, and stay.

use serde_json::Value;

use crate::model::{Model, Pod, Set, place};

/// The first thing that is not as it should be.
///
/// # Errors
/// What that is.
pub(crate) fn settled(model: &Model) -> Result<(), String> {
    for set in model.sets.values() {
        if set.deleting {
            return Err(format!("set {} is still being deleted", set.name()));
        }
        // Those above a pod that fits nowhere wait for it.
        let own = |pod: &&Pod| pod.owner.as_ref() == Some(&set.uid);
        if model.pods.values().filter(own).any(|pod| torn(model, pod)) {
            continue;
        }
        pods(model, set)?;
        claims(model, set)?;
        status(model, set)?;
    }
    for (name, budget) in &model.budgets {
        if budget["status"]["disruptedPods"].is_object() {
            return Err(format!("budget {name} still waits for a pod that was evicted"));
        }
    }
    for (name, pod) in &model.pods {
        let Some(owner) = pod.owner.as_ref().filter(|_| pod.owner_kind == "StatefulSet") else { continue };
        let (set, ordinal) = place(name).ok_or_else(|| format!("pod {name} has no ordinal"))?;
        let set = model.sets.get(set).filter(|set| set.uid == *owner);
        if !set.is_some_and(|set| set.has(ordinal)) {
            return Err(format!("pod {name} is left over"));
        }
    }
    // One that is being deleted waits for a pod that has it.
    for (name, claim) in model.claims.iter().filter(|(_, claim)| !claim.deleting) {
        let owners = claim.json["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        for owner in owners {
            let uid = owner["uid"].as_str().unwrap_or("");
            let there = model.pods.values().any(|pod| pod.uid == uid) || model.sets.values().any(|set| set.uid == uid);
            if !there {
                return Err(format!("claim {name} has lost its owner {} and is still there", owner["name"]));
            }
        }
    }
    Ok(())
}

fn pods(model: &Model, set: &Set) -> Result<(), String> {
    for ordinal in set.running() {
        let name = format!("{}-{ordinal}", set.name());
        let pod = model.pods.get(&name).ok_or_else(|| format!("pod {name} is missing"))?;
        if pod.owner.as_ref() != Some(&set.uid) {
            return Err(format!("pod {name} is another owner's"));
        }
        if !pod.ready || pod.terminating {
            return Err(format!("pod {name} is not Ready"));
        }
        let free = set.on_delete() || ordinal - set.start < set.partition();
        if !free && !set.is_updated(&name, pod) {
            return Err(format!("pod {name} is of an old revision, or lacks volumes"));
        }
    }
    Ok(())
}

/// Whether the volumes of a pod are on several nodes, as those of a set may be that had one more template once, then not,
/// then again: it fits nowhere, until people give a volume up.
fn torn(model: &Model, pod: &Pod) -> bool {
    let claims = pod.json["spec"]["volumes"].as_array().into_iter().flatten();
    let claims = claims.filter_map(|volume| model.claims.get(volume["persistentVolumeClaim"]["claimName"].as_str()?));
    let volumes = claims.filter_map(|claim| model.volumes.get(claim.json["spec"]["volumeName"].as_str()?));
    let mut places: Vec<String> = volumes.map(|volume| volume["spec"]["nodeAffinity"].to_string()).collect();
    places.dedup();
    places.len() > 1
}

fn claims(model: &Model, set: &Set) -> Result<(), String> {
    for ordinal in set.running() {
        for template in set.templates() {
            let name = format!("{template}-{}-{ordinal}", set.name());
            let claim = model.claims.get(&name).ok_or_else(|| format!("claim {name} is missing"))?;
            if claim.json["status"]["phase"] != "Bound" {
                return Err(format!("claim {name} is not Bound"));
            }
            // Sizes are 1Gi and 2Gi here.
            let size = |claim: &Value| claim["spec"]["resources"]["requests"]["storage"].as_str().map(str::to_owned);
            let grown = set.template(template).is_none_or(|template| size(&claim.json) >= size(template));
            if set.annotation("stead.dev/grow-claims") == Some("true") && !grown && !claim.deleting {
                return Err(format!("claim {name} is not of the size of its template"));
            }
        }
    }
    Ok(())
}

fn status(_model: &Model, set: &Set) -> Result<(), String> {
    let status = &set.json["status"];
    let number = |field: &str| status[field].as_u64().unwrap_or(0);
    let wanted = set.running().count() as u64;
    if status["observedGeneration"] != set.json["metadata"]["generation"] {
        return Err(format!("set {} has not been observed", set.name()));
    }
    for field in ["replicas", "readyReplicas", "availableReplicas"] {
        if number(field) != wanted {
            return Err(format!("set {} says {field} {} instead of {wanted}", set.name(), number(field)));
        }
    }
    if !set.on_delete() && set.partition() == 0 {
        if number("updatedReplicas") != wanted {
            return Err(format!("set {} says updatedReplicas {}", set.name(), number("updatedReplicas")));
        }
        if status["currentRevision"] != status["updateRevision"] {
            return Err(format!("set {} still has two revisions", set.name()));
        }
    }
    Ok(())
}
