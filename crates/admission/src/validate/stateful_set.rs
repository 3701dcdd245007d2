//! StatefulSets.

use serde_json::Value;
use stead_machinery::Path;
use stead_machinery::quantity::Quantity;

use super::pod::{self, Rules};
use super::{
    IntOrPercent, Judge, at_most_all, int_or_percent, non_negative, one_of, positive_int_or_percent, selector, storage,
};
use crate::names;
use crate::view::{Fill, View, same};

const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

const FORBIDDEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// The annotation by which a set asks that its claim templates may change, and its claims follow; not upstream's.
const GROW_CLAIMS: &str = "stead.dev/grow-claims";

/// How to have what claims cannot bear.
const MEND: &str =
    "add a template of another name, or delete the set with --cascade=orphan and create it anew with the new templates";

pub(super) fn stateful_set(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    super::wishes::warn(object, judge);
    let path = Path::new("spec");
    let spec = object.at("spec");
    let before = old.map(|old| old.at("spec"));
    policies(spec, &path, judge);
    numbers(spec, &path, judge);
    let at = path.child("selector");
    if spec.has("selector") {
        selector::selector(spec.at("selector"), &at, judge);
        if selector::is_empty(spec.at("selector")) {
            judge.errors.invalid(&at, spec.at("selector"), "empty selector is invalid for statefulset");
        }
    } else {
        judge.errors.required(&at, "");
    }
    template(spec, before, &path.child("template"), judge);
    claims(spec, before, &path.child("volumeClaimTemplates"), judge);
    let service = spec.text("serviceName");
    if !service.is_empty() && before.is_none_or(|old| old.text("serviceName") != service) {
        super::meta::invalid_all(&path.child("serviceName"), service, names::dns_label(service), judge.errors);
    }
    if let Some(before) = before {
        let mut kept = spec.clone();
        for field in MUTABLE {
            kept.put(field, before.at(field).clone());
        }
        if object.at("metadata.annotations").get(GROW_CLAIMS).is_some_and(|value| value == "true") {
            claim_templates(spec, before, &path.child("volumeClaimTemplates"), judge);
            kept.put("volumeClaimTemplates", before.at("volumeClaimTemplates").clone());
        }
        if !same(&kept, before) {
            judge.errors.forbidden(&path, FORBIDDEN);
        }
    }
}

/// Claim templates of a set whose claims follow them: what existing claims cannot follow is refused.
fn claim_templates(spec: &Value, before: &Value, path: &Path, judge: &mut Judge<'_>) {
    let name = |claim: &Value| claim.text("metadata.name").to_owned();
    let (new, old) = (spec.items("volumeClaimTemplates"), before.items("volumeClaimTemplates"));
    for gone in old.iter().map(name).filter(|gone| new.iter().all(|claim| name(claim) != *gone)) {
        let why = format!("template {gone:?} cannot be removed: claims were made from it; {MEND}");
        judge.errors.forbidden(path, &why);
    }
    for (i, claim) in new.iter().enumerate() {
        let at = path.index(i);
        if new[..i].iter().any(|earlier| name(earlier) == name(claim)) {
            judge.errors.duplicate(&at.child("metadata").child("name"), &name(claim));
        }
        let meta = at.child("metadata");
        super::meta::labels(claim.at("metadata.labels"), &meta.child("labels"), judge.errors);
        super::meta::annotations(claim.at("metadata.annotations"), &meta.child("annotations"), judge.errors);
        match old.iter().find(|old| name(old) == name(claim)) {
            Some(old) => changed_claim(claim, old, &at, judge),
            None => new_claim(claim, &at, judge),
        }
    }
}

/// Storage may grow, labels and annotations may change, and nothing else.
fn changed_claim(new: &Value, old: &Value, path: &Path, judge: &mut Judge<'_>) {
    const SIZE: &str = "spec.resources.requests.storage";
    let at = path.child("spec");
    let mut kept = new.clone();
    let size = |claim: &Value| claim.at(SIZE).as_str()?.parse::<Quantity>().ok();
    if size(new) < size(old) {
        let (from, to) = (old.text(SIZE), new.text(SIZE));
        let why = format!("cannot shrink from {from} to {to}: claims never do; {MEND}");
        judge.errors.forbidden(&at.child("resources").child("requests").child("storage"), &why);
    }
    for (field, what) in [("accessModes", "access modes"), ("storageClassName", "class")] {
        if !same(new.at("spec").at(field), old.at("spec").at(field)) {
            let why = format!("cannot be changed: claims keep their {what}; {MEND}");
            judge.errors.forbidden(&at.child(field), &why);
        }
        kept["spec"][field] = old.at("spec").at(field).clone();
    }
    if size(new).is_some() {
        kept["spec"]["resources"]["requests"]["storage"] = old.at(SIZE).clone();
    }
    for field in ["labels", "annotations"] {
        kept["metadata"][field] = old.at("metadata").at(field).clone();
    }
    if !same(&kept, old) {
        let why = format!("only the storage request may grow, and labels and annotations may change; {MEND}");
        judge.errors.forbidden(path, &why);
    }
}

