//! Who owns what: adoption of orphans and release of what no longer matches.
//!
//! The rules of `pkg/controller/controller_ref_manager.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What to do about one object that a controller might own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours and matches.
    Keep,
    /// It is ours by reference but no longer matches: give it up.
    Release,
    /// It is nobody's and matches: take it, after asking the server whether we still exist.
    Adopt,
    /// It is not our business.
    Ignore,
}

/// Judges an object that `controller` owns by reference. `matches`: its labels and name fit the controller.
#[must_use]
pub fn judge_own(controller: &ObjectMeta, matches: bool) -> Claim {
    match (matches, controller.deletion_timestamp.is_some()) {
        (true, _) => Claim::Keep,
        (false, true) => Claim::Ignore,
        (false, false) => Claim::Release,
    }
}

/// Judges an object that no controller owns.
#[must_use]
pub fn judge_orphan(controller: &ObjectMeta, object: &ObjectMeta, matches: bool) -> Claim {
    let either_goes = controller.deletion_timestamp.is_some() || object.deletion_timestamp.is_some();
    if matches && !either_goes { Claim::Adopt } else { Claim::Ignore }
}

/// The owner reference that has `controller: true`.
#[must_use]
pub fn controller_of(object: &ObjectMeta) -> Option<&OwnerReference> {
    object.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// The reference that a controller puts on what it makes.
#[must_use]
pub fn controller_ref(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The strategic merge patch that adopts `object`; its uid makes the server refuse a namesake.
#[must_use]
pub fn adopt_patch(reference: &OwnerReference, object: &ObjectMeta) -> Value {
    json!({"metadata": {"ownerReferences": [reference], "uid": object.uid}})
}

/// The strategic merge patch that releases `object`.
#[must_use]
pub fn release_patch(controller_uid: &str, object: &ObjectMeta) -> Value {
    json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": controller_uid}], "uid": object.uid}})
}

/// Whether labels satisfy a selector. An empty selector matches everything; an unknown operator nothing.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let fits = selector.match_expressions.iter().flatten().all(|term| {
        let value = labels.get(&term.key);
        let listed = || value.is_some_and(|value| term.values.iter().flatten().any(|v| v == value));
        match term.operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    equal && fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn object(deleting: bool) -> ObjectMeta {
        ObjectMeta { deletion_timestamp: deleting.then_some(Time(jiff::Timestamp::UNIX_EPOCH)), ..Default::default() }
    }

    #[test]
    fn takes_orphans_keeps_its_own_and_lets_go_what_no_longer_matches() {
        for (set_deleting, matches, expected) in [
            (false, true, Claim::Keep),
            (true, true, Claim::Keep),
            (false, false, Claim::Release),
            (true, false, Claim::Ignore),
        ] {
            let judged = judge_own(&object(set_deleting), matches);
            assert_eq!(judged, expected, "set deleting {set_deleting}, matches {matches}");
        }
        for (set_deleting, pod_deleting, matches, expected) in [
            (false, false, true, Claim::Adopt),
            (false, true, true, Claim::Ignore),
            (false, false, false, Claim::Ignore),
            (true, false, true, Claim::Ignore),
        ] {
            let judged = judge_orphan(&object(set_deleting), &object(pod_deleting), matches);
            assert_eq!(judged, expected, "set deleting {set_deleting}, pod deleting {pod_deleting}, matches {matches}");
        }
    }

    #[test]
    fn a_selector_needs_all_its_terms() {
        let selector: LabelSelector = serde_json::from_value(json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }))
        .expect("a selector");
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        assert!(selects(&selector, &labels(&[("app", "web"), ("tier", "b")])));
        assert!(!selects(&selector, &labels(&[("app", "web"), ("tier", "c")])));
        assert!(!selects(&selector, &labels(&[("app", "web")])));
        assert!(!selects(&selector, &labels(&[("app", "web"), ("tier", "a"), ("old", "")])));
    }
}
