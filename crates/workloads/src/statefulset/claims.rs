//! Claims of a StatefulSet: their form, and who owns them under `persistentVolumeClaimRetentionPolicy`.
//!
//! | whenDeleted / whenScaled | owner while the ordinal is wanted | owner once it is not |
//! |---|---|---|
//! | Retain / Retain | none | none |
//! | Delete / Retain | the set | the set |
//! | Retain / Delete | none | the pod |
//! | Delete / Delete | the set | the pod |
//!
//! With [`wishes::GROW_CLAIMS`] claims follow their templates: they grow, and have their labels and annotations; the
//! condition `ClaimsUpToDate` of the set says which do not yet, and why.
//!
//! A claim is deleted by the garbage collector when its owner is gone, never by this controller. A claim that refers
//! to an *earlier* set or pod of the same name is left alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetCondition};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

use super::identity::{claim_name, claim_templates, ordinals, set_ref};
use super::snapshot::Claims;
use super::wishes;
use crate::claims::matching::{amount, requested};

/// The type of the condition that tells how the claims follow their templates.
pub(super) const CONDITION: &str = "ClaimsUpToDate";
/// How many claims the condition names.
const NAMED_MAX: usize = 8;

/// Labels, or annotations.
pub type Metadata = BTreeMap<String, String>;

/// Who may own the claims of one ordinal.
#[derive(Clone, Debug)]
pub struct Owners<'a> {
    pub set: &'a StatefulSet,
    pub pod_name: String,
    /// Empty when there is no pod.
    pub pod_uid: &'a str,
    /// The ordinal is no longer wanted.
    pub scaled_down: bool,
}

/// `Delete` or, by default, `Retain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Retention {
    delete_with_set: bool,
    delete_on_scale: bool,
}

impl Retention {
    fn of(set: &StatefulSet) -> Self {
        let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = |value: Option<&String>| value.is_some_and(|value| value == "Delete");
        Self {
            delete_with_set: deletes(policy.and_then(|p| p.when_deleted.as_ref())),
            delete_on_scale: deletes(policy.and_then(|p| p.when_scaled.as_ref())),
        }
    }

    fn retains_all(self) -> bool {
        !self.delete_with_set && !self.delete_on_scale
    }
}

/// The claims that the pod of `ordinal` needs, ready to be created: with labels, and with the owner already that
/// the retention policy asks for.
#[must_use]
pub fn wanted(set: &StatefulSet, ordinal: u32) -> Vec<PersistentVolumeClaim> {
    let selector = set.spec.selector.match_labels.clone().unwrap_or_default();
    let owner = Retention::of(set).delete_with_set.then(|| vec![set_ref(set)]);
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        claim.metadata.labels.get_or_insert_default().extend(selector.clone());
        if owner.is_some() {
            claim.metadata.owner_references.clone_from(&owner);
        }
        claim.status = None;
        claim
    };
    claim_templates(set).iter().map(claim).collect()
}

/// What is remarkable about the claims of one ordinal.
#[must_use]
pub fn look(owners: &Owners<'_>, ordinal: u32, find: &dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>>) -> Claims {
    let mut seen = Claims::default();
    let grows = wishes::grows_claims(owners.set) && !owners.scaled_down;
    let scaling_deletes = Retention::of(owners.set).delete_on_scale;
    for template in claim_templates(owners.set) {
        let Some(claim) = find(&claim_name(owners.set, template, ordinal)) else {
            seen.missing = true;
            continue;
        };
        seen.deleting |= claim.metadata.deletion_timestamp.is_some();
        seen.stale |= scaling_deletes && owners.is_stale_pod(&claim);
        seen.owners |= !owners.are_right(&claim);
        seen.small |= grows && is_small(template, &claim);
        seen.unlabelled |= grows && lacks(owners.set, template, &claim).is_some();
    }
    seen
}

/// Whether `claim` asks for less than its template does by now, and may ask for more: only bound ones may.
#[must_use]
pub fn is_small(template: &PersistentVolumeClaim, claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.deletion_timestamp.is_none() && is_bound(claim) && requested(claim) < requested(template)
}