fn policies(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    let policy = spec.text("podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy) {
        let why = "must be 'OrderedReady' or 'Parallel'";
        judge.errors.invalid(&path.child("podManagementPolicy"), &policy, why);
    }
    let (strategy, at) = (spec.at("updateStrategy"), path.child("updateStrategy"));
    let rolling = strategy.at("rollingUpdate");
    match strategy.text("type") {
        "RollingUpdate" => {
            let here = at.child("rollingUpdate");
            non_negative(rolling.at("partition"), &here.child("partition"), judge);
            let most = rolling.at("maxUnavailable");
            let here = here.child("maxUnavailable");
            positive_int_or_percent(most, &here, judge);
            if matches!(int_or_percent(most), IntOrPercent::Int(0) | IntOrPercent::Percent(0)) {
                judge.errors.invalid(&here, most, "cannot be 0");
            }
            at_most_all(most, &here, judge);
        }
        "OnDelete" | "Recreate" if !rolling.is_null() => {
            // Upstream shows its internal type, whose fields have their Go names.
            let (partition, most) = (rolling.int("partition").unwrap_or(0), rolling.at("maxUnavailable"));
            let shown = super::Raw(format!("{{\"Partition\":{partition},\"MaxUnavailable\":{most}}}"));
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            judge.errors.invalid(&at.child("rollingUpdate"), &shown, why);
        }
        "OnDelete" | "Recreate" => {}
        kind => {
            let shown = super::Raw(format!("{{\"Type\":{kind:?},\"RollingUpdate\":null}}"));
            judge.errors.invalid(&at, &shown, "must be 'RollingUpdate', 'OnDelete' or 'Recreate'");
        }
    }
    let (retention, at) =
        (spec.at("persistentVolumeClaimRetentionPolicy"), path.child("persistentVolumeClaimRetentionPolicy"));
    if !retention.is_null() {
        for field in ["whenDeleted", "whenScaled"] {
            let value = retention.text(field);
            if !["Retain", "Delete"].contains(&value) {
                judge.errors.not_supported(&at.child(field), &value, &["Retain", "Delete"]);
            }
        }
    }
}

fn numbers(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    non_negative(spec.at("replicas"), &path.child("replicas"), judge);
    non_negative(spec.at("minReadySeconds"), &path.child("minReadySeconds"), judge);
    non_negative(spec.at("ordinals.start"), &path.child("ordinals").child("start"), judge);
}

/// The template; one that is stored already is not judged again, so that old objects can still be changed.
fn template(spec: &Value, before: Option<&Value>, path: &Path, judge: &mut Judge<'_>) {
    let labels = spec.at("template.metadata.labels");
    if spec.has("selector")
        && !selector::is_empty(spec.at("selector"))
        && !selector::matches(spec.at("selector"), labels)
        || !spec.has("selector")
    {
        let at = path.child("metadata").child("labels");
        judge.errors.invalid(&at, labels, "`selector` does not match template `labels`");
    }
    if before.is_some_and(|old| same(old.at("template"), spec.at("template"))) {
        return;
    }
    let claims: Vec<&str> =
        spec.items("volumeClaimTemplates").iter().map(|claim| claim.text("metadata.name")).collect();
    pod::template(spec.at("template"), Rules { more_volumes: &claims, ..Rules::default() }, path, judge);
    let at = path.child("spec");
    let policy = spec.text("template.spec.restartPolicy");
    if policy != "Always" && ["OnFailure", "Never"].contains(&policy) {
        one_of(policy, &["Always"], &at.child("restartPolicy"), judge);
    }
    if spec.has("template.spec.activeDeadlineSeconds") {
        let why = "activeDeadlineSeconds in StatefulSet is not Supported";
        judge.errors.forbidden(&at.child("activeDeadlineSeconds"), why);
    }
}

fn claims(spec: &Value, before: Option<&Value>, path: &Path, judge: &mut Judge<'_>) {
    if before.is_some() {
        return;
    }
    for (i, claim) in spec.items("volumeClaimTemplates").iter().enumerate() {
        new_claim(claim, &path.index(i), judge);
    }
}

fn new_claim(claim: &Value, at: &Path, judge: &mut Judge<'_>) {
    let name = claim.text("metadata.name");
    if name.is_empty() {
        judge.errors.required(&at.child("metadata").child("name"), "");
    } else {
        super::meta::invalid_all(&at.child("metadata").child("name"), name, names::dns_label(name), judge.errors);
    }
    storage::claim_spec(claim.at("spec"), &at.child("spec"), judge);
}

/// Counts that cannot be.
pub(super) fn status(new: &Value, old: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("status");
    let status = new.at("status");
    let counts = ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    for field in counts.into_iter().chain(["observedGeneration", "collisionCount"]) {
        non_negative(status.at(field), &path.child(field), judge);
    }
    let count = |field: &str| status.int(field).unwrap_or(0);
    for field in &counts[1..] {
        if count(field) > count("replicas") {
            judge.errors.invalid(&path.child(field), &count(field), "cannot be greater than status.replicas");
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let why = "cannot be greater than status.readyReplicas";
        judge.errors.invalid(&path.child("availableReplicas"), &count("availableReplicas"), why);
    }
    let before = old.int("status.collisionCount");
    if before.is_some_and(|before| count("collisionCount") < before) {
        judge.errors.invalid(&path.child("collisionCount"), &count("collisionCount"), "cannot be decremented");
    }
}
