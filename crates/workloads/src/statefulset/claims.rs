//! Claims of a StatefulSet: their form, and who owns them under `persistentVolumeClaimRetentionPolicy`.
//!
//! | whenDeleted / whenScaled | owner while the ordinal is wanted | owner once it is not |
//! |---|---|---|
//! | Retain / Retain | none | none |
//! | Delete / Retain | the set | the set |
//! | Retain / Delete | none | the pod |
//! | Delete / Delete | the set | the pod |
//!
//! A claim is deleted by the garbage collector when its owner is gone, never by this controller. A claim that refers
//! to an *earlier* set or pod of the same name is left alone.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::identity::{claim_name, claim_templates, set_ref};
use super::snapshot::Claims;
use super::wishes;
use crate::claims::matching::requested;

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
            let owners = Owners { set: &set, pod_name: "web-0".into(), pod_uid: "pod", scaled_down: false };
            let seen = look(&owners, 0, &|_| Some(Arc::new(claim.clone())));
            assert_eq!(seen.small, expected, "{asked}: {phase} {has} to {template}");
        }
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