/// Whether `claim` has its volume.
#[must_use]
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// The labels and annotations that `claim` should have by its template and does not have; what is more is left.
#[must_use]
pub fn lacks(
    set: &StatefulSet,
    template: &PersistentVolumeClaim,
    claim: &PersistentVolumeClaim,
) -> Option<(Metadata, Metadata)> {
    if claim.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut labels = template.metadata.labels.clone().unwrap_or_default();
    labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
    let mut annotations = template.metadata.annotations.clone().unwrap_or_default();
    let differs = |has: &Option<Metadata>, key: &str, value: &str| {
        has.as_ref().and_then(|has| has.get(key)).is_none_or(|present| present != value)
    };
    labels.retain(|key, value| differs(&claim.metadata.labels, key, value));
    annotations.retain(|key, value| differs(&claim.metadata.annotations, key, value));
    (!labels.is_empty() || !annotations.is_empty()).then_some((labels, annotations))
}

/// How the claims of the wanted ordinals follow their templates, for sets that ask for it. `refused`: by name, why a
/// claim was not allowed to follow.
#[must_use]
pub fn condition(
    set: &StatefulSet,
    find: &dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
    refused: &BTreeMap<String, String>,
    now: Timestamp,
) -> Option<StatefulSetCondition> {
    if !wishes::grows_claims(set) || set.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let (mut behind, mut total, mut reason) = (Vec::new(), 0_usize, "ClaimsUpToDate");
    for ordinal in ordinals(set) {
        for template in claim_templates(set) {
            total += 1;
            let name = claim_name(set, template, ordinal);
            let claim = find(&name);
            let Some(what) = behind_template(set, template, claim.as_deref()) else { continue };
            let why = refused.get(&name);
            reason = if why.is_some() || reason == "ClaimsRefused" { "ClaimsRefused" } else { "ClaimsChanging" };
            behind.push(format!("{name} {what}{}", why.map(|why| format!(": {why}")).unwrap_or_default()));
        }
    }
    let status = if behind.is_empty() { "True" } else { "False" };
    let more = behind.len().saturating_sub(NAMED_MAX);
    behind.truncate(NAMED_MAX);
    let mut message = behind.join("; ");
    if more > 0 {
        message += &format!("; and {more} more");
    }
    if message.is_empty() {
        message = format!("claims that are as their templates ask: {total}");
    }
    let before = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let before = before.into_iter().find(|condition| condition.type_.as_deref() == Some(CONDITION));
    let since = before.filter(|before| before.status.as_deref() == Some(status));
    let since = since.and_then(|before| before.last_transition_time.clone()).unwrap_or(Time(now));
    Some(StatefulSetCondition {
        type_: Some(CONDITION.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(since),
    })
}

/// In what a claim is not yet as its template asks.
fn behind_template(
    set: &StatefulSet,
    template: &PersistentVolumeClaim,
    claim: Option<&PersistentVolumeClaim>,
) -> Option<String> {
    let Some(claim) = claim else { return Some("does not exist yet".to_owned()) };
    if claim.metadata.deletion_timestamp.is_some() {
        return Some("is being deleted".to_owned());
    }
    let wanted = requested(template);
    if requested(claim) < wanted {
        return Some(format!("asks for {} of {wanted}", requested(claim)));
    }
    let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
    if capacity.is_some_and(|has| amount(Some(has)) < wanted) {
        return Some(format!("has {} of {wanted}", amount(capacity)));
    }
    lacks(set, template, claim).map(|_| "lacks labels or annotations".to_owned())
}

impl Owners<'_> {
    /// Whether the owner references of `claim` are what they should be, or are not ours to change.
    #[must_use]
    pub fn are_right(&self, claim: &PersistentVolumeClaim) -> bool {
        if self.is_stale_set(claim) || self.is_stale_pod(claim) {
            return true;
        }
        let (by_set, by_pod) = (self.owned_by_set(claim), self.owned_by_pod(claim));
        if self.has_foreign_controller(claim) {
            return !by_set && !by_pod;
        }
        if refs(claim).iter().any(|r| (self.is_set(r) || self.is_pod(r)) && r.controller != Some(true)) {
            return false;
        }
        let (set, pod) = self.wanted();
        by_set == set && by_pod == pod
    }

    /// The references that `claim` should have: ours taken out and put in as the policy says, those of others kept.
    #[must_use]
    pub fn mended(&self, claim: &PersistentVolumeClaim) -> Vec<OwnerReference> {
        let foreign = self.has_foreign_controller(claim);
        let mut refs: Vec<_> = refs(claim).iter().filter(|r| !self.is_set(r) && !self.is_pod(r)).cloned().collect();
        if foreign {
            return refs;
        }
        let (set, pod) = self.wanted();
        if set {
            refs.push(set_ref(self.set));
        }
        if pod {
            refs.push(OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: self.pod_name.clone(),
                uid: self.pod_uid.to_owned(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            });
        }
        refs
    }

    /// Something else claims to manage this claim, so the retention policy cannot.
    #[must_use]
    pub fn has_foreign_controller(&self, claim: &PersistentVolumeClaim) -> bool {
        if Retention::of(self.set).retains_all() {
            return false;
        }
        refs(claim).iter().any(|r| match () {
            () if self.is_set(r) => Some(&r.uid) != self.set.metadata.uid.as_ref(),
            () if self.is_pod(r) => r.uid != self.pod_uid,
            () => r.controller == Some(true),
        })
    }

    /// Whether the set and whether the pod should own the claim.
    fn wanted(&self) -> (bool, bool) {
        let retention = Retention::of(self.set);
        let pod = retention.delete_on_scale && self.scaled_down;
        (retention.delete_with_set && !pod, pod)
    }

    fn is_set(&self, r: &OwnerReference) -> bool {
        r.kind == "StatefulSet"
            && r.api_version.starts_with("apps/")
            && Some(&r.name) == self.set.metadata.name.as_ref()
    }

    fn is_pod(&self, r: &OwnerReference) -> bool {
        r.kind == "Pod" && r.api_version == "v1" && r.name == self.pod_name
    }

    fn owned_by_set(&self, claim: &PersistentVolumeClaim) -> bool {
        refs(claim).iter().any(|r| Some(&r.uid) == self.set.metadata.uid.as_ref())
    }

    fn owned_by_pod(&self, claim: &PersistentVolumeClaim) -> bool {
        !self.pod_uid.is_empty() && refs(claim).iter().any(|r| r.uid == self.pod_uid)
    }

    fn is_stale_set(&self, claim: &PersistentVolumeClaim) -> bool {
        refs(claim).iter().any(|r| self.is_set(r) && Some(&r.uid) != self.set.metadata.uid.as_ref())
    }

    fn is_stale_pod(&self, claim: &PersistentVolumeClaim) -> bool {
        refs(claim).iter().any(|r| self.is_pod(r) && r.uid != self.pod_uid)
    }
}

fn refs(claim: &PersistentVolumeClaim) -> &[OwnerReference] {
    claim.metadata.owner_references.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(when_deleted: &str, when_scaled: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "set"},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}}, "template": {},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted, "whenScaled": when_scaled},
                "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": {"l": "1"}}, "spec": {}, "status": {}}],
            },
        }))
        .expect("a set")
    }

    /// `set`, `pod` and `other` are controllers; `old set` and `old pod` have our names but other uids.
    fn claim(owners: &[&str]) -> PersistentVolumeClaim {
        let reference = |owner: &&str| {
            let (kind, name) = match *owner {
                "set" | "old set" => ("apps/v1 StatefulSet", "web"),
                "pod" | "old pod" => ("v1 Pod", "web-0"),
                other => ("example.com/v1 Thing", other),
            };
            let (api_version, kind) = kind.split_once(' ').expect("two words");
            json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": owner, "controller": true})
        };
        let refs: Vec<_> = owners.iter().map(reference).collect();
        serde_json::from_value(json!({"metadata": {"name": "data-web-0", "ownerReferences": refs}})).expect("a claim")
    }

    fn mend(set: &StatefulSet, scaled_down: bool, before: &[&str]) -> String {
        let owners = Owners { set, pod_name: "web-0".into(), pod_uid: "pod", scaled_down };
        let mut claim = claim(before);
        if owners.are_right(&claim) {
            return "as is".to_owned();
        }
        claim.metadata.owner_references = Some(owners.mended(&claim));
        assert!(owners.are_right(&claim), "mending must settle: {claim:?}");
        refs(&claim).iter().map(|r| r.uid.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_owner_follows_the_retention_policy() {
        for (deleted, scaled, scaled_down, before, expected) in [
            ("Retain", "Retain", false, vec![], "as is"),
            ("Retain", "Retain", true, vec![], "as is"),
            ("Retain", "Retain", false, vec!["set"], ""),
            ("Retain", "Retain", true, vec!["pod"], ""),
            ("Delete", "Retain", false, vec![], "set"),
            ("Delete", "Retain", true, vec![], "set"),
            ("Delete", "Retain", true, vec!["pod"], "set"),
            ("Retain", "Delete", false, vec![], "as is"),
            ("Retain", "Delete", false, vec!["pod"], ""),
            ("Retain", "Delete", true, vec![], "pod"),
            ("Delete", "Delete", false, vec!["set"], "as is"),
            ("Delete", "Delete", true, vec!["set"], "pod"),
            ("Delete", "Delete", false, vec!["pod"], "set"),
        ] {
            let got = mend(&set(deleted, scaled), scaled_down, &before);
            assert_eq!(got, expected, "{deleted}/{scaled} scaled down {scaled_down} {before:?}");
        }
    }

    #[test]
    fn claims_of_an_earlier_set_or_pod_of_that_name_are_left_alone() {
        let set = set("Delete", "Delete");
        assert_eq!(mend(&set, false, &["old set"]), "as is");
        assert_eq!(mend(&set, true, &["old pod"]), "as is");
        assert_eq!(mend(&set, false, &["old set", "pod"]), "as is");
    }

    #[test]
    fn a_foreign_controller_keeps_the_claim_and_ours_are_scrubbed() {
        let set = set("Delete", "Delete");
        assert_eq!(mend(&set, false, &["other"]), "as is");
        assert_eq!(mend(&set, false, &["other", "set"]), "other");
    }

    #[test]
    fn a_claim_of_an_earlier_pod_is_stale_only_when_scaling_deletes() {
        for (scaled, expected) in [("Delete", true), ("Retain", false)] {
            let set = set("Retain", scaled);
            let owners = Owners { set: &set, pod_name: "web-0".into(), pod_uid: "", scaled_down: false };
            let find = |_: &str| Some(Arc::new(claim(&["old pod"])));
            assert_eq!(look(&owners, 0, &find).stale, expected, "{scaled}");
        }
    }

    #[test]
    fn claims_grow_with_their_template_where_the_set_asks_for_it() {
        let request = |size: &str| json!({"resources": {"requests": {"storage": size}}});
        for (asked, template, has, phase, expected) in [
            ("true", "2Gi", "1Gi", "Bound", true),
            ("true", "2Gi", "1Gi", "Pending", false),
            ("true", "1Gi", "1024Mi", "Bound", false),
            ("true", "1Gi", "2Gi", "Bound", false),
            ("false", "2Gi", "1Gi", "Bound", false),
        ] {
            let mut set = set("Retain", "Retain");
            set.metadata.annotations = Some([(wishes::GROW_CLAIMS.to_owned(), asked.to_owned())].into());
            let templates = set.spec.volume_claim_templates.as_mut().expect("templates");
            templates[0].spec = serde_json::from_value(request(template)).expect("a spec");
            let mut claim = claim(&[]);
            claim.spec = serde_json::from_value(request(has)).expect("a spec");
            claim.status = serde_json::from_value(json!({"phase": phase})).expect("a status");
            for scaled_down in [false, true] {
                let owners = Owners { set: &set, pod_name: "web-0".into(), pod_uid: "pod", scaled_down };
                let seen = look(&owners, 0, &|_| Some(Arc::new(claim.clone())));
                assert_eq!(seen.small, expected && !scaled_down, "{asked}: {phase} {has} to {template}, {scaled_down}");
            }
        }
    }

    #[test]
    fn claims_get_the_labels_and_annotations_of_their_template_where_the_set_asks_for_it() {
        let mut set = set("Retain", "Retain");
        let template =
            |value: serde_json::Value| serde_json::from_value::<PersistentVolumeClaim>(value).expect("a template");
        set.spec.volume_claim_templates = Some(vec![template(
            json!({"metadata": {"name": "data", "labels": {"l": "2"}, "annotations": {"a": "1"}}}),
        )]);
        let mut claim = claim(&[]);
        claim.metadata.labels = Some([("l".to_owned(), "1".to_owned()), ("mine".to_owned(), "x".to_owned())].into());
        let look_at = |set: &StatefulSet, claim: &PersistentVolumeClaim| {
            let owners = Owners { set, pod_name: "web-0".into(), pod_uid: "pod", scaled_down: false };
            look(&owners, 0, &|_| Some(Arc::new(claim.clone()))).unlabelled
        };
        assert!(!look_at(&set, &claim), "not asked for");
        set.metadata.annotations = Some([(wishes::GROW_CLAIMS.to_owned(), "true".to_owned())].into());
        assert!(look_at(&set, &claim));
        let (labels, annotations) = lacks(&set, &claim_templates(&set)[0], &claim).expect("something");
        assert_eq!(json!([labels, annotations]), json!([{"app": "web", "l": "2"}, {"a": "1"}]));
        claim.metadata.labels.get_or_insert_default().extend(labels);
        claim.metadata.annotations.get_or_insert_default().extend(annotations);
        assert!(!look_at(&set, &claim), "what is more is left");
    }

    #[test]
    fn the_condition_names_each_claim_that_is_behind_and_why() {
        let mut set = set("Retain", "Retain");
        set.metadata.annotations = Some([(wishes::GROW_CLAIMS.to_owned(), "true".to_owned())].into());
        set.spec.replicas = Some(1);
        let request = |size: &str| json!({"resources": {"requests": {"storage": size}}});
        let templates = set.spec.volume_claim_templates.as_mut().expect("templates");
        templates[0].spec = serde_json::from_value(request("2Gi")).expect("a spec");
        let now = Timestamp::from_second(9).expect("a time");
        for (asks, has, refused, expected) in [
            ("", "", "", "False ClaimsChanging data-web-0 does not exist yet"),
            ("1Gi", "1Gi", "", "False ClaimsChanging data-web-0 asks for 1Gi of 2Gi"),
            ("1Gi", "1Gi", "no", "False ClaimsRefused data-web-0 asks for 1Gi of 2Gi: no"),
            ("2Gi", "1Gi", "", "False ClaimsChanging data-web-0 has 1Gi of 2Gi"),
            ("2Gi", "2Gi", "", "True ClaimsUpToDate claims that are as their templates ask: 1"),
        ] {
            let mut claim = claim(&[]);
            claim.spec = serde_json::from_value(request(asks)).expect("a spec");
            claim.status = serde_json::from_value(json!({"capacity": {"storage": has}})).expect("a status");
            let (labels, _) = lacks(&set, &claim_templates(&set)[0], &claim).unwrap_or_default();
            claim.metadata.labels = Some(labels);
            let found = (!asks.is_empty()).then(|| Arc::new(claim));
            let refused =
                [("data-web-0".to_owned(), refused.to_owned())].into_iter().filter(|(_, why)| !why.is_empty());
            let told = condition(&set, &|_| found.clone(), &refused.collect(), now).expect("asked for");
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            assert_eq!(format!("{} {} {}", text(&told.status), text(&told.reason), text(&told.message)), expected);
        }
        set.metadata.deletion_timestamp = Some(Time(now));
        assert_eq!(condition(&set, &|_| None, &BTreeMap::new(), now), None, "it goes");
        set.metadata.deletion_timestamp = None;
        let told = condition(&set, &|_| None, &BTreeMap::new(), now);
        set.status = serde_json::from_value(json!({"replicas": 0, "conditions": [told]})).expect("a status");
        let later = Timestamp::from_second(99).expect("a time");
        assert_eq!(condition(&set, &|_| None, &BTreeMap::new(), later), told, "since when it has been so stays");
        set.metadata.annotations = None;
        assert_eq!(condition(&set, &|_| None, &BTreeMap::new(), now), None);
    }

    #[test]
    fn a_new_claim_has_both_kinds_of_labels_and_its_owner_from_the_start() {
        let claims = wanted(&set("Delete", "Retain"), 3);
        assert_eq!(
            serde_json::to_value(&claims).expect("json"),
            json!([{
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {
                    "name": "data-web-3", "namespace": "ns", "labels": {"app": "web", "l": "1"},
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "set",
                        "controller": true, "blockOwnerDeletion": true,
                    }],
                },
                "spec": {},
            }])
        );
    }
}
